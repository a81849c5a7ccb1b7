"""The gate (`semantics.md` §8): may a Pod start, so that its first packet meets the rules and its peers know it?

    own node: program realized ──┐
                                ├─▶ open, or what is missing
    Hearing: realized ───────┘

A program says by which addresses the cluster's sets know its Pod, and as of which revision. Until it names the address
from which the Pod asks, nobody can have been told to admit it.
"""

import asyncio
from typing import Final

from enforcers.answering.hearing import Hearing
from enforcers.core import layout
from enforcers.cven import Cven
from schemas.gate import GateAnswer
from schemas.programs import Mode, Program
from schemas.status import PodState

LOOK_SECONDS: Final = 0.05
"""A Pod that waits is looked at so often; it costs a few comparisons."""
HOLDS: Final = (PodState.ENFORCED, PodState.ADVISORY, PodState.OPEN, PodState.RELEASED)
"""What a Pod may start in: released is by order, and no Pod stays down for that."""
HOST_NETWORK: Final = GateAnswer(open=True, holds=PodState.HOST_NETWORK)


class Stranger(Exception):
    """Whoever asks has an address of no Pod here, or not yet: a runtime tells of a Pod a moment after it made it."""

    def __init__(self) -> None:
        super().__init__("your address is that of no Pod that this node's container runtime has told of")
        self.retriable = True


class Gate:
    """Answers the Pods of *cven*'s node."""

    def __init__(self, cven: Cven, hearing: Hearing) -> None:
        self._cven = cven
        self._hearing = hearing

    async def wait(self, address: bytes, seconds: float) -> GateAnswer:
        """The answer for the Pod at *address*, packed: once it is open or changes, or after so many *seconds*.

        Raises `Stranger`.
        """
        loop = asyncio.get_running_loop()
        limit = loop.time() + seconds
        answer = first = self.answer(address)
        while not answer.open and answer == first and (left := limit - loop.time()) > 0:
            await asyncio.sleep(min(left, LOOK_SECONDS))
            answer = self.answer(address)
        return answer

    def answer(self, address: bytes) -> GateAnswer:
        """As of now. Raises `Stranger`."""
        node = self._cven.node
        if address in node.sets_of(None)[layout.NODE_SET].members:
            return HOST_NETWORK
        found = [(uid, pod) for uid, pod in node.pods.items() if address in pod.sandbox.addresses]
        if not found:
            raise Stranger
        # The next Pod may have an address before the runtime says that the one that had it is gone.
        uid, pod = max(found, key=lambda each: each[1].sandbox.created_at)
        name = f"{pod.sandbox.namespace}/{pod.sandbox.name}"
        program = node.policy.programs.get(uid)
        if (unknown := self._unknown(program, address)) or program is None:
            return GateAnswer(open=False, pod=name, missing=(unknown,))
        holds = self._holds(uid, program)
        own = self._lacking(uid, holds, program)
        missing = (*((own,) if own else ()), *self._hearing.lacking(program.revision))
        return GateAnswer(open=not missing, pod=name, holds="" if missing else holds, missing=missing)

    def _unknown(self, program: Program | None, address: bytes) -> str:
        """Why this node cannot know yet what the Pod needs; empty: it does."""
        node = self._cven.node
        if node.from_disk:
            return "this node enforces from disk: it has not heard from NATS since its start"
        if not node.policy.complete:
            return "this node does not know its policy yet"
        if program is None:
            return "no program is published for this Pod yet"
        return "" if address in program.addresses else "no other Pod's rules know its address yet"

    def _holds(self, uid: str, program: Program) -> str:
        if program.mode is Mode.IDLE:
            return PodState.IDLE
        return "nothing: this node observes" if self._cven.settings.observe else self._cven.state_of(uid)

    def _lacking(self, uid: str, holds: str, program: Program) -> str:
        """What its own node has not done for the Pod; empty: nothing, or nothing is to be done, by order."""
        node, realized = self._cven.node, self._cven.revision
        if program.mode is Mode.IDLE or node.settings.observe:
            return ""
        if node.orders.paused:
            return "this node is paused: it writes no rules"
        if reason := node.failing.get(uid):
            return reason
        if holds not in HOLDS:
            return f"its rules are not written: it is {holds}"
        return "" if realized >= program.revision else f"this node has realized {realized}, not yet {program.revision}"
