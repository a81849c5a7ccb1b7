"""Sets in nameless namespaces, written by either backend, and what the tool says of them."""

import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import ip_network
from pathlib import Path
from typing import Final

from enforcers.core.difference import Contents, Membership
from enforcers.core.layout import FAMILIES, Family
from enforcers.kernel.scratch import scratch_namespace
from enforcers.kernel.sets.set_backends import BackendName, NetlinkSets, RestoreSets, SetBackend
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from schemas.addresses import SCTP, TCP, UDP
from schemas.sets import SetKind, block, endpoint, kind_of, set_id

Key = tuple[str, Family]

IDS: Final = {which: set_id(which, "scene") for which in SetKind}
KEYS: Final[tuple[Key, ...]] = tuple((identity, family) for identity in IDS.values() for family in FAMILIES)
ADDRESSES: Final = (IDS[SetKind.ADDRESSES], 4)
NAME: Final = f"ew-{IDS[SetKind.ADDRESSES]}-4"


class Scene:
    """One namespace, and the *sets* in it by one backend."""

    def __init__(self, path: Path, sets: SetBackend) -> None:
        self.path = path
        self.sets = sets

    def command(self, *words: str, text: str = "") -> str:
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", *words], input=text, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{words}: {done.stderr}"
        return done.stdout

    def saved(self) -> list[str]:
        """What ``ipset save`` prints, but for what differs between equal sets."""
        lines = self.command("ipset", "save").splitlines()
        return sorted(line.split(" initval ")[0].partition(" hashsize ")[0] + _after_hash_size(line) for line in lines)

    async def create(self, key: Key, *members: bytes) -> None:
        await self.sets.create([Contents(*key, members)])

    async def replace(self, key: Key, *members: bytes) -> None:
        await self.sets.replace([Contents(*key, members)])

    async def change(self, key: Key, *, added: Sequence[bytes] = (), removed: Sequence[bytes] = ()) -> None:
        await self.sets.change([Membership(*key, tuple(added), tuple(removed))])

    async def members(self, key: Key) -> frozenset[bytes] | None:
        """Raises `KeyError` where there is no such set."""
        return (await self.sets.read()).members[key]


def _after_hash_size(line: str) -> str:
    _, found, rest = line.split(" initval ", maxsplit=1)[0].partition(" hashsize ")
    return f" {rest.partition(' ')[2]}" if found else ""


@contextmanager
def scene(backend: BackendName) -> Iterator[Scene]:
    with scratch_namespace() as path, backend_of(backend, path) as sets:
        yield Scene(path, sets)


@contextmanager
def backend_of(name: BackendName, path: Path) -> Iterator[SetBackend]:
    """The socket opens when it is first used."""
    with ExitStack() as stack:
        yield NetlinkSets(_kept(path, stack)) if name == "netlink" else RestoreSets(path)


def _kept(path: Path, stack: ExitStack) -> Callable[[], NetlinkSocket]:
    opened: list[NetlinkSocket] = []

    def kept() -> NetlinkSocket:
        if not opened:
            opened.append(stack.enter_context(NetlinkSocket(path, NETLINK_NETFILTER)))
        return opened[0]

    return kept


def host(number: int, family: Family = 4) -> bytes:
    return (10 << 24 | number).to_bytes(4, "big") if family == 4 else b"\xfd" + number.to_bytes(15, "big")


def hosts(count: int, family: Family = 4) -> tuple[bytes, ...]:
    return tuple(host(number, family) for number in range(1, count + 1))


def many(key: Key, count: int) -> tuple[bytes, ...]:
    """*count* different members of the set's kind and family."""
    which, found = kind_of(key[0]), hosts(count, key[1])
    if which is SetKind.TUPLES:
        return tuple(endpoint(each, (TCP, UDP, SCTP)[each[-1] % 3], each[-1] << 8 | 1) for each in found)
    if which is SetKind.BLOCKS:
        return tuple(each + bytes((8 * len(each), each[-1] % 2)) for each in found)
    return found


def blocks_of_everything() -> dict[Key, tuple[bytes, ...]]:
    """Everything but a part of it, as the kernel has it: in halves."""
    identity = IDS[SetKind.BLOCKS]
    halves = {4: ("0.0.0.0/1", "128.0.0.0/1"), 6: ("::/1", "8000::/1")}
    exceptions = {4: "10.0.0.0/8", 6: "fd00::/8"}
    return {
        (identity, family): (
            *(block(ip_network(half)) for half in halves[family]),
            block(ip_network(exceptions[family]), exception=True),
        )
        for family in FAMILIES
    }
