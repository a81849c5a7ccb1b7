"""Two ways to have ipsets that keep the same promises: by netlink, and by the tool.

By netlink a change costs some 10 µs on a socket that is kept, by the tool a process. The tool is what people check the
kernel with, so it is also what netlink is compared with.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import ClassVar, Final, Literal, Protocol

from enforcers.core.difference import Contents, Membership
from enforcers.core.layout import TEMPORARY, Family, set_name
from enforcers.core.netlink import ipset
from enforcers.core.observation import ObservedSets, parse_sets
from enforcers.core.set_rendering import TYPES, change, creation, kind, shape
from enforcers.kernel.namespaces import CommandFailed, run
from enforcers.kernel.sockets import NetlinkRefused, NetlinkSocket
from schemas.sets import SetKind

BackendName = Literal["netlink", "restore"]

ATTEMPTS: Final = 50
PAUSE_SECONDS: Final = 0.01
"""A set stays busy for some 10 ms after its last rule went (the kernel waits for a grace period)."""
LONG_BYTES: Final = 1 << 14
"""Of requests sent at once: the kernel takes a good part of a millisecond for them, so that others have their turn in
between."""
IN_USE: Final = "is in use"
NOT_THERE: Final = "does not exist"
"""The tool's words."""


class SetBackend(Protocol):
    """Everything done to one namespace's ipsets. What is not ours is never touched.

    All of it raises `NoNamespace`, and `CommandFailed` or `NetlinkRefused`; of what fails, part may be done.
    """

    async def create(self, wholes: Iterable[Contents]) -> None:
        """Sets that nothing names yet come to be; one that exists all the same is replaced."""
        ...

    async def replace(self, wholes: Iterable[Contents]) -> None:
        """Sets hold exactly this, in one step for whoever looks them up, whatever they held.

        One of another type or family than it should be goes first; where rules name it, it is refused by name.
        """
        ...

    async def change(self, memberships: Iterable[Membership]) -> None:
        """Sets that exist gain and lose members."""
        ...

    async def destroy(self, name: str) -> None:
        """An ipset goes, if there is one; waits where the kernel still holds it."""
        ...

    async def read(self, limits: Mapping[str, int] | None = None) -> ObservedSets:
        """What there is of ours. Whatever else there is, and however much of it, is not read.

        *limits*: by name, how many members a set may have to be read at all, by default any number; of others it is
        only said that they are there.
        """
        ...


Asked = tuple[bytes, str]
"""A request, and what it is to do, in words."""


class NetlinkSets:
    """*opened* gives the kept socket in the Pod's namespace."""

    _revisions: ClassVar[dict[tuple[SetKind, Family], int]] = {}
    """The kernel's newest of each type that was asked for: the same in every namespace."""

    def __init__(self, opened: Callable[[], NetlinkSocket]) -> None:
        self._opened = opened

    async def create(self, wholes: Iterable[Contents]) -> None:
        named = {set_name(whole.id, whole.family): whole for whole in wholes}
        creations = (self._creation(whole, name) for name, whole in named.items())
        refused = await self._ask_all(creations, tolerated=errno.EEXIST)
        there = {name: named.pop(name) for name, number in zip(list(named), refused, strict=True) if number}
        await self._ask_all(each for name, whole in named.items() for each in _filling(whole, name))
        await self.replace(there.values())

    async def replace(self, wholes: Iterable[Contents]) -> None:
        for whole in wholes:
            name, temporary = set_name(whole.id, whole.family), set_name(whole.id, whole.family) + TEMPORARY
            await self.destroy(temporary)
            await self._ask_all([self._creation(whole, temporary)])
            await self._ask_all(_filling(whole, temporary))
            try:
                self._ask(ipset.swap(temporary, name), f"swap {temporary} with {name}")
            except NetlinkRefused as error:
                if error.number not in (ipset.SECOND_NAME, ipset.TYPE_MISMATCH):
                    raise
                await self._make_way(whole, name)
                self._ask(ipset.rename(temporary, name), f"rename {temporary} to {name}")
            else:
                await self.destroy(temporary)

    async def change(self, memberships: Iterable[Membership]) -> None:
        await self._ask_all(
            (request, f"change {set_name(each.id, each.family)}")
            for each in memberships
            for members, adding in ((each.added, True), (each.removed, False))
            for request in ipset.changes(each.id, each.family, members, adding=adding)
        )

    async def destroy(self, name: str) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                self._ask(ipset.destroy(name), f"destroy {name}")
            except NetlinkRefused as error:
                if error.number == errno.ENOENT:
                    return
                if error.number != ipset.BUSY or not left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                await asyncio.sleep(0)  # there may be thousands, of whoever called them so
                return

    async def read(self, limits: Mapping[str, int] | None = None) -> ObservedSets:
        return ipset.read_listing(listed(self._opened(), limits))

    def _creation(self, whole: Contents, name: str) -> Asked:
        expected, revision = len(whole.members), self._revision(whole)
        return ipset.create(whole.id, whole.family, expected, revision, name=name), f"create {name}"

    def _revision(self, whole: Contents) -> int:
        which = kind(whole.id)
        if (which, whole.family) not in self._revisions:
            (answer,) = self._ask(ipset.revision_query(whole.id, whole.family), f"tell of {TYPES[which]}")
            self._revisions[which, whole.family] = ipset.revision(answer)
        return self._revisions[which, whole.family]

    async def _ask_all(self, asked: Iterable[Asked], *, tolerated: int = 0) -> list[int]:
        """The errno of each, 0: done; any but *tolerated* is raised. The kernel is entered once for many."""
        answers: list[int] = []
        for some in _datagrams(asked):
            if answers:
                await asyncio.sleep(0)
            numbers = self._opened().request_all([request for request, _ in some])
            for number, (_, doing) in zip(numbers, some, strict=True):
                if number not in (0, tolerated):
                    raise _refusal(number, doing)
            answers += numbers
        return answers

    async def _make_way(self, whole: Contents, name: str) -> None:
        try:
            await self.destroy(name)
        except NetlinkRefused as error:
            if error.number != ipset.BUSY:
                raise
            raise NetlinkRefused(error.number, _in_the_way(whole)) from error

    def _ask(self, request: bytes, doing: str) -> list[bytes]:
        try:
            return self._opened().request(request)
        except NetlinkRefused as error:
            raise _refusal(error.number, doing) from None


def _refusal(number: int, doing: str) -> NetlinkRefused:
    return NetlinkRefused(number, f"to {doing}: {ipset.REASONS.get(number) or os.strerror(number)}")


def _filling(whole: Contents, name: str) -> Iterator[Asked]:
    for request in ipset.changes(whole.id, whole.family, whole.members, adding=True, name=name):
        yield request, f"fill {name}"


def _datagrams(asked: Iterable[Asked]) -> Iterator[list[Asked]]:
    """*asked* in order, as many at a time as are no longer than `LONG_BYTES`, one at least."""
    some: list[Asked] = []
    size = 0
    for each in asked:
        if some and size + len(each[0]) > LONG_BYTES:
            yield some
            some, size = [], 0
        some.append(each)
        size += len(each[0])
    if some:
        yield some


def listed(netlink: NetlinkSocket, limits: Mapping[str, int] | None = None) -> Iterator[bytes]:
    """What is listed of our sets: of all the header, of those with no more members than their *limits* also these.

    Others' sets may hold any number of them, and so may one that is called like ours, or was. Raises `NetlinkRefused`.
    """
    headers = ipset.headers_of_ours((body for _, body in netlink.dump(ipset.headers_query())), limits)
    for name, (header, is_read) in headers.items():
        yield header
        if is_read:
            try:
                yield from (body for _, body in netlink.stream(ipset.listing_query(name)))
            except NetlinkRefused as error:
                if error.number != errno.ENOENT:  # it went meanwhile
                    raise


class RestoreSets:
    """``ipset`` in *namespace*."""

    def __init__(self, namespace: Path) -> None:
        self._namespace = namespace

    async def create(self, wholes: Iterable[Contents]) -> None:
        given = list(wholes)
        try:
            await self._restore([line for each in given for line in creation(each.id, each.family, each.members)])
        except CommandFailed as error:
            if not error.line.startswith("create "):
                raise
            await self.replace(given)

    async def replace(self, wholes: Iterable[Contents]) -> None:
        for whole in wholes:
            name, temporary = set_name(whole.id, whole.family), set_name(whole.id, whole.family) + TEMPORARY
            await self.destroy(temporary)
            await self._restore(creation(whole.id, whole.family, whole.members, name=temporary))
            try:
                await self._restore([f"swap {temporary} {name}", f"destroy {temporary}"])
            except CommandFailed as error:
                if not error.line.startswith("swap "):
                    raise
                await self._make_way(whole, name)
                await self._restore([f"rename {temporary} {name}"])

    async def change(self, memberships: Iterable[Membership]) -> None:
        lines = [line for each in memberships for line in change(each.id, each.family, each.added, each.removed)]
        await self._restore(lines, "-exist")

    async def destroy(self, name: str) -> None:
        for left in reversed(range(ATTEMPTS)):
            try:
                await run(self._namespace, ["ipset", "destroy", name])
            except CommandFailed as error:
                if NOT_THERE in error.message:
                    return
                if IN_USE not in error.message or not left:
                    raise
                await asyncio.sleep(PAUSE_SECONDS)
            else:
                return

    async def read(self, limits: Mapping[str, int] | None = None) -> ObservedSets:
        """All of them, whatever their *limits*: the tool cannot be told, and is refused if it has too much to say."""
        return await asyncio.to_thread(parse_sets, await run(self._namespace, ["ipset", "save"]))

    async def _restore(self, lines: list[str], *options: str) -> None:
        if lines:
            await run(self._namespace, ["ipset", "restore", *options], "\n".join([*lines, ""]))

    async def _make_way(self, whole: Contents, name: str) -> None:
        try:
            await self.destroy(name)
        except CommandFailed as error:
            if IN_USE not in error.message:
                raise
            raise CommandFailed(error.path, error.command, error.status, _in_the_way(whole)) from error


def _in_the_way(whole: Contents) -> str:
    name, wanted = set_name(whole.id, whole.family), shape(whole.id, whole.family, 0)
    return f"{name} should be {wanted.split(' hashsize')[0]}, is another's of that name, and is in use"
