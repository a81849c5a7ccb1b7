"""The names of everything that is ours in a Pod's network namespace. What has another name is never touched.

A Pod may give its own chains and sets any bytes for a name, and lines are made of ours for tools that root runs: so
only what is written like ours is ours.
"""

import re
from typing import Final, Literal

import msgspec

Family = Literal[4, 6]
FAMILIES: Final[tuple[Family, ...]] = (4, 6)

TABLE: Final = "mangle"
"""Both its hooks see packets as on the wire: before a sidecar's redirect inbound, after it outbound."""

IN: Final = "EW-IN"
IN_LINK: Final = "EW-IN-LINK"
IN_NEW: Final = "EW-IN-NEW"
IN_ECHO: Final = "EW-IN-ECHO"
OUT: Final = "EW-OUT"
OUT_LINK: Final = "EW-OUT-LINK"
OUT_NEW: Final = "EW-OUT-NEW"
OUT_ECHO: Final = "EW-OUT-ECHO"
VIRTUAL: Final = "EW-VIP"
OK: Final = "EW-OK"

HOOKS: Final = {"PREROUTING": IN, "POSTROUTING": OUT}
"""Built-in chain → ours, which stands first in it."""

CHAIN_PREFIX: Final = "EW-"
CHAIN_NAME: Final = re.compile(rf"{CHAIN_PREFIX}[A-Z0-9-]{{1,25}}")
"""Earlier and later versions have other chains than those above."""
SET_PREFIX: Final = "ew-"
SET_NAME: Final = re.compile(rf"{SET_PREFIX}([a-z0-9]{{1,22}})-([46])(x?)")
"""Id, family, and `TEMPORARY` where it is that."""
NODE_SET: Final = "node"
"""Id of the set of the own node's addresses. Not a set of the PCE's: every node fills its own."""
TEMPORARY: Final = "x"

DEFAULT_MARK: Final = 0x10000000
"""One bit of the connection mark; service meshes use low bits."""


class Interface(msgspec.Struct, frozen=True, gc=False):
    """What is fixed about one Pod's namespace while it lives."""

    name: str
    """The link that carries the Pod's addresses."""
    mark: int = DEFAULT_MARK
    others: tuple[str, ...] = ()
    """More links, where the addresses are not all on one."""
    families: tuple[Family, ...] = FAMILIES
    """Those that the kernel has."""


def set_name(identity: str, family: Family) -> str:
    """The ipset that holds one family of the set *identity*; at most 31 characters, its temporary included."""
    return f"{SET_PREFIX}{identity}-{family}"


def is_chain_name(name: str) -> bool:
    """Whether a chain of this name is ours."""
    return CHAIN_NAME.fullmatch(name) is not None


def is_set_name(name: str) -> bool:
    """Whether an ipset of this name is ours, a temporary one included."""
    return SET_NAME.fullmatch(name) is not None


def parse_set_name(name: str) -> tuple[str, Family] | None:
    """Id and family of one of our ipsets; ``None`` for another's, or for a temporary one."""
    found = SET_NAME.fullmatch(name)
    if found is None or found[3]:
        return None
    return found[1], 4 if found[2] == "4" else 6
