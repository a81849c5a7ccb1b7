"""A stream with one owner: its only input is a subject that carries the newest owner's token.

    take ─▶ update the stream to a fresh token ─▶ fence
    publish ─▶ own.<cluster>.<token>.… ─▶ stored under the transformed subject
       ▲                                        │
       └── window, trouble ◀── answers ◀────────┘

Whoever holds an old token finds nobody listening, so an owner that was replaced, however late it wakes, writes nothing.
Publishing is pipelined: answers come to one inbox, and whoever publishes is told of each by a callback.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from streams.errors import BusUnavailable, Fenced, OutcomeUnknown, Refused, StreamError
from streams.nats.nats_bus import NO_RESPONDERS, NatsBus

WINDOW_MESSAGES: Final = 4096
"""Unacknowledged at most; a stream refuses when 10,000 wait in the server."""
WINDOW_BYTES: Final = 32 * 1024 * 1024

Acknowledged = Callable[[int], None]
"""Called with the stream sequence of a message that is stored."""


class Ownership(msgspec.Struct, frozen=True):
    """Which stream, and how a token makes it one's own."""

    stream: str
    prefix: Callable[[str], str]
    """Token → the subject below which its holder publishes."""
    options: Callable[[str], dict[str, Any]]
    """Token → the stream's options, in JetStream's JSON terms."""


def owned_options(
    name: str, *, description: str, inlet: str, stored: str, replicas: int, more: Mapping[str, Any]
) -> dict[str, Any]:
    """The options of a stream whose only way in is *inlet*, and which keeps what comes there as *stored*, in
    JetStream's JSON terms. Both are filters that end in ``>``."""
    return {
        "name": name,
        "description": description,
        "subjects": [inlet],
        "subject_transform": {"src": inlet, "dest": stored},
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
        **more,
    }


class _Sent(msgspec.Struct, gc=False):
    """A message that is not acknowledged yet."""

    tail: str
    size: int
    at: float
    acknowledged: Acknowledged


class _Refusal(msgspec.Struct):
    description: str = ""


class _Answer(msgspec.Struct):
    """What the stream says to a message."""

    seq: int = 0
    error: _Refusal | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class OwnedStream:
    """Ownership from `take` until trouble; then take again, or give way. One taker at a time."""

    def __init__(
        self, bus: NatsBus, ownership: Ownership, name: str, *, acknowledge_within_seconds: float = 5.0
    ) -> None:
        self._bus = bus
        self._ownership = ownership
        self._name = name
        self._acknowledge_within = acknowledge_within_seconds
        self._answers: Subscription | None = None
        self.stream = ownership.stream
        self.token = ""
        self._reset()

    def _reset(self) -> None:
        self._generation = self._bus.generation
        self.fence = 0
        """Stream sequence of the own fence; 0: not taken."""
        self._pending: dict[int, _Sent] = {}
        self._pending_bytes = 0
        self._number = 0
        self._inbox = self._bus.client.new_inbox()
        self._failure: StreamError | None = None
        self._refused = False
        self._room = asyncio.Event()
        self.wake = asyncio.Event()
        """Set when whoever runs the stream should look: there is trouble, or a callback found an answer worth it."""

    def __repr__(self) -> str:
        return f"<{self.stream} as {self._name}, {len(self._pending)} unacknowledged, failure {self._failure!r}>"

    @property
    def unacknowledged(self) -> int:
        return len(self._pending)

    async def take(self, tail: str, fence: Callable[[str], bytes], headers: Mapping[str, str]) -> int:
        """Become the owner and publish *fence* of the new token at *tail*; return the fence's stream sequence.

        Nothing of an earlier owner is stored behind the fence. Raises `BusUnavailable`, and `Fenced` where another
        took over at the same time: try again; `ServerTooOld` and `Refused`: someone must act.
        """
        self._reset()
        if self._answers is not None:
            await self._bus.unsubscribe(self._answers)
        self._answers = await self._bus.subscribe(f"{self._inbox}.*", self._on_answer)
        self.token = secrets.token_hex(8)
        found = await self._bus.apply_stream(self._ownership.options(self.token))
        if found["subjects"] != [f"{self._ownership.prefix(self.token)}.>"]:
            raise Fenced(self.stream, self._name)  # another update came in between
        try:
            answer = await self._bus.request(self._subject(tail), fence(self.token), headers=headers)
        except BusUnavailable as error:
            trouble = await self._diagnosis(error.reason)
            raise (trouble if isinstance(trouble, Fenced) else error) from error
        stored = _decode_answer(answer.data)
        if stored.error:
            raise BusUnavailable(self.stream, stored.error.description)
        self.fence = stored.seq
        return stored.seq

    async def leave(self) -> None:
        """Take no more answers; the stream stays as it is until another takes it."""
        self.fail(OutcomeUnknown(self.stream, len(self._pending), "the writer has ended"))
        if self._answers is not None:
            with contextlib.suppress(BusUnavailable):
                await self._bus.unsubscribe(self._answers)
            self._answers = None

    def _subject(self, tail: str) -> str:
        return f"{self._ownership.prefix(self.token)}.{tail}"

    async def publish(
        self, tail: str, payload: bytes, headers: Mapping[str, str] | None, acknowledged: Acknowledged
    ) -> None:
        """Hand one message to the connection; wait only where too many are unacknowledged.

        Raises what ended the ownership; `OutcomeUnknown` ends it here, also if the caller is cancelled in between.
        """
        self.check()
        if len(self._pending) >= WINDOW_MESSAGES or self._pending_bytes >= WINDOW_BYTES:
            await self._wait_for_room()
        self._number += 1
        size = len(payload)
        self._pending[self._number] = _Sent(tail, size, _now(), acknowledged)
        self._pending_bytes += size
        try:
            await self._bus.publish(
                self._subject(tail), payload, reply=f"{self._inbox}.{self._number}", headers=headers
            )
        except BusUnavailable as error:
            raise self.fail(OutcomeUnknown(self.stream, len(self._pending), error.reason)) from error

    async def _wait_for_room(self) -> None:
        """Until half of the window is free, so that sender and acknowledgements take turns in large steps."""
        while len(self._pending) > WINDOW_MESSAGES // 2 or self._pending_bytes > WINDOW_BYTES // 2:
            self._room.clear()
            await self._room.wait()
            self.check()

    async def _on_answer(self, message: Msg) -> None:
        inbox, _, number = message.subject.rpartition(".")
        sent = self._pending.pop(int(number), None) if inbox == self._inbox else None
        if sent is None:
            return
        self._pending_bytes -= sent.size
        if message.headers and message.headers.get("Status") == NO_RESPONDERS:
            self._refused = True
            self.wake.set()
            return
        answer = _decode_answer(message.data)
        if answer.error:
            self.fail(OutcomeUnknown(self.stream, len(self._pending) + 1, answer.error.description))
            return
        sent.acknowledged(answer.seq)
        if len(self._pending) <= WINDOW_MESSAGES // 2:
            self._room.set()

    def check(self) -> None:
        """Raise what ended the ownership, if it is known to have ended."""
        if self._failure is not None:
            raise self._failure

    def fail(self, failure: StreamError) -> StreamError:
        """End the ownership; the first reason counts, and is returned."""
        if self._failure is None:
            self._failure = failure
        self.wake.set()
        self._room.set()
        return self._failure

    async def look_for_trouble(self) -> None:
        """Raise `Fenced` when another owns the stream; `OutcomeUnknown` when an acknowledgement is late or an error,
        or the connection was lost since the take-over."""
        self.check()
        if self._refused:
            raise self.fail(await self._diagnosis("no response from the stream"))
        if self._bus.generation != self._generation:
            raise self.fail(OutcomeUnknown(self.stream, len(self._pending), "the connection was lost"))
        oldest = next(iter(self._pending.values()), None)
        if oldest and _now() - oldest.at > self._acknowledge_within:
            reason = f"{oldest.tail} was not acknowledged in {self._acknowledge_within} s"
            raise self.fail(OutcomeUnknown(self.stream, len(self._pending), reason))

    async def _diagnosis(self, reason: str) -> StreamError:
        """Why the stream does not answer: it has another owner, or it is the stream, or NATS, that is away."""
        unknown = OutcomeUnknown(self.stream, len(self._pending), reason)
        try:
            answer = await self._bus.call(f"STREAM.INFO.{self.stream}")
        except (BusUnavailable, Refused):
            return unknown
        owned = f"{self._ownership.prefix(self.token)}.>" in answer["config"]["subjects"]
        return unknown if owned else Fenced(self.stream, self._name)


def _now() -> float:
    return asyncio.get_running_loop().time()
