"""One line of the doctor's answer."""

import msgspec


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the answer."""

    what: str
    ok: bool
    needed: bool = True
    """Without it this machine cannot enforce."""
    detail: str = ""
    remedy: str = ""
    """What to do, where it is not ok."""
