"""Whether ipsets can be had by netlink on this kernel, shown by trying: what is written is what is read, both ways.

python -m enforcers.kernel.sets.set_trial        says what is wrong; exit code 1
"""

import asyncio
import shutil
import struct
import sys
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Final, Literal

from enforcers.core.difference import Contents, Membership
from enforcers.core.layout import Family, set_name
from enforcers.core.observation import ObservedSets
from enforcers.core.set_rendering import of_family
from enforcers.kernel.namespaces import CommandFailed, NoNamespace
from enforcers.kernel.scratch import scratch_namespace
from enforcers.kernel.sets.set_backends import BackendName, NetlinkSets, RestoreSets, SetBackend
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket
from schemas import addresses, sets
from schemas.addresses import SCTP, TCP, UDP
from schemas.sets import SetKind, set_id

Setting = Literal["auto", "netlink", "restore"]

_HOSTS: Final = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2", "fd00::3")
_TRIED: Final[dict[SetKind, Sequence[bytes]]] = {
    SetKind.ADDRESSES: [addresses.pack(host) for host in _HOSTS],
    SetKind.TUPLES: [
        sets.endpoint(addresses.pack(host), protocol, 8443) for host in _HOSTS for protocol in (TCP, UDP, SCTP)
    ],
    SetKind.BLOCKS: [
        sets.block(ip_network(network), exception=exception)
        for network, exception in (
            *(("0.0.0.0/1", False), ("128.0.0.0/1", False), ("10.0.0.0/8", True), ("10.0.0.1/32", False)),
            *(("::/1", False), ("8000::/1", False), ("fd00::/8", True), ("fd00::1/128", False)),
        )
    ],
}
_MANY: Final = set_id(SetKind.ADDRESSES, "many")
_MANY_MEMBERS: Final = tuple(struct.pack(">I", (10 << 24) + number) for number in range(1, 4200))
"""More than one message holds."""
_UNREADABLE: Final = (ValueError, LookupError, struct.error)
"""What an answer in other words than expected leads to."""


async def choose_backend(setting: Setting) -> tuple[BackendName, str]:
    """The backend that *setting* asks for, and why it is not the quick one where that was not asked for."""
    if setting != "auto":
        return setting, ""
    trouble = await trial()
    return ("restore", trouble) if trouble else ("netlink", "")


async def trial() -> str:
    """What is wrong with ipsets by netlink here; empty: nothing. Leaves nothing behind."""
    try:
        with scratch_namespace() as path, NetlinkSocket(path, NETLINK_NETFILTER) as netlink:
            readers: dict[str, SetBackend] = {"netlink": NetlinkSets(lambda: netlink)}
            if shutil.which("ipset"):  # if not, netlink's word is all there is; the other way there is no way at all
                readers["ipset save"] = RestoreSets(path)
            return await _try(readers["netlink"], readers)
    except (NetlinkRefused, CommandFailed, NoNamespace, OSError, *_UNREADABLE) as error:
        return f"{type(error).__name__}: {error}"


async def _try(tried: SetBackend, readers: dict[str, SetBackend]) -> str:
    keys: list[tuple[str, Family]] = [(set_id(which, "tried"), family) for which in _TRIED for family in (4, 6)]
    wholes = [Contents(*key, tuple(of_family(_TRIED[sets.kind_of(key[0])], key[1]))) for key in keys]
    halves = [Contents(each.id, each.family, each.members[::2]) for each in wholes]
    expected = {(each.id, each.family): frozenset(each.members) for each in wholes}

    await tried.create([*halves, Contents(_MANY, 4, ())])
    await tried.change([Membership(_MANY, 4, added=_MANY_MEMBERS)])
    await tried.change([Membership(*key, added=tuple(expected[key])) for key in keys])
    if trouble := await _differs(readers, expected | {(_MANY, 4): frozenset(_MANY_MEMBERS)}):
        return f"after adding, {trouble}"
    await tried.change([Membership(_MANY, 4, removed=_MANY_MEMBERS)])
    await tried.change([Membership(each.id, each.family, removed=each.members[::2]) for each in wholes])
    await tried.replace(halves[::2])
    expected = {(each.id, each.family): frozenset(each.members[1::2]) for each in wholes}
    expected |= {(each.id, each.family): frozenset(each.members) for each in halves[::2]}
    if trouble := await _differs(readers, expected | {(_MANY, 4): frozenset()}):
        return f"after removing and replacing, {trouble}"
    for key in (*keys, (_MANY, 4)):
        await tried.destroy(set_name(*key))
    return await _differs(readers, {})


async def _differs(readers: dict[str, SetBackend], expected: dict[tuple[str, Family], frozenset[bytes]]) -> str:
    for name, reader in readers.items():
        found = await reader.read()
        if found != ObservedSets(expected):
            keys = sorted(expected.keys() | found.members.keys())
            wrong = [set_name(*key) for key in keys if expected.get(key) != found.members.get(key)]
            return f"{name} tells of something else in {', '.join(wrong or found.leftovers)}"
    return ""


if __name__ == "__main__":
    sys.exit(asyncio.run(trial()) or 0)
