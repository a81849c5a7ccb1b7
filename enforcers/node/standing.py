"""What is said of the Pods of a node: never *enforced* where it is less than that (`semantics.md` §5.9)."""

from collections.abc import Iterator
from typing import Final

from enforcers.node.local_node import LocalNode
from schemas.programs import Mode, Program
from schemas.status import PodException, PodState

PROBLEMS_TOLD: Final = 20


class Standing:
    """Of the Pods of *node*, by the runtime's uid, as of now."""

    def __init__(self, node: LocalNode) -> None:
        self._node = node

    def exceptions(self) -> Iterator[PodException]:
        """The Pods that do not hold what they should; not as of the last mark: a retry may have succeeded."""
        node = self._node
        for uid, pod in sorted(node.pods.items()):
            released = str(node.releasing(uid)) if self._lacks_rules(uid) else ""
            if reason := node.failing.get(uid) or released or node.tamperings.trouble(uid) or self._left_so(uid):
                where = pod.sandbox
                yield PodException(uid=node.api_uid(uid), namespace=where.namespace, name=where.name, reason=reason)

    def _lacks_rules(self, uid: str) -> bool:
        """Whether the Pod *uid* is released from rules that it would have."""
        program = self._node.policy.programs.get(uid)
        return program is not None and program.isolated and self._node.releasing(uid) is not None

    def _left_so(self, uid: str) -> str:
        """Why the Pod *uid* stays as someone else changed it; empty: it does not."""
        if not (self._node.passive and self._node.pods[uid].tampered):
            return ""
        return f"paused, so what someone changed is not put back: {self._node.tamperings.newest(uid)}"

    def state_of(self, uid: str) -> PodState:
        """What has become of the Pod *uid*: never *enforced* where it is less than that."""
        pod, program = self._node.pods.get(uid), self._node.policy.programs.get(uid)
        if pod is None:
            return PodState.PENDING
        bare = pod.state is PodState.OPEN or (pod.state is PodState.PENDING and not self._node.orders.paused)
        if program is not None and program.mode is Mode.IDLE and bare:  # else rules of before may be there
            return PodState.IDLE
        if self._lacks_rules(uid) and pod.state in (PodState.OPEN, PodState.PENDING):
            return PodState.RELEASED
        isolated = program is not None and program.isolated
        if self._node.passive and (pod.state is PodState.PENDING or (pod.state is PodState.OPEN and isolated)):
            return self._unwritten(program)
        if pod.state is PodState.ENFORCED and self._left_so(uid):
            return PodState.PAUSED
        if pod.state is PodState.ENFORCED and program is not None and program.advisory:
            return PodState.ADVISORY
        return pod.state

    def _unwritten(self, program: Program | None) -> PodState:
        """Of a Pod that this node did not program, since it writes nothing.

        A pause keeps also rules of before that nothing asks for any more, so no such Pod is said to have none.
        """
        if not self._node.settings.observe:
            return PodState.PAUSED
        return PodState.OPEN if program is not None and not program.isolated else PodState.OBSERVED

    def is_bypassable(self, uid: str) -> bool:
        """Whether the Pod *uid* has rules, and may send packets past them."""
        program = self._node.policy.programs.get(uid)
        return program is not None and program.bypassable and self.state_of(uid) is PodState.ENFORCED

    def bypassable(self) -> int:
        """How many Pods have rules, and may send packets past them."""
        return sum(map(self.is_bypassable, self._node.pods))

    def problems(self) -> tuple[str, ...]:
        """What is wrong with Pods beside their rules."""
        found = [
            f"{pod.sandbox.namespace}/{pod.sandbox.name}: {problem}"
            for pod in self._node.pods.values()
            for problem in pod.problems
        ]
        more = len(found) - PROBLEMS_TOLD
        return (*sorted(found)[:PROBLEMS_TOLD], *([f"and {more} more"] if more > 0 else []))
