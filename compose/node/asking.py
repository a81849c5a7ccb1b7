"""Asking the enforcer of this node, over its unix socket."""

import asyncio
import getpass
import os
from typing import Any, Final, TypeVar

import aiohttp
import click
import msgspec

from schemas.local import Trouble

T = TypeVar("T")

ANSWER_SECONDS: Final = 120.0
"""To compare every Pod of a full node takes a while."""


def ask(socket: str, method: str, path: str, answer: type[T], *, body: Any = None, **query: str) -> T:
    """The answer to one request; empty parts of *query* are left out.

    Raises `click.ClickException`: no enforcer there, no right to ask it, or what it says is wrong.
    """
    data = msgspec.json.encode(body) if body is not None else None
    try:
        status, given = asyncio.run(_exchange(socket, method, path, data, query))
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, PermissionError):
            raise click.ClickException(f"{socket} is for root of this machine only: use sudo") from None
        raise click.ClickException(_nobody(socket, os.strerror(error.os_error.errno or 0))) from None
    except aiohttp.ClientError as error:
        raise click.ClickException(_nobody(socket, str(error))) from None
    except TimeoutError:
        raise click.ClickException(f"the enforcer at {socket} did not answer within {ANSWER_SECONDS:g} s") from None
    if status != 200:
        try:
            raise click.ClickException(msgspec.json.decode(given, type=Trouble).error)
        except msgspec.MsgspecError:
            raise click.ClickException(f"the enforcer at {socket} answered {status}") from None
    return msgspec.json.decode(given, type=answer)


async def _exchange(
    socket: str, method: str, path: str, data: bytes | None, query: dict[str, str]
) -> tuple[int, bytes]:
    timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
    params = {name: value for name, value in query.items() if value}
    async with (
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket), timeout=timeout) as session,
        session.request(method, f"http://enforcer{path}", params=params, data=data) as response,
    ):
        return response.status, await response.read()


def _nobody(socket: str, reason: str) -> str:
    return (
        f"no enforcer answers at {socket}: {reason}. Does one run here (`eastwest enforcer`, `eastwest up`)? "
        "In a cluster ask in its Pod: kubectl -n eastwest exec POD -- eastwest node …; name another socket by --socket"
    )


def whoever_asks() -> str:
    """The person behind sudo, where there is one."""
    return os.environ.get("SUDO_USER") or getpass.getuser()
