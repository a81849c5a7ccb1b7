"""Which address families this kernel can have rules for, shown by trying."""

import errno
import os
from collections.abc import Sequence
from typing import Final

from enforcers.core.layout import FAMILIES, TABLE, Family
from enforcers.kernel.namespaces import CommandFailed
from enforcers.kernel.rules.chain_backends import PREFIXES, RestoreChains
from enforcers.kernel.scratch import scratch_namespace

TRIED: Final = f"*{TABLE}\n:EW-IN - [0:0]\nCOMMIT\n"
ABSENT: Final = tuple(map(os.strerror, (errno.EOPNOTSUPP, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)))
"""In a tool's words: the kernel knows no such family. Whatever else goes wrong is trouble, and the family is there."""


async def families() -> tuple[Sequence[Family], str]:
    """The families that the kernel has, and what it says of the other; where it has neither, both: that is trouble.

    Raises `CommandFailed` or OSError where it cannot be tried.
    """
    absent: dict[Family, str] = {}
    with scratch_namespace() as path:
        for family in FAMILIES:
            try:
                await RestoreChains(path).write({family: TRIED})
            except CommandFailed as error:
                if not any(text in error.message for text in ABSENT):
                    raise
                absent[family] = f"{PREFIXES[family]} says {error.message!r}"
    if len(absent) == len(FAMILIES):
        return FAMILIES, ""
    return tuple(family for family in FAMILIES if family not in absent), "; ".join(absent.values())
