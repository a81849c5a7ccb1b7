"""What a node's enforcer answers to a Pod that waits at the gate (`eastwest gate`): JSON over HTTP.

``GET /gate?wait=<seconds>`` on the enforcer's own port; who asks is told by the source address, so a Pod hears of
nobody but itself. The answer comes as soon as the gate is open or something else is missing than at first, and at the
latest after so many seconds.
"""

from typing import Final

import msgspec

GATE_PATH: Final = "/gate"
GATE_PORT: Final = 9462
LONGEST_WAIT_SECONDS: Final = 5.0
"""For one answer; who wants to wait longer asks again."""


class GateAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Whether a Pod may start."""

    open: bool
    pod: str = ""
    """``<namespace>/<name>``; empty for the node itself and its host network, and for a stranger."""
    holds: str = ""
    """What the Pod's own node made of it, where the gate is open: ``enforced``, ``no policy``, ``idle`` …"""
    missing: tuple[str, ...] = ()
    """What it waits for, as a person reads it. Empty iff *open*."""


encode_gate_answer = msgspec.json.Encoder().encode
decode_gate_answer = msgspec.json.Decoder(GateAnswer).decode
