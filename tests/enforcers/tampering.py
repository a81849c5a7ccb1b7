"""What someone else may do to our rules in a Pod's namespace, with each tool."""

from collections.abc import Callable
from typing import Final

import msgspec

from schemas.status import DriftKind
from tests.enforcers.pod_world import World

FAMILIES: Final = {4: ("ip", "iptables-nft"), 6: ("ip6", "ip6tables-nft")}


class Act(msgspec.Struct, frozen=True):
    name: str
    kind: DriftKind
    tool: str
    """What the kernel calls whoever does it; empty: iptables."""
    do: Callable[[World, int], None]

    def process(self, family: int) -> str:
        return self.tool or FAMILIES[family][1]


def iptables(world: World, family: int, *words: str) -> None:
    world.command("web", FAMILIES[family][1], "-t", "mangle", *words)


def nft(world: World, family: int, text: str) -> None:
    world.command("web", "nft", text.replace("TABLE", f"{FAMILIES[family][0]} mangle"))


def handle_of(world: World, family: int, chain: str, words: str) -> str:
    """The number of the rule in *chain* that nft prints with *words*."""
    listing = world.command("web", "nft", "-a", "list", "chain", FAMILIES[family][0], "mangle", chain)
    return next(line.split("# handle ")[1] for line in listing.splitlines() if words in line)


def _by_iptables(*lines: str) -> Callable[[World, int], None]:
    def do(world: World, family: int) -> None:
        for line in lines:
            iptables(world, family, *line.split())

    return do


def _by_nft(text: str) -> Callable[[World, int], None]:
    return lambda world, family: nft(world, family, text)


def _replace(world: World, family: int) -> None:
    """The rule keeps its number; what it does, and its comment, which is a part of that, are others."""
    nft(world, family, f"replace rule TABLE EW-IN-NEW handle {handle_of(world, family, 'EW-IN-NEW', 'drop')} accept")


ACTS: Final = [
    Act("flush a chain", DriftKind.CHAIN, "", _by_iptables("-F EW-IN-NEW")),
    Act("delete a rule", DriftKind.CHAIN, "", _by_iptables("-D EW-IN-NEW 1")),
    Act("delete our jump", DriftKind.JUMP, "", _by_iptables("-D PREROUTING 1")),
    Act("flush the hook", DriftKind.JUMP, "", _by_iptables("-F PREROUTING")),
    Act("insert an accept before our jump", DriftKind.JUMP, "", _by_iptables("-I PREROUTING -p tcp -j ACCEPT")),
    Act("insert a return into our chain", DriftKind.CHAIN, "", _by_iptables("-I EW-IN-NEW -j RETURN")),
    Act("delete all chains", DriftKind.CHAIN, "", _by_iptables("-F", "-X")),
    Act("insert an accept into our chain", DriftKind.CHAIN, "nft", _by_nft("insert rule TABLE EW-IN-NEW accept")),
    Act("replace a rule", DriftKind.CHAIN, "nft", _replace),
    Act("rename a chain", DriftKind.CHAIN, "nft", _by_nft("rename chain TABLE EW-IN-NEW elsewhere")),
    Act("destroy the table", DriftKind.TABLE, "nft", _by_nft("delete table TABLE")),
    Act("flush everything", DriftKind.TABLE, "nft", _by_nft("flush ruleset")),
]
