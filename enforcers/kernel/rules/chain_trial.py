"""Whether chains can be written by netlink on this kernel, shown by trying: the tool lists the same as of its own.

python -m enforcers.kernel.rules.chain_trial      says what is wrong; exit code 1
"""

import asyncio
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Literal

from enforcers.core.difference import Desired, Patch, advance, compare, desire, realized
from enforcers.core.layout import FAMILIES, NODE_SET, TABLE, Family, Interface
from enforcers.core.netlink import transaction
from enforcers.core.netlink.rules import Unencodable
from enforcers.core.observation import NOTHING
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel.namespaces import CommandFailed, NoNamespace, run
from enforcers.kernel.rules.chain_backends import PREFIXES, ChainBackendName, RestoreChains, commit
from enforcers.kernel.scratch import scratch_namespace
from enforcers.kernel.sets.set_backends import NetlinkSets
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkRefused, NetlinkSocket
from schemas.addresses import SCTP, TCP, UDP
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.sets import SetKind, set_id

Setting = Literal["auto", "netlink", "restore"]

_ADDRESSES, _BLOCKS, _NAMED, _VIRTUAL = (
    set_id(kind, name)
    for kind, name in (
        (SetKind.ADDRESSES, "addresses"),
        (SetKind.BLOCKS, "blocks"),
        (SetKind.TUPLES, "named ports"),
        (SetKind.TUPLES, "virtual"),
    )
)
_PORTS: Final = (
    *(PortRange(TCP, 80, 80), PortRange(UDP, 100, 200), PortRange(SCTP, 7, 7), PortRange(SCTP, 70, 79)),
    *(PortRange(TCP, 90, 99), PortRange(TCP, 443, 443)),
)


def _program(ingress: Direction | None, egress: Direction | None) -> Program:
    return Program(uid="trial", namespace="trial", name="trial", node="trial", ingress=ingress, egress=egress)


def _isolated(*rules: tuple[tuple[str, ...] | None, tuple[PortRange, ...] | None], virtual: bool = False) -> Direction:
    return Direction(
        isolating=("trial",),
        rules=tuple(
            Rule(id=f"rule{number}", policy="trial", sets=sets, ports=ports)
            for number, (sets, ports) in enumerate(rules)
        ),
        virtual=Virtual(addresses=_ADDRESSES, ports=_NAMED, allowed=(_VIRTUAL,)) if virtual else None,
    )


_TRIED: Final = (
    _program(
        _isolated(((_ADDRESSES, _BLOCKS), _PORTS), (None, (PortRange(TCP, 0, 65535), PortRange(SCTP, 0, 65535)))),
        _isolated(((_NAMED,), None), (None, (PortRange(UDP, 53, 53),)), virtual=True),
    ),
    _program(_isolated(((_BLOCKS,), _PORTS[:1])), None),
    _program(None, _isolated()),
)
"""One after the other: chains come, change and go."""


async def choose_chain_backend(setting: Setting) -> tuple[ChainBackendName, str]:
    """The backend that *setting* asks for, and why it is not netlink where the best one was asked for."""
    if setting != "auto":
        return setting, ""
    trouble = await trial()
    return ("restore", trouble) if trouble else ("netlink", "")


async def trial() -> str:
    """What is wrong with chains by netlink here; empty: nothing. Leaves nothing behind."""
    try:
        with ExitStack() as stack:
            by_tool, by_netlink = (stack.enter_context(scratch_namespace()) for _ in range(2))
            return await _try(by_tool, by_netlink)
    except (CommandFailed, NetlinkRefused, NoNamespace, OSError, Unencodable, LookupError) as error:
        return f"{type(error).__name__}: {error}"


async def _try(by_tool: Path, by_netlink: Path) -> str:
    tracked = {identity: TrackedSet() for identity in (NODE_SET, _ADDRESSES, _BLOCKS, _NAMED, _VIRTUAL)}
    before: Desired | None = None
    with NetlinkSocket(by_tool, NETLINK_NETFILTER) as one, NetlinkSocket(by_netlink, NETLINK_NETFILTER) as other:
        sets = (NetlinkSets(lambda: one), NetlinkSets(lambda: other))
        for program in _TRIED:
            wanted = desire(program, Interface("eth0"))
            patch = _patch(before, wanted, tracked)
            await sets[0].create(patch.create)
            await sets[1].create(reversed(patch.create))  # so that their numbers differ
            await RestoreChains(by_tool).write(patch.tables)
            commit(other, transaction.steps(patch.tables))
            for family in FAMILIES:
                if trouble := _differ(*[await _listed(path, family) for path in (by_tool, by_netlink)]):
                    return f"{PREFIXES[family]}-save differs in {trouble}"
            for each in sets:
                for name in patch.destroy:
                    await each.destroy(name)
            before = wanted
    return ""


def _patch(before: Desired | None, wanted: Desired, tracked: Mapping[str, TrackedSet]) -> Patch:
    if before is None:
        return compare(wanted, NOTHING, tracked)
    return advance(wanted, realized(before, tracked), tracked)


async def _listed(path: Path, family: Family) -> list[str]:
    saved = await run(path, [f"{PREFIXES[family]}-save", "-t", TABLE])
    return [line for line in saved.splitlines() if not line.startswith("#")]


def _differ(one: list[str], other: list[str]) -> str:
    """The first line that only one of them has; empty: they are alike."""
    if one == other:
        return ""
    return next((repr(line) for line in sorted({*one} ^ {*other})), "the order")


if __name__ == "__main__":
    sys.exit(asyncio.run(trial()) or 0)
