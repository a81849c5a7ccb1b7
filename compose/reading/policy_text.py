"""Programs and sets as a person reads them, and as JSON that is the same wherever it is computed."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from compose.reading.output import aligned, counted, wrapped
from schemas.addresses import unpack
from schemas.policy import Policy
from schemas.programs import Direction, Program
from schemas.sets import describe, kind_of

OWN_NODE: Final = {"from": "always", "to": "setting allow_own_node_egress"}
SHOWN: Final = 12
"""Members shown of a set; the count says all."""

Sets = Mapping[str, frozenset[bytes]]


def document(policy: Policy, programs: Iterable[Program] | None = None) -> dict[str, Any]:
    """*programs* (all by default) and the sets they name, sorted: equal policies give equal documents."""
    chosen = sorted(policy.programs.values() if programs is None else programs, key=lambda one: (one.node, one.uid))
    named = policy.sets if programs is None else {name: policy.sets[name] for one in chosen for name in one.sets}
    return {
        "programs": [_document(program) for program in chosen],
        "sets": {name: _members(name, members) for name, members in sorted(named.items())},
    }


def _document(program: Program) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(program)
    return found | ({"addresses": _addresses(program)} if program.addresses else {})


def _addresses(program: Program) -> list[str]:
    return [unpack(address) for address in program.addresses]


def _members(name: str, members: frozenset[bytes]) -> list[str]:
    return [describe(kind_of(name), member) for member in sorted(members, key=lambda member: (len(member), member))]


def table(programs: Iterable[Program]) -> list[str]:
    """One line per program."""
    rows = [
        (program.namespace, program.name, program.node, program.mode, _state(program.ingress), _state(program.egress),
         len(program.sets))
        for program in sorted(programs, key=lambda one: (one.namespace, one.name, one.node))
    ]  # fmt: skip
    return aligned([("NAMESPACE", "POD", "NODE", "MODE", "INGRESS", "EGRESS", "SETS"), *rows])


def _state(direction: Direction | None) -> str:
    if direction is None:
        return "open"
    return f"isolated, {len(direction.rules)} rule{'' if len(direction.rules) == 1 else 's'}"


def text(program: Program, sets: Sets) -> Iterator[str]:
    """One program: each direction with its rules, the policy behind each, and the sets they name."""
    yield f"Pod {program.namespace}/{program.name} on {program.node} (uid {program.uid}), mode {program.mode}"
    yield f"Known to others as {', '.join(_addresses(program)) or 'nobody yet: it has no address of its own'}"
    for title, direction, peer in (("Ingress", program.ingress, "from"), ("Egress", program.egress, "to")):
        yield ""
        if direction is None:
            yield f"{title}: open, no policy isolates it"
            continue
        yield from wrapped(f"{title}: isolated by {', '.join(direction.isolating)}", " " * 4)
        yield from _direction(direction, peer, sets)
    if program.sets:
        yield ""
        yield "Sets"
        for name in sorted(program.sets):
            yield from wrapped(f"  {name}  {_shown(name, sets)}", " " * 4)


def _direction(direction: Direction, peer: str, sets: Sets) -> list[str]:
    """What it does with a packet, from which port, and why; in the order in which packets are asked."""
    rows: list[tuple[str, str, str]] = []
    if virtual := direction.virtual:
        known = len(sets.get(virtual.addresses, ())) + len(sets.get(virtual.ports, ()))
        rows += [
            (f"  allow to Services {_peers(virtual.allowed, sets)}", "as listed", "all endpoints are allowed"),
            (
                f"  block to other Services ({counted(known, 'address', 'addresses')})",
                "on any port",
                "not all endpoints are allowed",
            ),
        ]
    if direction.own_node:
        rows.append((f"  allow {peer} its own node", "on any port", OWN_NODE[peer]))
    for rule in direction.rules:
        peers = "anyone" if rule.sets is None else _peers(rule.sets, sets)
        ports = "any port" if rule.ports is None else ", ".join(map(str, rule.ports))
        rows.append((f"  allow {peer} {peers}", f"on {ports}", f"{rule.policy} (rule {rule.id})"))
    return aligned([*rows, ("  block whatever else", "on any port", "it is isolated")])


def _peers(names: Iterable[str], sets: Sets) -> str:
    return ", ".join(f"{name} ({len(sets.get(name, ()))})" for name in names) or "none"


def _shown(name: str, sets: Sets) -> str:
    if name not in sets:
        return "not there"
    members = _members(name, sets[name])
    rest = f", … {len(members) - SHOWN} more" if len(members) > SHOWN else ""
    return f"{len(members)}: {', '.join(members[:SHOWN])}{rest}" if members else "empty"
