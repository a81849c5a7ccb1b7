"""What our rules have counted, read from what ``iptables-nft-save --counters`` prints."""

import re
from collections.abc import Iterator
from typing import Final

from enforcers.core import layout
from enforcers.core.layout import Family
from enforcers.core.rendering import COMMENT
from schemas.local import RuleCounter
from schemas.programs import Program

_LINE: Final = re.compile(
    rf'^\[(\d+):(\d+)\] -A ({layout.CHAIN_NAME.pattern}) .*--comment "?{re.escape(COMMENT)}[0-9a-f]+:([\w-]*)'
)


def parse_counters(saved: str, family: Family, program: Program | None) -> Iterator[RuleCounter]:
    """The counter of each rule of ours, in the order of evaluation, with the policies behind it as *program* tells."""
    for line in saved.splitlines():
        if found := _LINE.match(line):
            packets, size, chain, rule = found.groups()
            yield RuleCounter(
                family=family,
                chain=chain,
                rule=rule,
                policies=program.policies_of(rule) if program is not None else (),
                packets=int(packets),
                bytes=int(size),
            )
