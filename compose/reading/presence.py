"""Whether there is anything to read: a person who mistyped a cluster's name should not wait for it."""

import click

from streams.errors import Refused
from streams.nats.nats_bus import STREAM_NOT_FOUND, NatsBus


async def require_stream(bus: NatsBus, stream: str, what: str) -> None:
    """Raise `click.ClickException` where nobody has made *stream*, instead of waiting for who might."""
    try:
        await bus.call(f"STREAM.INFO.{stream}")
    except Refused as refusal:
        if refusal.error_code != STREAM_NOT_FOUND:
            raise
        raise click.ClickException(f"{bus.where} has no {what}; choose another by --cluster") from None
