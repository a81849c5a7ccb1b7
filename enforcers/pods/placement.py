"""Where in a Pod's namespace its rules belong."""

import asyncio
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from msgspec.structs import replace

from enforcers.core.difference import Desired, desire
from enforcers.core.layout import Interface
from enforcers.kernel.addressing import place
from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from schemas.programs import Program

_PLAIN: Final = re.compile(r"[\w.@-]+", re.ASCII)
"""Names of links: a Pod may have others, with which a rule means something else than the link of that name."""


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


class Placement:
    """The interface of one Pod, found when a program first asks for rules, and kept until it is doubtful."""

    def __init__(self, nowhere: Interface, foreign_handlers: Sequence[str]) -> None:
        """*nowhere*: all but the links. *foreign_handlers*: patterns of runtime handlers whose Pods no rule of this
        kernel reaches."""
        self.interface: Interface | None = None
        self.shortfall = ""
        """What no rule on that interface reaches."""
        self._nowhere = nowhere
        self._foreign_handlers = foreign_handlers

    async def desired(self, program: Program | None, sandbox: Sandbox) -> Desired:
        """What *program* asks of the known interface, or, if it asks for rules, of where *sandbox* has its addresses.

        Raises `Unenforceable`, `NoAddress`, `NoNamespace`.
        """
        interface = self.interface
        if interface is None and program is not None and program.isolated:
            interface = await self._find(sandbox)
        return desire(program, interface or self._nowhere)

    def keep(self, desired: Desired) -> None:
        """The rules of *desired* are where they belong."""
        if desired.sets:
            self.interface = desired.interface

    def forget(self) -> None:
        """Look anew the next time."""
        self.interface = None

    async def _find(self, sandbox: Sandbox) -> Interface:
        """Where the Pod's addresses are. A link of another kernel, as Kata's, is not where its packets are.

        Where some of them are is better than nowhere: rules go there, and what they miss is the `shortfall`.
        """
        if any(fnmatchcase(sandbox.handler, pattern) for pattern in self._foreign_handlers):
            raise Unenforceable(sandbox, f"the runtime handler {sandbox.handler} keeps its traffic from this kernel")
        if not sandbox.addresses:
            raise NoAddress(sandbox)
        found = await asyncio.to_thread(place, sandbox.netns, sandbox.addresses)  # it may have any number of links
        absent = ", ".join(map(addresses.unpack, found.absent))
        self.shortfall = f"no interface in its network namespace carries {absent}" if absent else ""
        if found.dead_ends:
            self.shortfall = f"an address of the Pod is on {found.dead_ends[0]}, which no packet of others passes"
        if odd := [each for each in found.links if not _PLAIN.fullmatch(each)]:  # rules would name another one, or none
            raise Unenforceable(sandbox, f"no rule can name the link {odd[0]!a}")
        if not found.links:
            nowhere = "no interface in its network namespace carries an address of the Pod"
            raise Unenforceable(sandbox, self.shortfall if found.dead_ends else nowhere)
        return replace(self._nowhere, name=found.links[0], others=found.links[1:])
