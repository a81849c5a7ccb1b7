"""The gate's own port: HTTP for the Pods of this node, who are not trusted with anything but their own address.

A Pod may open connections as it likes and say nothing on them, so the enforcer must not run out of files by that: each
address has few, all together have a limit, and none lasts. A Pod whose connection is refused asks again.
"""

import asyncio
import socket
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web

from enforcers.answering.gate import Gate, Stranger
from enforcers.kernel.namespaces import inside
from schemas import addresses
from schemas.gate import GATE_PATH, LONGEST_WAIT_SECONDS, GateAnswer, encode_gate_answer
from streams.backoff import Backoff
from streams.settings import host_and_port
from streams.telemetry import Health

PER_ADDRESS: Final = 4
CONNECTIONS: Final = 1024
LIFE_SECONDS: Final = 2 * LONGEST_WAIT_SECONDS
"""Of a connection: for one answer, and a slow client."""
BACKLOG: Final = 128

_log = structlog.get_logger("enforcers.answering.gate")


async def serve_gate(gate: Gate, listen: str, netns: Path, health: Health) -> None:
    """Answer on *listen* (``host:port``) in the namespace *netns* of the node until cancelled; empty: at once done.

    An address that is taken is tried again, as while the enforcer of another version ends; Pods are enforced meanwhile.
    """
    if not listen:
        return
    backoff = Backoff(limit_seconds=5.0)
    while True:
        try:
            listener = inside(netns, lambda: listening(listen))
        except OSError as error:
            if not backoff.attempts:
                _log.error("the gate is not served", listen=listen, reason=str(error))
            health.set_ready("gate", False, f"{listen}: {error}")
            await backoff.wait()
            continue
        health.set_ready("gate", True)
        with listener:
            await _serve(gate, listener)


def listening(listen: str) -> socket.socket:
    """A listener on ``host:port``, where no host is every address, of both families where the kernel has both.

    Raises OSError where the address is taken or not there, ValueError where it is none.
    """
    host, port = host_and_port(listen)
    if host:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        made = socket.create_server((host, port), family=family, backlog=BACKLOG)
    elif socket.has_dualstack_ipv6():
        made = socket.create_server(("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True)
    else:
        made = socket.create_server(("", port), backlog=BACKLOG)
    made.setblocking(False)
    return made


async def _serve(gate: Gate, listener: socket.socket) -> None:
    """Until cancelled. We accept ourselves: the web server would take whatever comes."""

    async def answer(request: web.Request) -> web.Response:
        return await _answer(gate, request)

    application = web.Application()
    application.add_routes([web.get(GATE_PATH, answer)])
    runner = web.AppRunner(application, access_log=None, keepalive_timeout=0, shutdown_timeout=0.5)
    await runner.setup()
    assert runner.server is not None, "it was set up"
    loop = asyncio.get_running_loop()
    connections = Connections()
    try:
        while True:
            try:
                accepted, peer = await loop.sock_accept(listener)
            except OSError as error:  # it went before it was accepted, or no file is left: others still end
                _log.debug("no connection taken", reason=str(error))
                await asyncio.sleep(0.1)
                continue
            if not connections.room_for(peer[0]):
                accepted.close()
                continue
            try:
                transport, _ = await loop.connect_accepted_socket(runner.server, accepted)
            except OSError:
                accepted.close()
                continue
            except asyncio.CancelledError:
                accepted.close()
                raise
            connections.add(peer[0], transport)
            loop.call_later(LIFE_SECONDS, transport.abort)
    finally:
        await runner.cleanup()


class Connections:
    """Who has how many connections open."""

    def __init__(self) -> None:
        self._open: dict[str, list[asyncio.Transport]] = {}

    def room_for(self, address: str) -> bool:
        """Whether *address* may have one more."""
        if len(self._living(address)) >= PER_ADDRESS:
            return False
        if sum(map(len, self._open.values())) >= CONNECTIONS:  # some may have ended since they were counted
            for other in list(self._open):
                self._living(other)
        return sum(map(len, self._open.values())) < CONNECTIONS

    def add(self, address: str, transport: asyncio.Transport) -> None:
        self._open.setdefault(address, []).append(transport)

    def _living(self, address: str) -> list[asyncio.Transport]:
        living = [each for each in self._open.pop(address, ()) if not each.is_closing()]
        if living:
            self._open[address] = living
        return living


async def _answer(gate: Gate, request: web.Request) -> web.Response:
    try:
        seconds = _seconds(request.query.get("wait", "0"))
        address = addresses.pack((request.remote or "").partition("%")[0])
    except ValueError as error:
        return _response(400, GateAnswer(open=False, missing=(str(error),)))
    try:
        return _response(200, await gate.wait(address, min(seconds, LONGEST_WAIT_SECONDS)))
    except Stranger as error:
        return _response(403, GateAnswer(open=False, missing=(str(error),)))


def _seconds(text: str) -> float:
    if not (seconds := float(text)) >= 0:
        raise ValueError(f"wait={text}: give seconds, 0 or more")
    return seconds


def _response(status: int, answer: GateAnswer) -> web.Response:
    return web.Response(body=encode_gate_answer(answer), status=status, content_type="application/json")
