"""The connection: what it requires of a server, and what it says when it does not get it."""

import asyncio
import contextlib
import json

import pytest
import structlog

from streams.errors import AccessDenied, BusUnavailable, Refused, ServerTooOld
from streams.nats.nats_bus import NatsBus, dropped_options
from tests.components.waiting import until


@contextlib.asynccontextmanager
async def server_of_version(version):
    """Speaks just enough of the protocol for a client to connect."""

    async def serve(reader, writer):
        info = {"server_id": "x", "version": version, "max_payload": 1048576, "proto": 1, "headers": True}
        writer.write(b"INFO " + json.dumps(info).encode() + b"\r\n")
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                if line.startswith(b"PING"):
                    writer.write(b"PONG\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.parametrize("version", ["2.11.9", "2.2.0", "1.4.1"])
async def test_an_older_server_is_refused_by_name(version):
    async with server_of_version(version) as url:
        with pytest.raises(ServerTooOld, match=f"nats-server {version} is running, and 2.12 or newer"):
            async with NatsBus(url):
                pass


async def test_a_server_that_does_not_answer_is_unavailable_and_its_secret_is_not_shown(unused_tcp_port):
    with pytest.raises(BusUnavailable) as caught:
        async with NatsBus(f"nats://secret@127.0.0.1:{unused_tcp_port}", connect_within_seconds=0.5):
            pass
    assert caught.value.retriable
    assert "secret" not in str(caught.value)


@pytest.mark.nats
async def test_a_wrong_token_is_refused(nats):
    # The server may reset the connection before its reason is read: then all we know is that it does not answer.
    with pytest.raises((AccessDenied, BusUnavailable)) as caught:
        async with NatsBus(f"nats://wrong@127.0.0.1:{nats.port}", connect_within_seconds=2):
            pass
    assert "wrong" not in str(caught.value)


def test_options_that_a_server_dropped_are_named():
    wanted = {"name": "S", "allow_msg_ttl": True, "republish": {"src": "a", "dest": "b"}, "max_age": 0}
    assert dropped_options(wanted, {**wanted}) == []
    assert dropped_options(wanted, {"name": "S"}) == ["allow_msg_ttl", "republish.src", "republish.dest"]
    assert dropped_options({"max_msgs_per_subject": 1}, {"max_msgs_per_subject": -1}) == ["max_msgs_per_subject"]


@pytest.mark.nats
async def test_an_option_that_the_server_does_not_know_is_an_error(nats):
    async with NatsBus(nats.url) as bus:
        with pytest.raises((ServerTooOld, Refused)):
            await bus.apply_stream({"name": "OPTIONS", "subjects": ["options"], "allow_everything": True})


@pytest.mark.nats
async def test_a_reconnect_is_told_to_whoever_asked(nats):
    told = []
    async with NatsBus(nats.url) as bus:
        forget = bus.on_reconnect(lambda: told.append(bus.generation))
        await nats.kill()
        await nats.start()
        await until("a reconnect", lambda: told)
        assert told == [1]
        forget()
        assert (await bus.call("INFO"))["limits"]


@pytest.mark.nats
async def test_only_a_connection_that_broke_is_told_as_broken(nats):
    with structlog.testing.capture_logs() as lines:
        async with NatsBus(nats.url):
            pass
        assert lines == []
        async with NatsBus(nats.url):
            await nats.kill()
            await until("the break to be told", lambda: any("disconnected" in line["event"] for line in lines))
