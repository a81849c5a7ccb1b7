"""Asking the enforcer of this node, over its unix socket."""

import asyncio
import getpass
import os
import sys
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final, TypeVar

import aiohttp
import click
import msgspec

from compose.lab import state
from compose.reading.running import INTERRUPTED
from schemas.local import COUNT, Trouble

T = TypeVar("T")

ANSWER_SECONDS: Final = 120.0
"""Of silence: to read every Pod of a full node takes a while."""


def ask(socket: str, method: str, path: str, answer: type[T], *, body: Any = None, **query: str) -> T:
    """The answer to one request; empty parts of *query* are left out.

    Raises `click.ClickException`: no enforcer there, no right to ask it, or what it says is wrong.
    """

    async def whole() -> T:
        async with _answered(socket, method, path, query, body) as response:
            return msgspec.json.decode(await response.read(), type=answer)

    return _run(socket, whole())


def ask_each(socket: str, path: str, answer: type[T], progress: Callable[[int, int], None], **query: str) -> list[T]:
    """The answers that come as JSON lines, one by one; *progress* hears how many there are and will be.

    Raises as `ask` does.
    """

    async def each() -> list[T]:
        found: list[T] = []
        async with _answered(socket, "GET", path, query) as response:
            expected = int(response.headers[COUNT])
            async for line in response.content:
                found.append(msgspec.json.decode(line, type=answer))
                progress(len(found), expected)
        if len(found) < expected:
            raise aiohttp.ClientPayloadError(f"it ended after {len(found)} of {expected} answers")
        return found

    return _run(socket, each())


def _run(socket: str, work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, PermissionError):
            raise click.ClickException(f"{socket} is for root of this machine only: use sudo") from None
        raise click.ClickException(_nobody(socket, os.strerror(error.os_error.errno or 0))) from None
    except aiohttp.ClientError as error:
        raise click.ClickException(_nobody(socket, str(error))) from None
    except TimeoutError:
        raise click.ClickException(f"the enforcer at {socket} did not answer within {ANSWER_SECONDS:g} s") from None
    except KeyboardInterrupt:
        click.echo("", err=True)
        sys.exit(INTERRUPTED)


@asynccontextmanager
async def _answered(
    socket: str, method: str, path: str, query: dict[str, str], body: Any = None
) -> AsyncGenerator[aiohttp.ClientResponse]:
    data = msgspec.json.encode(body) if body is not None else None
    params = {name: value for name, value in query.items() if value}
    timeout = aiohttp.ClientTimeout(total=None, sock_read=ANSWER_SECONDS)
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), timeout=timeout) as session,
        session.request(method, f"http://enforcer{path}", params=params, data=data) as response,
    ):
        if response.status != 200:
            try:
                reason = msgspec.json.decode(await response.read(), type=Trouble).error
            except msgspec.MsgspecError:
                reason = f"the enforcer at {socket} answered {response.status}"
            raise click.ClickException(reason)
        yield response


def _nobody(socket: str, reason: str) -> str:
    said = f"no enforcer answers at {socket}: {reason}"
    if labs := sorted(map(str, Path(state.run_directory()).glob("lab-*/*.sock"))):
        return "\n".join([f"{said}. Labs run here, an enforcer per node:", *(f"  --socket {each}" for each in labs)])
    return (
        f"{said}. Does one run here (`eastwest enforcer`, `eastwest up`)?\n"
        "In a cluster ask in its Pod: kubectl -n eastwest exec POD -- eastwest node …; name another socket by --socket"
    )


def whoever_asks() -> str:
    """The person behind sudo, where there is one."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
