"""The span of a change: which nodes must have realized it, and which of their Pods it is about.

What is published says who knows an object now. Who knew what it was before, and must forget that, is not written there:
an object that policy saw otherwise before is waited for on every node. One that it does not concern confirms at once.
"""

from collections.abc import Iterable

import msgspec

from compose.waiting.changes import Changed
from processors.core.segmentation.selection.pods import PodView, view
from schemas import sets
from schemas.objects import KubernetesObject, NetworkPolicy, Pod
from schemas.policy import Policy
from schemas.programs import Program
from schemas.sets import SetKind

Concerned = dict[str, frozenset[str]]
"""By node, the ids of its Pods that a change is about, the API's and the runtime's."""


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """Where a revision has to be realized."""

    nodes: Concerned | None = None
    """``None``: on every node, for all its Pods."""
    reason: str

    def about(self, node: str, uid: str) -> bool:
        """Whether an exception of the Pod *uid* on *node* counts."""
        return self.nodes is None or uid in self.nodes.get(node, ())


def span_of(changed: Changed, policy: Policy) -> Span:
    """The span of *changed* by what is published, *policy*, which has it."""
    if changed.superseded:
        return Span(reason="every node: the object has changed since")
    match changed.object:
        case Pod() as pod if not _forgotten_elsewhere(pod, changed):
            seen = view(pod)[0]
            holding = {name for name, members in policy.sets.items() if _holds(name, members, seen.claims)}
            nodes = _concerned(program for program in policy.programs.values() if not holding.isdisjoint(program.sets))
            if seen.node:
                own = frozenset({seen.uid, seen.mirror or seen.uid})
                nodes[seen.node] = nodes.get(seen.node, frozenset()) | own
            return Span(nodes=nodes, reason="the Pod's own node, and those whose Pods have rules about its addresses")
        case NetworkPolicy() as found if all(_same_spec(found, earlier) for earlier in changed.before):
            named = (one for one in policy.programs.values() if changed.key in _policies(one))
            return Span(nodes=_concerned(named), reason="the nodes whose Pods have rules by this policy")
        case None:
            return Span(reason="every node: the object is gone, and whoever knew it must forget it")
        case Pod() | NetworkPolicy():
            return Span(reason="every node: the object was another before, and whoever knew that must forget it")
        case _:
            return Span(reason="every node")


def _concerned(programs: Iterable[Program]) -> Concerned:
    found: Concerned = {}
    for program in programs:
        found[program.node] = found.get(program.node, frozenset()) | {program.uid, program.mirror or program.uid}
    return found


def _holds(name: str, members: frozenset[bytes], addresses: Iterable[bytes]) -> bool:
    kind = sets.kind_of(name)
    if kind is SetKind.TUPLES:
        return any(sets.unpack_endpoint(member)[0] in addresses for member in members)
    return any(sets.contains(kind, members, address, 0, 0) for address in addresses)


def _policies(program: Program) -> set[str]:
    return {name for side in (program.ingress, program.egress) if side is not None for name in side.isolating}


def _forgotten_elsewhere(pod: Pod, changed: Changed) -> bool:
    """Whether anyone may know *pod* by what it was before."""
    newest = _peer(view(pod)[0])
    for earlier in changed.before:
        if not isinstance(earlier, Pod):
            return True
        seen = view(earlier)[0]
        if seen.claims and _peer(seen) != newest:
            return True
    return False


def _peer(seen: PodView) -> tuple[object, ...]:
    """What the rules of others depend on."""
    return seen.uid, seen.labels, seen.ports, seen.claims


def _same_spec(found: NetworkPolicy, earlier: KubernetesObject | object | None) -> bool:
    return isinstance(earlier, NetworkPolicy) and bytes(earlier.spec) == bytes(found.spec)
