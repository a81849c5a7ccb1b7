"""Running a command's coroutine, and telling a person what went wrong without a traceback."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Final, TypeVar

import click

from streams.errors import StreamError
from streams.telemetry import set_up_logging

T = TypeVar("T")

INTERRUPTED: Final = 130
"""As a shell says of what Ctrl-C ended: nobody must take it for an answer, or for what was waited for."""


def run(work: Coroutine[Any, Any, T]) -> T | None:
    """Run *work* to its end, or until Ctrl-C, which is how one stops to follow: then ``None``.

    Raises `click.ClickException`.
    """
    set_up_logging(level="error")  # to standard error, and only what the command cannot say itself
    try:
        return asyncio.run(work)
    except StreamError as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        click.echo("", err=True)
        return None
