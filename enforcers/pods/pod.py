"""One Pod's enforcement: its sandbox, what it should hold, and what was confirmed."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from enforcers.core.connections.cutting import Cut, may_tighten
from enforcers.core.difference import (
    Desired,
    Patch,
    Realized,
    Sets,
    advance,
    begins,
    compare,
    primed,
    realized,
)
from enforcers.core.layout import FAMILIES, Family, Interface
from enforcers.core.observation import Observed
from enforcers.kernel import namespaces
from enforcers.kernel.connections.judging import Ground, Judged
from enforcers.kernel.kept_socket import KeptSocket
from enforcers.kernel.namespaces import CommandFailed
from enforcers.kernel.rules.chain_backends import ChainBackendName
from enforcers.kernel.sets.set_backends import BackendName
from enforcers.pods.placement import Placement, Unenforceable
from enforcers.pods.pod_connections import CutSink, PodConnections
from enforcers.pods.pod_tables import PodTables
from enforcers.runtimes.runtime import Sandbox
from schemas.programs import Program
from schemas.status import Difference, PodState

PRIMING_SECONDS: Final = 1.0
"""For some ten thousand connections."""


class Look(msgspec.Struct, frozen=True):
    """What was seen of one Pod's rules and sets."""

    right: int
    """Number of the rule change up to which the rules were known to be right before; -1: they were not."""
    now_right: int
    """The same afterwards."""
    differences: tuple[Difference, ...]


class PodEnforcement:
    """Makes one namespace hold what one program asks; whoever calls while another does waits for its turn.

    Keeps a netlink socket in the namespace, and with it the network, until `close`.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        mark: int,
        backend: BackendName = "netlink",
        *,
        chains: ChainBackendName = "restore",
        families: Sequence[Family] = FAMILIES,
        foreign_handlers: Sequence[str] = (),
        node_netns: Path | None = None,
        cut: CutSink = lambda sandbox, cuts: None,
    ) -> None:
        self.sandbox = sandbox
        self.state = PodState.PENDING
        self.writes = 0
        """Patches written."""
        self.audit_due = False
        """Whether something was written since the connections were last judged that may forbid one of them."""
        self.tampered = False
        """Someone changed what is ours, and it was not put back yet."""
        self._beginning = False
        """Whether rules are being written where there were none, and the connections there are not all known yet."""
        self.has_rules = False
        """Whether rules that drop were all there once, and nobody has asked since that they go: as far as is known they
        stand, also where they are less than they should be."""
        self._program: Program | None = None
        self._desired: Desired | None = None
        self._ground: Ground | None = None
        """What connections are judged by; ``None``: there is nothing to judge them by."""
        self._realized: Realized | None = None
        self._placement = Placement(Interface("", mark, families=tuple(families)), foreign_handlers)
        self._doubts = 0
        self._turn = asyncio.Lock()
        self._namespace = namespaces.identity(sandbox.netns)
        self._netlink = KeptSocket(sandbox.netns)
        self.tables = PodTables(sandbox.netns, self._netlink, backend, chains)
        self.connections = PodConnections(self._netlink, mark, node_netns, cut)

    def __repr__(self) -> str:
        return f"<enforcement of {self.sandbox.namespace}/{self.sandbox.name}, {self.state}, {self.writes} writes>"

    async def realize(self, program: Program | None, sets: Sets, *, sweep: bool = True) -> Patch:
        """Write what differs; return the patch that was written, an empty one where nothing did.

        *sweep*: what is there of ours goes where *program* asks for nothing. Else it stays: in the state it has, or
        pending where nobody here knows what it was written for.
        Raises `Unenforceable`, `NoAddress`, `NoNamespace`, `CommandFailed`, `NetlinkRefused`: call `doubt` then, and
        the namespace is read again at the next attempt.
        """
        async with self._turn:
            return await self._realize(program, sets, sweep=sweep)

    async def _realize(self, program: Program | None, sets: Sets, *, sweep: bool) -> Patch:
        desired = await self._desire(program)
        known = self._realized
        observed = None if known else await self.tables.observe(self.sandbox, desired, sets)
        if not sweep and not desired.sets and (observed or (known and known.versions)):
            if observed:
                self.state = PodState.PENDING
            return Patch()
        if observed is not None:  # whoever wrote what is there may have ended before it judged the connections
            self.audit_due = bool(desired.sets)
        self._ground = self.connections.ground(self.sandbox, program, sets) if program and desired.sets else None
        there = known if observed is None else observed
        assert there is not None
        self._beginning = bool(desired.sets) and (self._beginning or begins(desired, there.tables))
        obstacle = observed.obstacle if observed is not None and desired.sets else ""
        try:
            if self._beginning:
                assert self._ground is not None  # it has sets
                # What was closed is closed again at once: who was allowed has the mark since, and goes on.
                first = desired if self.has_rules else primed(desired, there.tables)
                patch = await self._begin(self._ground, first, desired, observed)
            else:
                patch = await self._write(desired, sets, observed)
        except CommandFailed as error:  # the other family was written all the same
            if obstacle:
                raise Unenforceable(self.sandbox, obstacle) from error
            raise
        if obstacle:
            self._realized = None
            raise Unenforceable(self.sandbox, obstacle)
        if desired.sets:
            await self.tables.remember(desired, patch, observed)
        self.has_rules = bool(desired.sets)
        self.tampered = self.tampered and known is not None and bool(desired.sets)
        self.state = PodState.ENFORCED if desired.sets else PodState.OPEN
        if desired.sets and self._placement.shortfall:
            raise Unenforceable(self.sandbox, self._placement.shortfall)
        return patch

    async def _begin(self, ground: Ground, first: Desired, desired: Desired, observed: Observed | None) -> Patch:
        """Write rules where there were none; what is connected by then goes on, or is cut, as they say.

        A Pod that runs already is tracked first, and nothing is dropped until all its connections are known, or for
        `PRIMING_SECONDS`: however many it has, and whatever hinders us to judge them, it does not stay open for that.
        Those that are not known by then are served as soon as they are. What came up between the look and the rules is
        found after these.
        """
        patch, adopting = Patch(), None
        if await self.connections.anything(self.sandbox):
            patch = await self._write(first, ground.sets, observed)
            observed = None
            adopting = self.connections.adopt(ground)
            await asyncio.wait([adopting], timeout=PRIMING_SECONDS)
        patch = patch.followed_by(await self._write(desired, ground.sets, observed))
        judged = await asyncio.shield(adopting) if adopting is not None else Judged()
        if adopting is not None or await self.connections.anything(self.sandbox):
            judged = await self.connections.adopt(ground, judged)
        self._beginning = False
        self.connections.adopted(self.sandbox, judged)
        return patch

    async def _write(self, desired: Desired, sets: Sets, observed: Observed | None) -> Patch:
        """Write and return what differs from what was *observed*, or else from what was realized."""
        doubts = self._doubts
        if observed is None and self._realized is None:  # doubted since
            observed = await self.tables.observe(self.sandbox, desired, sets)
        if observed is not None:
            patch = compare(desired, observed, sets)
        else:
            assert self._realized is not None
            patch = advance(desired, self._realized, sets)
        after = realized(desired, sets)  # before the write: *sets* may go on meanwhile
        if patch:
            self._realized = None
            await self.tables.write(patch)
            self.writes += 1
            self.audit_due = bool(desired.sets) and (self.audit_due or may_tighten(patch, self._program))
            if patch.writes_rules and not desired.sets:
                await self.connections.end(self.sandbox.netns)
        self._realized = after if doubts == self._doubts else None
        return patch

    async def verify(self, program: Program | None, sets: Sets) -> list[str]:
        """Read the namespace and say what of ours there is not as *program* asks, in words; write nothing.

        Raises as `realize` does.
        """
        async with self._turn:
            desired = await self._placement.desired(program, self.sandbox)
            wanted = realized(desired, sets)
            found = await self.tables.differences(self.sandbox, self._placement.interface, wanted, sets)
            return list(map(str, found))

    async def look(
        self,
        sets: Sets,
        *,
        with_sets: bool = True,
        doubt: bool = False,
        is_covered: Callable[[int], bool] = lambda right: False,
    ) -> Look | None:
        """See what of ours is not as it was realized; ``None``: nothing is realized, so nothing can differ.

        *with_sets*: also what the sets hold. *doubt*: the next `realize` puts right what differs. *is_covered*: whether
        there is no reason to look where rules are known to be right up to the change of that number.
        Raises `NoNamespace`, `NetlinkRefused`.
        """
        async with self._turn:
            known = self._realized
            if known is None or not known.versions:
                return None
            right = self.tables.read_back.generation
            if is_covered(right):
                return Look(right, right, ())
            differences = await self.tables.differences(
                self.sandbox, self._placement.interface, known, sets, with_sets=with_sets
            )
            if differences:
                self.tampered = True
                if doubt:
                    self._realized = self._desired = None
                    self._placement.forget()
            elif with_sets:
                self.tampered = False
            return Look(right, self.tables.read_back.generation, tuple(differences))

    def holds_rules_of(self, program: Program | None) -> bool:
        """Whether nothing but the members of sets can be other than *program* asks."""
        return self._realized is not None and self._desired is not None and program == self._program

    def let_go_if_gone(self) -> bool:
        """Let go of a namespace that its file does not name any more; return whether it names another one now.

        A socket that stayed there would keep a network alive that is gone, addresses and all.
        """
        before, self._namespace = self._namespace, namespaces.identity(self.sandbox.netns)
        if before == self._namespace:
            return False
        self.doubt()
        return bool(self._namespace)

    def doubt(self) -> None:
        """What the namespace holds, and where, is not certain any more: look at it anew at the next `realize`.

        Whoever is writing meanwhile goes on, and what he wrote is as doubtful.
        """
        self._doubts += 1
        self._realized = self._desired = None
        self._placement.forget()
        self.tables.read_back.doubt()
        self._netlink.let_go()

    def close(self) -> None:
        """Let go of the namespace for good; rules stay. Whatever still works on it ends with `NoNamespace`."""
        self._netlink.close()

    async def idle(self) -> None:
        """Wait until no thread works on the namespace, also for someone who gave up."""
        await self._netlink.idle()

    async def audit(self) -> list[Cut]:
        """Clear the mark of every connection that the rules do not allow.

        By the program whose rules are there when its turn has come, and by the sets as they are then: who judged by
        another one would cut what these have just let in. Where nothing is certain, it stays due.
        Raises `NoNamespace`, `NetlinkRefused`.
        """
        async with self._turn:
            if self._realized is None or self._ground is None:
                return []
            cuts = await self.connections.audit(self._ground)
            self.audit_due = False  # not before: whoever asks meanwhile whether it is done has to wait
            return cuts

    async def inspect(self) -> None:
        """Look for what spoils enforcement though every rule stands. Raises `NoNamespace`, `NetlinkRefused`."""
        async with self._turn:
            await self.connections.inspect()
            await self.tables.inspect(self.sandbox)

    @property
    def problems(self) -> tuple[str, ...]:
        """What is wrong with it beside its rules; none where it has none."""
        return (*self.tables.legacy, *self.connections.problems) if self.has_rules else ()

    async def _desire(self, program: Program | None) -> Desired:
        """Rendered once per program. Raises `Unenforceable`, `NoAddress` where a program with rules has no place."""
        if self._desired is None or program != self._program:
            doubts = self._doubts
            desired = await self._placement.desired(program, self.sandbox)
            if doubts != self._doubts:
                return desired
            self._placement.keep(desired)
            self._program, self._desired = program, desired
        return self._desired
