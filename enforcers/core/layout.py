"""The names of everything that is ours in a Pod's network namespace. What has another name is never touched."""

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
SET_PREFIX: Final = "ew-"
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


def parse_set_name(name: str) -> tuple[str, Family] | None:
    """Id and family of one of our ipsets; ``None`` for another's, or for a temporary one."""
    identity, _, family = name.removeprefix(SET_PREFIX).rpartition("-")
    if not name.startswith(SET_PREFIX) or not identity or family not in ("4", "6"):
        return None
    return identity, 4 if family == "4" else 6
