"""What works as configured and may surprise: warnings about Services, computed when someone asks."""

from collections.abc import Iterator, Mapping
from typing import Final

from processors.core.segmentation.selection.population import Population
from processors.core.segmentation.virtual_addresses.services import ServiceKey, Services, ServiceView
from processors.core.segmentation.virtual_addresses.signatures import Signature
from processors.core.segmentation.virtual_addresses.virtual import Virtuals
from schemas import addresses, names

NAMED: Final = 20
"""A warning names at most so many of what a Service may have thousands of."""


def of_services(virtuals: Virtuals, population: Population, services: Services) -> Mapping[str, tuple[str, ...]]:
    """The warnings about each Service, by its log key."""
    found: dict[str, tuple[str, ...]] = {}
    for key, view in sorted(virtuals.fronts.views.items()):
        lines = [*_exposed(view, population)]
        for signature in sorted(virtuals.lacking.get(key, ()), key=lambda each: each.isolating):
            lines += _partly(key, signature, population, services)
        if lines:
            found[names.key("Service", *key)] = tuple(lines)
    return found


def _exposed(view: ServiceView, population: Population) -> Iterator[str]:
    if view.through_node and (exposed := sorted(set(_isolated_pods(view, population)))):
        yield (
            f"exposed through node: what comes in by a node has that node's address; from a Pod's own node it always "
            f"passes to {_listed(exposed)}; other nodes' addresses are blocked unless a policy allows them"
        )


def _partly(key: ServiceKey, signature: Signature, population: Population, services: Services) -> Iterator[str]:
    """What a Service lacks to be open to the Pods that *signature* isolates, where it has some of it.

    Only there it matters that a node may use fewer endpoints: where all or none are allowed, so are any of them.
    """
    view, _ = signature.outcomes[key]
    judged = "".join(f" ({reason}: judged over the endpoints of all nodes)" for reason in view.choosy)
    for door, missing in zip(view.doors, signature.lacks(key), strict=True):
        if missing:
            endpoints = [_endpoint(address, population, services) for address in sorted(missing)]
            yield (
                f"partial service: {door.label} for Pods isolated by {', '.join(signature.isolating)}: "
                f"not allowed: {_listed(endpoints)}{judged}"
            )


def _endpoint(address: bytes, population: Population, services: Services) -> str:
    """Who is at *address*, as far as is known: ``shop/db (10.0.0.3)``, ``node n1 (172.18.0.2)``, ``192.0.2.1``."""
    text = addresses.unpack(address)
    if (owner := population.owners.get(address)) is not None:
        return f"{owner.view.namespace}/{owner.view.name} ({text})"
    if nodes := services.nodes_at.get(address):
        return f"node {min(nodes)} ({text})"
    return text


def _isolated_pods(view: ServiceView, population: Population) -> Iterator[str]:
    for target in view.targets:
        owner = population.owners.get(target.address)
        if owner is not None and owner.cohort is not None and owner.cohort.ingress is not None:
            yield f"{owner.view.namespace}/{owner.view.name}"


def _listed(found: list[str]) -> str:
    rest = f" and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return ", ".join(found[:NAMED]) + rest
