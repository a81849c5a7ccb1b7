"""The rules and sets of one Pod: read, written, and compared with what was written."""

import asyncio
from pathlib import Path

import structlog
from msgspec.structs import replace

from enforcers.core.difference import Desired, Patch, Realized, Sets
from enforcers.core.layout import Interface
from enforcers.core.observation import Observed
from enforcers.core.set_rendering import reading_limits
from enforcers.kernel import tables
from enforcers.kernel.kept_socket import KeptSocket
from enforcers.kernel.rules.chain_backends import ChainBackend, ChainBackendName, NetlinkChains, RestoreChains
from enforcers.kernel.rules.legacy_tables import legacy_problems, used_tables
from enforcers.kernel.rules.native import RulesRead
from enforcers.kernel.sets.set_backends import BackendName, NetlinkSets, RestoreSets, SetBackend
from enforcers.pods.verifying import ReadBack, of_links
from enforcers.runtimes.runtime import Sandbox
from schemas.status import Difference

_log = structlog.get_logger("enforcers.pods.pod_tables")


class PodTables:
    """Those in the namespace *path*, which *netlink* keeps a socket in; whoever calls has the Pod's turn.

    Everything raises `NoNamespace`, `CommandFailed`, `NetlinkRefused`.
    """

    def __init__(self, path: Path, netlink: KeptSocket, sets: BackendName, chains: ChainBackendName) -> None:
        self.read_back = ReadBack()
        self.legacy: tuple[str, ...] = ()
        """What else decides about the Pod's packets, as of the last time that it was read or inspected."""
        self._path = path
        self._netlink = netlink
        self._sets: SetBackend = NetlinkSets(netlink.opened) if sets == "netlink" else RestoreSets(path)
        tool = RestoreChains(path)
        self._chains: ChainBackend = NetlinkChains(netlink.use, tool) if chains == "netlink" else tool

    async def observe(self, sandbox: Sandbox, desired: Desired, sets: Sets) -> Observed:
        """What is there of ours. Of sets that *desired* does not name, or that are far too full: that they exist."""
        observed = await tables.observe(self._path, self._sets, reading_limits(desired.sets, sets))
        self._take_legacy(sandbox, observed.problems)
        return replace(observed, tables=self.read_back.suspicious(observed.tables))

    async def write(self, patch: Patch) -> None:
        """Write *patch*. What fails may be written in part."""
        if patch.writes_rules:
            self.read_back.forget_rules()
        await tables.write(self._path, patch, self._sets, self._chains)

    async def remember(self, desired: Desired, patch: Patch, observed: Observed | None) -> None:
        """Know the rules of *desired* again: by what is there once *patch* was written, or was *observed* before."""
        if patch.writes_rules:  # what differs now someone else changed meanwhile
            await self._netlink.use(lambda netlink: self.read_back.check_rules(netlink, desired.tables))
        elif observed is not None:
            self.read_back.take(RulesRead(observed.generation, True, observed.tables), desired.tables)

    async def differences(
        self, sandbox: Sandbox, interface: Interface | None, known: Realized, sets: Sets, *, with_sets: bool = True
    ) -> list[Difference]:
        """What is not as it was *known* to be on *interface*; *with_sets*: also what the sets hold. Writes nothing."""
        differences = await self._netlink.use(lambda netlink: self.read_back.check_rules(netlink, known.tables))
        if not with_sets or not known.versions:
            return differences
        if interface and (moved := await asyncio.to_thread(of_links, sandbox, interface)):
            differences.append(moved)
        if isinstance(self._sets, NetlinkSets):
            limits, read = reading_limits(known.versions, sets), self.read_back.read_sets
            unknown, found = await self._netlink.use(lambda netlink: read(netlink, known.versions, limits))
        else:  # it was chosen since listings by netlink cannot be trusted here
            unknown, found = list(known.versions), await self._sets.read()
        members = {identity: sets[identity].at(known.versions[identity]) for identity in unknown if identity in sets}
        remembered = {identity: wanted for identity, wanted in members.items() if wanted is not None}
        if remembered:
            check = self.read_back.check_sets
            differences += await asyncio.to_thread(check, found, known.versions, remembered)
        return differences

    async def inspect(self, sandbox: Sandbox) -> None:
        """Look for what else decides about the Pod's packets: no event tells of it."""
        used = await asyncio.to_thread(used_tables, self._path)
        self._take_legacy(sandbox, await legacy_problems(self._path, used))

    def _take_legacy(self, sandbox: Sandbox, found: tuple[str, ...]) -> None:
        news, self.legacy = found != self.legacy, found
        if news and found:
            _log.warning("others' rules", pod=f"{sandbox.namespace}/{sandbox.name}", found=found)
