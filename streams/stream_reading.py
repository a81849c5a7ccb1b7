"""Reading a stream up to its end, completely or not at all.

A read is an ordered consumer: the server numbers what it delivers and says with each message how many are still to
come, so a read that lost something is noticed. Whatever is not the end, seen as such, is a failed read.

The request's subject carries the one filter of the read, so that a server can restrict who reads what.
"""

import asyncio
import secrets
from typing import Final

import msgspec
from nats.aio.msg import Msg

from streams.core.parts import Stored
from streams.errors import BusUnavailable, ReadFailed, Refused
from streams.nats_bus import NatsBus

HEARTBEAT_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 2.5
"""Five missed heartbeats: the server, or the consumer, is gone."""
_NANOSECONDS: Final = 1_000_000_000


class _Position(msgspec.Struct, frozen=True, gc=False):
    """What a delivered message's reply subject says about it."""

    sequence: int
    number: int
    """1 for the first message of this consumer."""
    pending: int
    """Messages still to come."""


async def read_stream(
    bus: NatsBus, stream: str, subject: str, *, last_only: bool, include: int = 0, proven: bool = False
) -> list[Stored]:
    """Everything stored under the filter *subject*, in order; with *last_only* the newest of each subject.

    *proven* is for replicated streams, whose replicas may lag: the read ends only when the replica that serves it
    has reached the stream sequence *include*, which takes up to a heartbeat.

    Raises `ReadFailed`, also for a reconnect midway: then an old and a new state could be mixed.
    """
    generation = bus.generation
    inbox = bus.client.new_inbox()
    arrivals: asyncio.Queue[Msg] = asyncio.Queue()

    try:
        subscription = await bus.subscribe(inbox, arrivals.put)
        try:
            answer = await bus.call(
                f"CONSUMER.CREATE.{stream}.{(name := secrets.token_hex(8))}.{subject}",
                {
                    "stream_name": stream,
                    "action": "create",
                    "config": {
                        "name": name,
                        "filter_subject": subject,
                        "deliver_policy": "last_per_subject" if last_only else "all",
                        "deliver_subject": inbox,
                        "ack_policy": "none",
                        "max_deliver": 1,
                        "flow_control": True,
                        "idle_heartbeat": int(HEARTBEAT_SECONDS * _NANOSECONDS),
                        "inactive_threshold": 5 * _NANOSECONDS,
                        "mem_storage": True,
                        "num_replicas": 1,
                    },
                },
            )
            expected = answer["num_pending"] + answer["delivered"]["consumer_seq"]
            found = await _take(bus, arrivals, expected, include if proven else 0)
        finally:
            await bus.unsubscribe(subscription)
    except (BusUnavailable, Refused) as error:
        raise ReadFailed(stream, subject, str(error)) from error
    except _Incomplete as error:
        raise ReadFailed(stream, subject, str(error)) from None
    if bus.generation != generation:
        raise ReadFailed(stream, subject, "the connection was lost meanwhile")
    return found


class _Incomplete(Exception):
    """The consumer's messages do not add up."""


async def _take(bus: NatsBus, arrivals: asyncio.Queue[Msg], expected: int, include: int) -> list[Stored]:
    """Messages until none is pending and the consumer's replica has reached *include*."""
    found: list[Stored] = []
    pending, reached = expected, 0
    while pending or reached < include:
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await arrivals.get()
        except TimeoutError:
            raise _Incomplete(f"silence after {len(found)} messages, {pending} pending") from None
        headers = message.headers or {}
        if headers.get("Status"):  # a heartbeat, or the server asking whether we keep up
            reached = max(reached, int(headers.get("Nats-Last-Stream", 0)))
            if reply := message.reply or headers.get("Nats-Consumer-Stalled"):
                await bus.publish(reply, b"")
            continue
        position = _position(message.reply)
        if position.number != len(found) + 1:
            raise _Incomplete(f"message {position.number} of the consumer after {len(found)}")
        found.append(Stored(message.subject, position.sequence, message.data))
        pending, reached = position.pending, position.sequence
    return found


def _position(reply: str) -> _Position:
    """``$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<time>.<pending>``; newer servers may put a domain
    and an account before the stream and a token at the end."""
    tokens = reply.split(".")
    first = 2 if len(tokens) == 9 else 4
    return _Position(int(tokens[first + 3]), int(tokens[first + 4]), int(tokens[first + 6]))
