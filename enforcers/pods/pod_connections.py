"""The connections of one Pod: adopted when its rules begin, cut when these tighten, and told of."""

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import structlog

from enforcers.core.connections.cutting import Cut
from enforcers.core.difference import Sets
from enforcers.kernel.connections import conntrack, judging
from enforcers.kernel.connections.inspecting import Inspection, inspect
from enforcers.kernel.connections.judging import Ground, Judged
from enforcers.kernel.kept_socket import KeptSocket
from enforcers.runtimes.runtime import Sandbox
from schemas.programs import Program

_log = structlog.get_logger("enforcers.pods.pod_connections")

CutSink = Callable[[Sandbox, Sequence[Cut]], None]
"""Told of every connection that ends because it is not allowed."""


class PodConnections:
    """Those in the namespace of *netlink*; whoever calls has the Pod's turn.

    *mark* is the bit of what is allowed; *node_netns* is where the node's own table is, which knows what is behind
    virtual addresses. Everything raises `NoNamespace`, `NetlinkRefused`.
    """

    def __init__(self, netlink: KeptSocket, mark: int, node_netns: Path | None, cut: CutSink) -> None:
        self.inspected = Inspection()
        """As of the last look."""
        self._netlink = netlink
        self._mark = mark
        self._node_netns = node_netns
        self._cut = cut
        self._unadopted = 0
        self._unknown = 0
        """Those that the last judgement kept since it could not judge them."""

    @property
    def problems(self) -> list[str]:
        """What is wrong though every rule stands."""
        found = list(self.inspected.problems)
        if self._unadopted:
            found.append(f"{self._unadopted} connections were not adopted: its table was full, or they were too many")
        if self._unknown:
            found.append(f"{self._unknown} connections to virtual addresses kept: the node knows no endpoint of theirs")
        return found

    def ground(self, sandbox: Sandbox, program: Program, sets: Sets) -> Ground:
        """What they are judged by."""
        return Ground(sandbox=sandbox, mark=self._mark, node_netns=self._node_netns, program=program, sets=sets)

    async def anything(self, sandbox: Sandbox) -> bool:
        """Whether somebody may be connected; of a fresh Pod this is all that is asked."""
        return await self._netlink.use(lambda netlink: judging.anything(netlink, sandbox))

    def adopt(self, ground: Ground, before: Judged | None = None) -> "asyncio.Future[Judged]":
        """Give each the entry and the mark that it should have; what was found *before* is counted in.

        It takes a thread as long as there are connections. Nobody else has to wait for that, nor do the rules.
        """
        return self._netlink.aside(lambda netlink: judging.adopt(netlink, ground, before))

    def adopted(self, sandbox: Sandbox, judged: Judged) -> None:
        """Rules have begun to drop, and this became of who was connected."""
        self._unadopted = judged.left
        self._report(sandbox, judged)

    async def audit(self, ground: Ground) -> list[Cut]:
        """Clear the mark of each that is not allowed; return them. Where none is connected no thread is asked: 10 µs.

        Of more than `PIECE` only the last are returned; whoever is told of cuts hears of them all, piece by piece.
        """
        netlink, judged = self._netlink.opened(), Judged()
        if not conntrack.usage(netlink)[0]:
            self._unknown = 0
            return []
        for _ in range(conntrack.pieces(netlink)):
            judged = await self._netlink.use(lambda netlink: judging.audit(netlink, ground), long=True)
            self._report(ground.sandbox, judged)
            if len(judged.cuts) < conntrack.PIECE:
                break
        return judged.cuts

    async def inspect(self) -> None:
        """Look for what spoils enforcement though every rule stands."""
        before = self.inspected
        self.inspected = await self._netlink.use(lambda netlink: inspect(netlink, self._mark, before), long=True)

    async def end(self, path: Path) -> None:
        """Our rules have left the namespace, which *path* names."""
        self.inspected, self._unadopted, self._unknown = Inspection(), 0, 0
        await self._netlink.use(lambda netlink: conntrack.end(netlink, path, self._mark), long=True)

    def _report(self, sandbox: Sandbox, judged: Judged) -> None:
        self._unknown = judged.unknown
        self._cut(sandbox, judged.cuts)
        pod = f"{sandbox.namespace}/{sandbox.name}"
        if judged.adopted:
            _log.info("connections adopted", pod=pod, connections=judged.adopted)
        if self._unknown:
            _log.warning(
                "connections to virtual addresses kept: the node knows no endpoint of theirs",
                pod=pod,
                connections=self._unknown,
            )
        if judged.left:
            _log.warning("connections not adopted: no room, or too many", pod=pod, connections=judged.left)
