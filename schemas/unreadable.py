"""What the decoders of this room raise for bytes that somebody else wrote and that cannot be read."""

from typing import Final

import msgspec

UNREADABLE: Final = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""Not the right shape or no JSON or msgpack at all; text that is not UTF-8; nested more deeply than the interpreter's
stack is allowed to be, also within a field that nobody reads. Catch all three or a single value stops its neighbours.
"""
