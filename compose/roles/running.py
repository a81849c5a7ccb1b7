"""Running a service as a process: what somebody has to mend is one message, a bug is a traceback."""

from collections.abc import Callable, Coroutine
from typing import Any, Final

import click

from producers.errors import ProducerError
from streams.errors import StreamError
from streams.lifecycle import leaves

MENDABLE: Final = (StreamError, ProducerError, OSError)
"""Errors whose message says what, where and why."""


def run_service(runner: Callable[[Coroutine[Any, Any, None]], None], work: Coroutine[Any, Any, None]) -> None:
    """Run *work* by *runner* (`asyncio.run`, `uvloop.run`). Raises `click.ClickException` for what can be mended."""
    try:
        runner(work)
    except Exception as error:  # the very top of a process; what is not for a person to mend goes on as the bug it is
        causes = leaves(error)
        if not all(isinstance(cause, MENDABLE) for cause in causes):
            raise
        raise click.ClickException("; ".join(dict.fromkeys(map(str, causes)))) from None
