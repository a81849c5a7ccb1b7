"""Reading a stream: up to its end, completely or not at all; or its newest values, and then each as it comes.

A read is an ordered consumer: the server numbers what it delivers and says with each message how many are still to
come, so a read that lost something is noticed. Whatever is not the end, seen as such, is a failed read.

A message that is replaced while the read is on its way to it is skipped, and the one that replaces it may come after
"none pending" (tried: every fourth read of 20 subjects that are all replaced a thousand times a second lacks some). So
the messages that were there at the beginning are counted; where one was skipped, the read goes on until the server
reports that the consumer is idle.

The request's subject carries the one filter of the read, so that a server can restrict who reads what.
"""

import asyncio
import contextlib
import secrets
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

import msgspec
from nats.aio.msg import Msg

from streams.backoff import Backoff
from streams.core.parts import Stored
from streams.errors import BusUnavailable, ReadFailed, Refused
from streams.nats.nats_bus import NatsBus

HEARTBEAT_SECONDS: Final = 0.5
SILENCE_SECONDS: Final = 2.5
"""Five missed heartbeats: the server, or the consumer, is gone."""
RESTLESS_SECONDS: Final = 1.5
"""A read that is not whole by then fails: its subjects change without pause."""
_NANOSECONDS: Final = 1_000_000_000


async def read_stream(
    bus: NatsBus, stream: str, subject: str, *, last_only: bool, include: int = 0, proven: bool = False
) -> list[Stored]:
    """Everything stored under the filter *subject*, in order; with *last_only* the newest of each subject.

    With *last_only* a subject that is not there had no message when the read began. Without, a message that another
    replaced meanwhile may be missing, and the other too: what is read must prove itself, as set parts do.

    *proven* is for replicated streams, whose replicas may lag: the read ends only when the replica that serves it
    has reached the stream sequence *include*, which takes up to a heartbeat.

    Raises `ReadFailed`, also for a reconnect midway: then an old and a new state could be mixed.
    """
    beginning = 0
    if last_only:
        try:
            beginning = (await bus.call(f"STREAM.INFO.{stream}"))["state"]["last_seq"]
        except (BusUnavailable, Refused) as error:
            raise ReadFailed(stream, subject, str(error)) from error
    async with _consumer(bus, stream, subject, last_only=last_only) as consumer:
        found = await consumer.rest(include if proven else 0)
        if last_only and sum(message.sequence <= beginning for message in found) < consumer.expected:
            found += await consumer.until_idle()
        return found


async def read_newest(bus: NatsBus, stream: str, subject: str) -> list[Stored]:
    """The newest message of every subject under the filter *subject*, for subjects that change all the time.

    As `read_stream`, but one whose message was replaced twice while it was read may be missing if another is new.
    """
    async with _consumer(bus, stream, subject, last_only=True) as consumer:
        return await consumer.newest()


class Batch(msgspec.Struct, frozen=True):
    """What a follower hands over."""

    messages: list[Stored]
    complete: bool
    """These are the newest messages of all subjects: what is not among them is not there."""


async def follow_stream(bus: NatsBus, stream: str, subject: str) -> AsyncGenerator[Batch, None]:
    """The newest message of every subject under the filter *subject* in one complete batch, then each change.

    Never ends by itself. After a loss of any kind (connection, consumer, stream) another complete batch comes as soon
    as it can be read; until then nothing does. Close it (`contextlib.aclosing`) when done.
    """
    backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
    while True:
        try:
            async with _consumer(bus, stream, subject, last_only=True) as consumer:
                yield Batch(await consumer.newest(), complete=True)
                backoff.reset()
                while True:
                    yield Batch(await consumer.more(), complete=False)
        except ReadFailed:
            await backoff.wait()


class _Position(msgspec.Struct, frozen=True, gc=False):
    """What a delivered message's reply subject says about it."""

    sequence: int
    number: int
    """1 for the first message of this consumer."""
    pending: int
    """Messages still to come."""
    stored_at: float


class _Consumer:
    """An ordered consumer's messages, taken so that no loss goes unnoticed. Its methods raise `_Incomplete`."""

    def __init__(self, bus: NatsBus) -> None:
        self._bus = bus
        self._generation = bus.generation
        self.arrivals: asyncio.Queue[Msg] = asyncio.Queue()
        self.expected = 0
        """Messages that were there when the consumer was made."""
        self.pending = 0
        """Messages still to come, as last heard."""
        self._idle = False
        """The last that was heard is that there is nothing to send."""
        self._taken = 0
        self._reached = 0
        """Stream sequence up to which the replica that serves us has looked."""

    async def rest(self, include: int) -> list[Stored]:
        """Everything until none is pending and the replica has reached *include*."""
        found: list[Stored] = []
        while self.pending or self._reached < include:
            found.extend(await self._next())
        self._require_connection()
        return found

    async def until_idle(self) -> list[Stored]:
        """What comes until the server has had nothing to send for a heartbeat: then nothing was left out."""
        found: list[Stored] = []
        try:
            async with asyncio.timeout(RESTLESS_SECONDS):
                self._idle = False
                while self.pending or not self._idle:
                    found.extend(await self._next())
        except TimeoutError:
            raise _Incomplete(f"no rest within {RESTLESS_SECONDS} s") from None
        self._require_connection()
        return found

    async def newest(self) -> list[Stored]:
        """The newest message of as many subjects as there were, in stream order."""
        found = {message.subject: message for message in await self.rest(0)}
        while len(found) < self.expected and not self._idle:
            found.update({message.subject: message for message in await self._next()})
        self._require_connection()
        return sorted(found.values(), key=lambda message: message.sequence)

    async def more(self) -> list[Stored]:
        """At least one message, and what else has arrived."""
        found: list[Stored] = []
        while not found or not self.arrivals.empty():
            found.extend(await self._next())
        self._require_connection()
        return found

    def _require_connection(self) -> None:
        if self._bus.generation != self._generation:
            raise _Incomplete("the connection was lost meanwhile")

    async def _next(self) -> list[Stored]:
        """The next message, or nothing where it was a word of the server's about the consumer."""
        try:
            async with asyncio.timeout(SILENCE_SECONDS):
                message = await self.arrivals.get()
        except TimeoutError:
            raise _Incomplete(f"silence after {self._taken} messages, {self.pending} pending") from None
        headers = message.headers or {}
        if headers.get("Status"):  # a heartbeat, or the question whether we keep up
            self._reached = max(self._reached, int(headers.get("Nats-Last-Stream", 0)))
            if int(headers.get("Nats-Last-Consumer", self._taken)) != self._taken:
                raise _Incomplete(f"the server has sent more than the {self._taken} messages that came")
            if reply := message.reply or headers.get("Nats-Consumer-Stalled"):
                await self._bus.publish(reply, b"")
            self._idle = not reply
            return []
        position = _position(message.reply)
        if position.number != self._taken + 1:
            raise _Incomplete(f"message {position.number} of the consumer after {self._taken}")
        self._taken, self.pending, self._reached = position.number, position.pending, position.sequence
        self._idle = False
        deleted = headers.get("KV-Operation") or headers.get("Nats-Marker-Reason")
        return [Stored(message.subject, position.sequence, b"" if deleted else message.data, position.stored_at)]


class _Incomplete(Exception):
    """The consumer's messages do not add up."""


@contextlib.asynccontextmanager
async def _consumer(bus: NatsBus, stream: str, subject: str, *, last_only: bool) -> AsyncIterator[_Consumer]:
    """Make an ordered consumer; whatever goes wrong in the block leaves as `ReadFailed`."""
    inbox = bus.client.new_inbox()
    consumer = _Consumer(bus)
    name = secrets.token_hex(8)
    request = {
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
    }
    try:
        subscription = await bus.subscribe(inbox, consumer.arrivals.put)
        try:
            answer = await bus.call(f"CONSUMER.CREATE.{stream}.{name}.{subject}", request)
            consumer.expected = consumer.pending = answer["num_pending"] + answer["delivered"]["consumer_seq"]
            yield consumer
        finally:
            await bus.unsubscribe(subscription)
    except (BusUnavailable, Refused, _Incomplete) as error:
        raise ReadFailed(stream, subject, str(error)) from error


def _position(reply: str) -> _Position:
    """``$JS.ACK.<stream>.<consumer>.<deliveries>.<sequence>.<number>.<time>.<pending>``; newer servers may put a domain
    and an account before the stream and a token at the end."""
    tokens = reply.split(".")
    first = 2 if len(tokens) == 9 else 4
    return _Position(
        sequence=int(tokens[first + 3]),
        number=int(tokens[first + 4]),
        pending=int(tokens[first + 6]),
        stored_at=int(tokens[first + 5]) / _NANOSECONDS,
    )
