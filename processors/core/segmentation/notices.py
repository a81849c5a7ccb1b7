"""What works as configured and may surprise: warnings about Services, computed when someone asks."""

from collections.abc import Iterator, Mapping

from processors.core.segmentation.population import Population
from processors.core.segmentation.services import ServiceKey, ServiceView
from processors.core.segmentation.signatures import Signature
from processors.core.segmentation.virtual import Virtuals
from schemas import addresses, names


def of_services(virtuals: Virtuals, population: Population) -> Mapping[str, tuple[str, ...]]:
    """The warnings about each Service, by its log key."""
    found: dict[str, tuple[str, ...]] = {}
    for key in sorted(virtuals.views):
        lines = tuple(_about(key, virtuals.views[key], virtuals, population))
        if lines:
            found[names.key("Service", *key)] = lines
    return found


def _about(key: ServiceKey, view: ServiceView, virtuals: Virtuals, population: Population) -> Iterator[str]:
    if view.local:
        yield "internalTrafficPolicy is Local: judged over the endpoints of all nodes"
    if view.through_node:
        exposed = sorted(set(_isolated_pods(view, population)))
        if exposed:
            where = "other nodes' addresses are blocked unless a policy allows them" if view.from_nodes else ""
            yield "; ".join(
                filter(
                    None,
                    (
                        f"exposed through node: traffic from a Pod's own node always passes to {', '.join(exposed)}",
                        where,
                    ),
                )
            )
    for isolating in sorted(virtuals.signatures):
        yield from _partly(key, virtuals.signatures[isolating])


def _partly(key: ServiceKey, signature: Signature) -> Iterator[str]:
    """What a Service lacks to be open to the Pods that *signature* isolates, where it has some of it."""
    if key not in signature.outcomes:
        return
    view, outcomes = signature.outcomes[key]
    for door, (_, missing) in zip(view.doors, outcomes, strict=True):
        if missing:
            yield (
                f"partial service: {door.label} for Pods isolated by {', '.join(signature.isolating)}: "
                f"not allowed: {', '.join(map(addresses.unpack, sorted(missing)))}"
            )


def _isolated_pods(view: ServiceView, population: Population) -> Iterator[str]:
    for target in view.targets:
        owner = population.owners.get(target.address)
        if owner is not None and owner.cohort is not None and owner.cohort.ingress is not None:
            yield f"{owner.view.namespace}/{owner.view.name}"
