"""Who reaches whom, as a table: from a plan to probes, and from answers to something to read."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

import msgspec

from compose.lab.plan import Plan, family
from compose.lab.probing import Answer, Probe


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where probes come from or go to."""

    name: str
    """``namespace/name`` of a Pod, or an address beyond the cluster."""
    netns: str
    addresses: tuple[str, ...]


class Cell(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """What was asked, in the words of the objects."""

    source: str
    destination: str
    protocol: str
    port: int


def places(plan: Plan) -> dict[str, Place]:
    """Every Pod and every outside address of *plan*, by name."""
    pods = (Place(name=pod.key, netns=pod.netns, addresses=pod.pod.addresses) for pod in plan.pods)
    outside = (Place(name=address, netns=plan.outside, addresses=(address,)) for address in plan.externals)
    return {place.name: place for place in (*pods, *outside)}


def full_matrix(
    plan: Plan, ports: Sequence[tuple[str, int]], *, version: int | None = None, sources: Iterable[str] | None = None
) -> list[Probe]:
    """Everybody to everybody, oneself included, on every (protocol, port).

    *version* 4 or 6 leaves out pairs without addresses of that family; `None` takes each destination's first address
    that the source has a family for. *sources* limits who asks. Outside addresses do not ask each other.
    """
    known = places(plan)
    asking = list(known.values()) if sources is None else [known[name] for name in sources]
    return [
        probe
        for source in asking
        for destination in known.values()
        if not (source.netns == destination.netns == plan.outside)
        for probe in probes_between(source, destination, ports, version=version)
    ]


def declared_matrix(plan: Plan, *, version: int | None = None, sources: Iterable[str] | None = None) -> list[Probe]:
    """As `full_matrix`, each destination on the ports that it declares; outside addresses on all of them."""
    declared = {pod.key: pod.pod.ports for pod in plan.pods}
    everything = tuple(dict.fromkeys(port for ports in declared.values() for port in ports))
    wanted = declared | dict.fromkeys(plan.externals, everything)
    return [
        probe
        for probe in full_matrix(plan, everything, version=version, sources=sources)
        if (probe.protocol, probe.port) in wanted[probe.destination]
    ]


def probes_between(
    source: Place, destination: Place, ports: Iterable[tuple[str, int]], *, version: int | None = None
) -> Iterator[Probe]:
    """One probe per port, none if the two have no family in common."""
    families = {family(address) for address in source.addresses} if version is None else {version}
    address = next((address for address in destination.addresses if family(address) in families), "")
    own = [candidate for candidate in source.addresses if address and family(candidate) == family(address)]
    if not own:
        return
    for protocol, port in ports:
        yield Probe(
            source=source.name,
            netns=source.netns,
            source_address=own[0],
            destination=destination.name,
            address=address,
            protocol=protocol,
            port=port,
        )


def service_probes(plan: Plan, *, sources: Iterable[str] | None = None) -> list[Probe]:
    """Everybody to every virtual address and port of every Service, named ``service namespace/name``."""
    known = places(plan)
    asking = [place for place in known.values() if place.netns != plan.outside]
    if sources is not None:
        asking = [known[name] for name in sources]
    return [
        probe
        for source in asking
        for service in plan.services
        for address in service.addresses
        for probe in probes_between(
            source,
            Place(name=f"service {service.service}", netns="", addresses=(address,)),
            [(service.protocol, service.port)],
        )
    ]


def cells(answers: Mapping[Probe, Answer]) -> dict[Cell, Answer]:
    """The answers in the words of the objects. Several addresses of one cell: the worst outcome stands."""
    order = ["unreachable", "blocked", "refused", "reachable"]
    result: dict[Cell, Answer] = {}
    for probe, answer in answers.items():
        cell = Cell(source=probe.source, destination=probe.destination, protocol=probe.protocol, port=probe.port)
        known = result.get(cell)
        if known is None or order.index(answer.outcome) < order.index(known.outcome):
            result[cell] = answer
    return dict(sorted(result.items(), key=lambda item: item[0]))
