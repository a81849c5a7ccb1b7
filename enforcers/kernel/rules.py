"""One namespace's rules, from the kernel itself: the tools hide a whole table where someone's native rule is in it."""

import errno
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from enforcers.core.difference import Jump
from enforcers.core.layout import FAMILIES, TABLE, Family
from enforcers.core.netlink import nftables
from enforcers.core.netlink.nftables import Generation
from enforcers.core.observation import ObservedTable, is_of_interest, observe_table
from enforcers.kernel.sockets import NetlinkRefused, NetlinkSocket

READINGS: Final = 5


class RulesRead(msgspec.Struct, frozen=True):
    """What was read, and at which point of the namespace's history."""

    generation: int
    """Number of the newest change when it was begun."""
    settled: bool
    """Nothing changed meanwhile, so it is exact; else something of one moment may stand beside something of another."""
    tables: Mapping[Family, ObservedTable]


def generation(netlink: NetlinkSocket) -> Generation:
    """The newest rule change in the socket's namespace: some 10 µs. Raises `NetlinkRefused`."""
    (answer,) = netlink.request(nftables.generation_request())
    return nftables.parse_generation(answer)


def read(netlink: NetlinkSocket) -> RulesRead:
    """Both families' rules of ours, read anew while others write, but not for ever. Raises `NetlinkRefused`.

    Blocks the caller: about a millisecond.
    """
    for _ in range(READINGS):
        before = generation(netlink).number
        tables = {family: _table(netlink, family) for family in FAMILIES}
        if settled := generation(netlink).number == before:
            break
    return RulesRead(before, settled, tables)


def remove(netlink: NetlinkSocket, jumps: Iterable[Jump]) -> None:
    """Take out *jumps* by their numbers; those that are gone are no error. Raises `NetlinkRefused`."""
    for each in jumps:
        try:
            netlink.request(nftables.delete_rule(each.family, TABLE, each.hook, each.handle))
        except NetlinkRefused as error:
            if error.number != errno.ENOENT:
                raise


def _table(netlink: NetlinkSocket, family: Family) -> ObservedTable:
    found = (nftables.parse_table(body) for _, body in _dump(netlink, nftables.GET_TABLE, family))
    own = next(((handle, flags) for name, handle, flags in found if name == TABLE), None)
    if own is None:
        return ObservedTable()
    chains = [nftables.parse_chain(body) for _, body in _dump(netlink, nftables.GET_CHAIN, family)]
    rules = [
        nftables.parse_rule(body)
        for _, body in _dump(netlink, nftables.GET_RULE, family, TABLE)
        if is_of_interest(nftables.chain_of(body))
    ]
    return observe_table(*own, [chain for table, chain in chains if table == TABLE], rules)


def _dump(netlink: NetlinkSocket, kind: int, family: Family, table: str = "") -> list[tuple[int, bytes]]:
    return netlink.dump(nftables.dump_request(kind, family, table))
