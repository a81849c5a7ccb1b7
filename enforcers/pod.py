"""One Pod's enforcement: its sandbox, what it should hold, and what was confirmed."""

import asyncio
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec.structs import replace

from enforcers.core import layout
from enforcers.core.cutting import Cut, may_tighten, no_longer_allowed
from enforcers.core.difference import Desired, Patch, Realized, Sets, advance, compare, desire, realized
from enforcers.core.layout import FAMILIES, Family, Interface
from enforcers.core.netlink.connections import Connection, Endpoints
from enforcers.core.observation import Observed
from enforcers.kernel import conntrack, namespaces, tables
from enforcers.kernel.addressing import place
from enforcers.kernel.chain_backends import ChainBackend, ChainBackendName, NetlinkChains, RestoreChains
from enforcers.kernel.namespaces import CommandFailed, NoNamespace
from enforcers.kernel.set_backends import BackendName, NetlinkSets, RestoreSets, SetBackend
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from enforcers.runtimes.runtime import Sandbox
from enforcers.verifying import ReadBack, of_links
from schemas import addresses
from schemas.programs import Program
from schemas.status import Difference, PodState

T = TypeVar("T")

_log = structlog.get_logger("enforcers.pod")

Translations = Callable[[], dict[Endpoints, Endpoints]]
"""The node's own connection table; read only where a connection to a virtual address has to be judged."""


class Unenforceable(Exception):
    """No rule can hold in the namespace of *sandbox*, for this *reason*: nothing is claimed of it."""

    def __init__(self, sandbox: Sandbox, reason: str) -> None:
        super().__init__(f"{reason} ({sandbox.namespace}/{sandbox.name} in {sandbox.netns})")
        self.retriable = True


class NoAddress(Exception):
    """The runtime has not told yet which addresses the Pod has."""

    def __init__(self, sandbox: Sandbox) -> None:
        super().__init__(f"{sandbox.namespace}/{sandbox.name} has no address yet")
        self.retriable = True


class Look(msgspec.Struct, frozen=True):
    """What was seen of one Pod's rules and sets."""

    right: int
    """Number of the rule change up to which the rules were known to be right before; -1: they were not."""
    now_right: int
    """The same afterwards."""
    differences: tuple[Difference, ...]


class PodEnforcement:
    """Makes one namespace hold what one program asks; whoever calls while another does waits for its turn.

    Keeps one netlink socket in the namespace: opening is cheap, closing is not. Until `close` it also keeps the network
    alive, after the Pod is gone.
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
    ) -> None:
        self.sandbox = sandbox
        self.mark = mark
        self.foreign_handlers = foreign_handlers
        """Patterns of runtime handlers whose Pods no rule of this kernel reaches."""
        self.state = PodState.PENDING
        self.writes = 0
        """Patches written."""
        self.audit_due = False
        """Whether something was written since the connections were last judged that may forbid one of them."""
        self.problems: tuple[str, ...] = ()
        """What else decides about its packets, as of the last time that its namespace was read."""
        self.read_back = ReadBack()
        self.tampered = False
        """Someone changed what is ours, and it was not put back yet."""
        self._program: Program | None = None
        self._desired: Desired | None = None
        self._realized: Realized | None = None
        self._interface: Interface | None = None
        self._shortfall = ""
        """What no rule on that interface reaches."""
        self._families = tuple(families)
        self._turn = asyncio.Lock()
        self._closed = False
        self._namespace = namespaces.identity(sandbox.netns)
        self._socket: NetlinkSocket | None = None
        self._using: asyncio.Future[Any] | None = None
        """The newest work on the socket by a thread."""
        self._set_backend: SetBackend = (
            NetlinkSets(self._opened) if backend == "netlink" else RestoreSets(sandbox.netns)
        )
        tool = RestoreChains(sandbox.netns)
        self._chain_backend: ChainBackend = NetlinkChains(self._use, tool) if chains == "netlink" else tool

    def __repr__(self) -> str:
        return f"<enforcement of {self.sandbox.namespace}/{self.sandbox.name}, {self.state}, {self.writes} writes>"

    async def realize(self, program: Program | None, sets: Sets) -> Patch:
        """Write what differs; return the patch that was written, an empty one where nothing did.

        Raises `Unenforceable`, `NoAddress`, `NoNamespace`, `CommandFailed`, `NetlinkRefused`: call `doubt` then, and
        the namespace is read again at the next attempt.
        """
        async with self._turn:
            return await self._realize(program, sets)

    async def _realize(self, program: Program | None, sets: Sets) -> Patch:
        desired = self._desire(program)
        known = self._realized
        obstacle = ""
        if known is not None:
            patch = advance(desired, known, sets)
        else:
            observed = await self._observe(desired, sets)
            obstacle = observed.obstacle if desired.sets else ""
            patch = compare(desired, observed, sets)
        if known is None:  # whoever wrote what is there may have ended before it judged the connections
            self.audit_due = bool(desired.sets)
        after = realized(desired, sets)  # before the write: *sets* may go on meanwhile
        if patch:
            self._realized = None
            if patch.writes_rules:
                self.read_back.forget_rules()
            try:
                await tables.write(self.sandbox.netns, patch, self._set_backend, self._chain_backend)
            except CommandFailed as error:  # the other family was written all the same
                if obstacle:
                    raise Unenforceable(self.sandbox, obstacle) from error
                raise
            await self._wrote(patch, desired)
        if obstacle:
            raise Unenforceable(self.sandbox, obstacle)
        if desired.sets and (known is None or patch.writes_rules):  # what differs now someone else changed meanwhile
            await self._use(lambda netlink: self.read_back.check_rules(netlink, desired.tables))
        self._realized = after
        self.tampered = self.tampered and known is not None and bool(desired.sets)
        self.state = PodState.ENFORCED if desired.sets else PodState.OPEN
        if desired.sets and self._shortfall:
            raise Unenforceable(self.sandbox, self._shortfall)
        return patch

    async def verify(self, program: Program | None, sets: Sets) -> list[str]:
        """Read the namespace and say what of ours there is not as *program* asks, in words; write nothing.

        Raises as `realize` does.
        """
        async with self._turn:
            desired = self._desire(program)
            return list(map(str, await self._differences(realized(desired, sets), sets)))

    async def look(self, sets: Sets, *, with_sets: bool = True, doubt: bool = False) -> Look | None:
        """See what of ours is not as it was realized; ``None``: nothing is realized, so nothing can differ.

        *with_sets*: also what the sets hold. *doubt*: the next `realize` puts right what differs.
        Raises `NoNamespace`, `NetlinkRefused`.
        """
        async with self._turn:
            known = self._realized
            if known is None or not known.versions:
                return None
            right = self.read_back.generation
            differences = await self._differences(known, sets, with_sets=with_sets)
            if differences:
                self.tampered = True
                if doubt:
                    self._realized = self._desired = self._interface = None
            elif with_sets:
                self.tampered = False
            return Look(right, self.read_back.generation, tuple(differences))

    async def _differences(self, known: Realized, sets: Sets, *, with_sets: bool = True) -> list[Difference]:
        differences = await self._use(lambda netlink: self.read_back.check_rules(netlink, known.tables))
        if not with_sets or not known.versions:
            return differences
        if self._interface and (moved := await asyncio.to_thread(of_links, self.sandbox, self._interface)):
            differences.append(moved)
        if isinstance(self._set_backend, NetlinkSets):
            unknown, found = await self._use(lambda netlink: self.read_back.read_sets(netlink, known.versions))
        else:  # it was chosen since listings by netlink cannot be trusted here
            unknown, found = list(known.versions), await self._set_backend.read()
        members = {identity: sets[identity].at(known.versions[identity]) for identity in unknown if identity in sets}
        remembered = {identity: wanted for identity, wanted in members.items() if wanted is not None}
        if remembered:
            check = self.read_back.check_sets
            differences += await asyncio.to_thread(check, found, known.versions, remembered)
        return differences

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
        """What the namespace holds, and where, is not certain any more: look at it anew at the next `realize`."""
        self._realized = self._desired = None
        self._interface = None
        self.read_back.doubt()
        self._let_go()

    def close(self) -> None:
        """Let go of the namespace for good; rules stay. Whatever still works on it ends with `NoNamespace`."""
        self._closed = True
        self._let_go()

    async def idle(self) -> None:
        """Wait until no thread works on the namespace, also for someone who gave up."""
        if self._using is not None:
            await asyncio.wait([self._using])

    def _let_go(self) -> None:
        netlink, self._socket = self._socket, None
        if netlink is None:
            return
        if self._using is None or self._using.done():
            netlink.close_behind()
        else:  # a thread still works on it, also where nobody awaits that any more
            self._using.add_done_callback(lambda _: netlink.close_behind())

    async def audit(self, program: Program, sets: Sets, translations: Translations) -> list[Cut]:
        """Clear the mark of every connection that *program* does not allow. Raises `NoNamespace`, `NetlinkRefused`."""
        async with self._turn:
            return await self._audit(program, sets, translations)

    async def _audit(self, program: Program, sets: Sets, translations: Translations) -> list[Cut]:
        marked = await self._use(lambda netlink: conntrack.marked(netlink, self.mark))
        cuts, unknown = self._judge(marked, program, sets, translations)
        if cuts:
            ended = [cut.connection for cut in cuts]
            await self._use(lambda netlink: conntrack.unmark(netlink, self.mark, ended))
        for cut in cuts:
            _log.info("connection cut", pod=f"{self.sandbox.namespace}/{self.sandbox.name}", connection=str(cut))
        if unknown:
            _log.warning(
                "connections to virtual addresses kept: the node does not know their endpoint",
                pod=f"{self.sandbox.namespace}/{self.sandbox.name}",
                connections=len(unknown),
            )
        return cuts

    def _judge(
        self, marked: list[Connection], program: Program, sets: Sets, translations: Translations
    ) -> tuple[list[Cut], list[Connection]]:
        table: dict[Endpoints, Endpoints] | None = None

        def translated(ends: Endpoints) -> Endpoints | None:
            nonlocal table
            if table is None:
                table = translations()
            return table.get(ends)

        return no_longer_allowed(
            marked,
            program,
            own=self.sandbox.addresses,
            members=lambda identity: sets[identity].members,
            node=sets[layout.NODE_SET].members,
            translated=translated,
        )

    async def _observe(self, desired: Desired, sets: Sets) -> Observed:
        """Read the namespace; if connections were tracked for us before, judge them before any passes by its mark."""
        observed = await tables.observe(self.sandbox.netns, self._set_backend)
        news, self.problems = observed.problems != self.problems, observed.problems
        if news and self.problems:
            _log.warning("others' rules", pod=f"{self.sandbox.namespace}/{self.sandbox.name}", found=self.problems)
        observed = replace(observed, tables=self.read_back.suspicious(observed.tables))
        if desired.sets and not observed and self._program is not None:
            await self._audit(self._program, sets, dict)
        return observed

    async def _wrote(self, patch: Patch, desired: Desired) -> None:
        self.writes += 1
        self.audit_due = bool(desired.sets) and (self.audit_due or may_tighten(patch, self._program))
        if (
            patch.writes_rules and not desired.sets
        ):  # tracking ends: its entries would outlive the rules that judged them
            await self._use(lambda netlink: conntrack.forget(netlink, conntrack.marked(netlink, self.mark)))

    def _opened(self) -> NetlinkSocket:
        if self._closed:  # one that is opened now nobody would close, and it would keep the Pod's network alive
            raise NoNamespace(self.sandbox.netns)
        if self._socket is None:
            self._socket = NetlinkSocket(self.sandbox.netns, NETLINK_NETFILTER)
        return self._socket

    async def _use(self, work: Callable[[NetlinkSocket], T]) -> T:
        """Off the loop: a table may be long. A socket whose work was given up midway is not used again."""
        using = asyncio.get_running_loop().run_in_executor(None, work, self._opened())
        self._using = using
        try:
            return await asyncio.shield(using)
        except BaseException:
            self._let_go()
            raise

    def _desire(self, program: Program | None) -> Desired:
        """Rendered once per program. Raises `Unenforceable`, `NoAddress` where a program with rules has no place."""
        if self._desired is None or program != self._program:
            desired = self._placed(program, self._interface)
            if desired.sets:
                self._interface = desired.interface
            self._program, self._desired = program, desired
        return self._desired

    def _placed(self, program: Program | None, interface: Interface | None) -> Desired:
        """What *program* asks of the *interface*; ``None``: of wherever the addresses are now, if it asks for rules."""
        if interface is None and program is not None and program.isolated:
            interface = self._find_interface()
        return desire(program, interface or Interface("", self.mark, families=self._families))

    def _find_interface(self) -> Interface:
        """Where the Pod's addresses are. A link of another kernel, as Kata's, is not where its packets are.

        Where some of them are is better than nowhere: rules go there, and what they miss is the `_shortfall`.
        """
        sandbox = self.sandbox
        if any(fnmatchcase(sandbox.handler, pattern) for pattern in self.foreign_handlers):
            raise Unenforceable(sandbox, f"the runtime handler {sandbox.handler} keeps its traffic from this kernel")
        if not sandbox.addresses:
            raise NoAddress(sandbox)
        found = place(sandbox.netns, sandbox.addresses)
        absent = ", ".join(map(addresses.unpack, found.absent))
        self._shortfall = f"no interface in its network namespace carries {absent}" if absent else ""
        if found.dead_ends:
            self._shortfall = f"an address of the Pod is on {found.dead_ends[0]}, which no packet of others passes"
        if not found.links:
            nowhere = "no interface in its network namespace carries an address of the Pod"
            raise Unenforceable(sandbox, self._shortfall if found.dead_ends else nowhere)
        return Interface(found.links[0], self.mark, found.links[1:], self._families)
