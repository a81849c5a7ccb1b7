"""One namespace's rules, from the kernel itself: the tools hide a whole table where someone's native rule is in it."""

import errno
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from enforcers.core.difference import Jump
from enforcers.core.layout import FAMILIES, TABLE, Family
from enforcers.core.netlink import nftables
from enforcers.core.netlink.nftables import Generation, NativeChain, NativeRule
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
        tables = _tables(netlink)
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


def _tables(netlink: NetlinkSocket) -> dict[Family, ObservedTable]:
    heads: dict[Family, tuple[int, int]] = {}
    for body in _dump(netlink, nftables.dump_request(nftables.GET_TABLE)):
        name, handle, flags = nftables.parse_table(body)
        if name == TABLE and (family := nftables.family_of(body)):
            heads[family] = handle, flags
    chains: dict[Family, list[NativeChain]] = {family: [] for family in FAMILIES}
    for body in _dump(netlink, nftables.dump_request(nftables.GET_CHAIN)) if heads else ():
        table, chain = nftables.parse_chain(body)
        if table == TABLE and (family := nftables.family_of(body)):
            chains[family].append(chain)
    return dict.fromkeys(FAMILIES, ObservedTable()) | {
        family: observe_table(*head, chains[family], _rules(netlink, family, chains[family]))
        for family, head in heads.items()
    }


def _rules(netlink: NetlinkSocket, family: Family, chains: Iterable[NativeChain]) -> list[NativeRule]:
    names = {chain.name.encode() + b"\0": chain.name for chain in chains if is_of_interest(chain.name)}
    listed = _dump(netlink, nftables.rules_request(family, TABLE))
    return [rule for body in listed if (rule := nftables.parse_rule(body, names))]


def _dump(netlink: NetlinkSocket, request: bytes) -> list[bytes]:
    return [body for _, body in netlink.dump(request)]
