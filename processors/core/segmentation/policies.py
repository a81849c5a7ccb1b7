"""NetworkPolicies: from a specification as it came to what it means, part by part.

An unreadable part never hides the rest: the policy still isolates what its selector selects, and the part that cannot
be read admits nobody. Source: ``NetworkPolicySpec`` (networking/v1) field comments and its defaulting.
"""

from functools import lru_cache
from typing import Final

import msgspec

from processors.core.segmentation.peers import Peer, PortMatch, Problems, fields, read_peer, read_port
from processors.core.segmentation.selection.selectors import Selector, read_selector
from schemas.unreadable import UNREADABLE

SPEC_FIELDS: Final = frozenset(("podSelector", "policyTypes", "ingress", "egress"))
BOTH: Final = frozenset(("Ingress", "Egress"))


class RuleSpec(msgspec.Struct, frozen=True):
    """What one rule admits."""

    index: int
    """Its place in the policy's list."""
    peers: tuple[Peer, ...] | None
    """``None``: any peer. Empty: no readable one, nobody."""
    ports: tuple[PortMatch, ...] | None
    """``None``: any port of any protocol. Empty: none."""


class PolicySpec(msgspec.Struct, frozen=True):
    """What a policy means."""

    subject: Selector | None
    """The Pods it selects; ``None`` where that cannot be read."""
    ingress: tuple[RuleSpec, ...] | None
    """Its ingress rules; ``None`` where it does not isolate for ingress."""
    egress: tuple[RuleSpec, ...] | None
    problems: tuple[str, ...] = ()
    """What could not be read: where and why."""


@lru_cache(maxsize=4096)
def read_spec(raw: bytes) -> PolicySpec:
    """The meaning of the specification *raw* (JSON). Nothing it may hold raises.

    The same text means the same in every namespace, so what was read is kept.
    """
    problems = Problems()
    try:
        spec = msgspec.json.decode(raw)
    except UNREADABLE as error:
        return PolicySpec(None, (), (), (f"spec: {error}",))
    if spec is None:
        spec = {}
    if not isinstance(spec, dict):
        return PolicySpec(None, (), (), ("spec: is not an object",))
    problems.found += [f"spec.{name}: unknown field, ignored" for name in sorted(spec.keys() - SPEC_FIELDS)]
    selector = spec.get("podSelector")
    subject = problems.read(read_selector, {} if selector is None else selector, "spec.podSelector")
    types = _types(spec, problems)
    ingress = _rules(spec.get("ingress"), "from", "spec.ingress", problems) if "Ingress" in types else None
    egress = _rules(spec.get("egress"), "to", "spec.egress", problems) if "Egress" in types else None
    return PolicySpec(subject, ingress, egress, tuple(problems.found))


def _types(spec: dict[str, object], problems: Problems) -> frozenset[str]:
    """The directions in which the policy isolates; both, where that cannot be read."""
    listed = spec.get("policyTypes")
    if listed is None or listed == []:
        return BOTH if spec.get("egress") else frozenset(("Ingress",))
    if not isinstance(listed, list):
        problems.found.append("spec.policyTypes: is not a list")
        return BOTH
    for item in listed:
        if not isinstance(item, str) or item not in BOTH:
            problems.found.append(f"spec.policyTypes: {item!r} is not Ingress or Egress")
            return BOTH
    return frozenset(listed)


def _rules(value: object, peers: str, where: str, problems: Problems) -> tuple[RuleSpec, ...]:
    """The rules of one direction; a rule that cannot be read is left out, since it admits nobody."""
    if value is None:
        return ()
    if not isinstance(value, list):
        problems.found.append(f"{where}: is not a list")
        return ()
    known = frozenset((peers, "ports"))
    rules = []
    for index, item in enumerate(value):
        place = f"{where}[{index}]"
        given = problems.read(lambda rule, at: fields(rule, at, known), item, place)
        if given is None:
            continue
        rules.append(
            RuleSpec(
                index,
                problems.read_list(read_peer, given.get(peers), f"{place}.{peers}"),
                problems.read_list(read_port, given.get("ports"), f"{place}.ports"),
            )
        )
    return tuple(rules)
