"""The write side of a cluster's policy stream: one owner, pipelined messages, marks.

    take_over ─▶ update the stream to a fresh token ─▶ fence ─▶ read what is published
    send ─▶ plan ─▶ publish under the token ····▶ acknowledgements ─▶ run ─▶ mark

Only the newest token is an input of the stream, so an owner that was replaced, however late it wakes, writes nothing.
"""

import asyncio
import contextlib
import secrets
from collections.abc import Iterable
from typing import Any, Final, NoReturn

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from schemas import names
from schemas.policy import Fence, Mark, Policy, PolicyChange, decode_mark, encode_fence, encode_mark
from streams.core.marking import Marking, Open
from streams.core.publication import ROLLUP, Outgoing, Publication
from streams.errors import (
    BusUnavailable,
    Fenced,
    MarkWouldGoBack,
    OutcomeUnknown,
    ReadFailed,
    Refused,
    StreamError,
)
from streams.nats_bus import NO_RESPONDERS, NatsBus
from streams.stream_reading import read_stream

WINDOW_MESSAGES: Final = 4096
"""Unacknowledged at most; a stream refuses when 10,000 wait in the server."""
WINDOW_BYTES: Final = 32 * 1024 * 1024

_log = structlog.get_logger("streams.policy_writer")


class Published(msgspec.Struct, frozen=True):
    """What a new owner found."""

    policy: Policy
    mark: Mark | None
    """The newest mark of those before; ``None``: the stream is new, or was lost."""


class _Sent(msgspec.Struct, gc=False):
    """A message that is not acknowledged yet."""

    subject: str
    size: int
    at: float
    opened: Open | None
    """``None`` for marks."""


class _Refusal(msgspec.Struct):
    description: str = ""


class _Answer(msgspec.Struct):
    """What the stream says to a message."""

    seq: int = 0
    error: _Refusal | None = None


_decode_answer = msgspec.json.Decoder(_Answer).decode


class PolicyWriter:
    """Owns the policy stream of *cluster* from `take_over` until `run` raises; then take over again, or give way."""

    def __init__(
        self,
        bus: NatsBus,
        cluster: str,
        name: str,
        *,
        replicas: int = 1,
        heartbeat_seconds: float = 1.0,
        acknowledge_within_seconds: float = 5.0,
    ) -> None:
        self._bus = bus
        self._cluster = cluster
        self._name = name
        self._replicas = replicas
        self._heartbeat = heartbeat_seconds
        self._acknowledge_within = acknowledge_within_seconds
        self.stream = names.policy_stream(cluster)
        self.token = ""
        self._answers: Subscription | None = None
        self._sending = asyncio.Lock()
        self._reset()

    def _reset(self) -> None:
        self._generation = self._bus.generation
        self._publication = Publication(max_payload=self._bus.max_payload)
        self._marking = Marking(None)
        self._newest = -1
        self._pending: dict[int, _Sent] = {}
        self._pending_bytes = 0
        self._number = 0
        self._inbox = self._bus.client.new_inbox()
        self._failure: StreamError | None = None
        self._refused = False
        """Nobody took a message: whoever looks for trouble finds out why."""
        self._room = asyncio.Event()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()

    def __repr__(self) -> str:
        return f"<writer {self._name} of {self.stream}, {len(self._pending)} unacknowledged, {self._marking.last}>"

    @property
    def mark(self) -> Mark | None:
        """The newest mark sent, or found at the take-over."""
        return self._marking.last

    async def take_over(self) -> Published:
        """Become the owner, and return what is published: complete, as of the fence.

        From its first step on, whoever owned the stream writes nothing more. Raises `BusUnavailable`, `ReadFailed`
        and `Fenced` (another took over at the same time): try again; `ServerTooOld` and `Refused`: someone must act.
        """
        self._reset()
        await self._listen()
        self.token = secrets.token_hex(8)
        await self._bus.apply_stream(policy_stream_options(self._cluster, self.token, self._replicas))
        fence = await self._put_fence()
        stored = await read_stream(
            self._bus,
            self.stream,
            names.policy_subjects(self._cluster),
            last_only=False,
            include=fence,
            proven=self._replicas > 1,
        )
        if not any(message.sequence == fence for message in stored):
            raise ReadFailed(self.stream, names.policy_subjects(self._cluster), "it does not include the fence")
        below = len(f"policy.{self._cluster}.")
        policy = self._publication.read((message.subject[below:], message) for message in stored)
        mark = _newest_mark(message.payload for message in stored if message.subject[below:] == "mark")
        self._marking = Marking(mark)
        self._newest = mark.revision if mark else -1
        _log.info("took over", stream=self.stream, fence=fence, programs=len(policy.programs), sets=len(policy.sets))
        return Published(policy, mark)

    async def _listen(self) -> None:
        if self._answers is not None:
            await self._bus.unsubscribe(self._answers)
        self._answers = await self._bus.subscribe(f"{self._inbox}.*", self._on_answer)

    async def _put_fence(self) -> int:
        """The fence's stream sequence."""
        try:
            answer = await self._bus.request(
                f"{names.owned_prefix(self._cluster, self.token)}.fence",
                encode_fence(Fence(owner=self.token, name=self._name)),
                headers=ROLLUP,
            )
        except BusUnavailable as error:
            raise await self._diagnosis(error.reason) from error
        found = _decode_answer(answer.data)
        if found.error:
            raise BusUnavailable(self.stream, found.error.description)
        return found.seq

    async def send(self, change: PolicyChange, revision: int, time: str) -> None:
        """Publish *change*, which with all sent before makes *revision* complete; *time* is its newest event's.

        Returns when all is handed to the connection, without waiting for acknowledgements, unless too many are open.
        An empty change moves the mark alone. Raises `ProgramTooLarge` and `MarkWouldGoBack` before anything is
        published; `Fenced` and `OutcomeUnknown` as `run` does.
        """
        async with self._sending:
            self._check()
            if revision < self._newest:
                raise MarkWouldGoBack(self.stream, self._newest, revision)
            messages = self._publication.plan(change)
            self._newest = revision
            self._idle.clear()
            opened = self._marking.sent(revision, time, len(messages))
            try:
                for message in messages:
                    if len(self._pending) >= WINDOW_MESSAGES or self._pending_bytes >= WINDOW_BYTES:
                        await self._wait_for_room()
                    await self._publish(message, opened)
            except BusUnavailable as error:
                raise self._fail(OutcomeUnknown(self.stream, len(messages), error.reason)) from error
            except asyncio.CancelledError:
                self._fail(OutcomeUnknown(self.stream, len(messages), "sending was interrupted"))
                raise
            if not messages:
                self._wake.set()

    async def settled(self) -> None:
        """Wait until the mark of everything sent is acknowledged; `run` must be running. Raises as `run` does."""
        await self._idle.wait()
        self._check()

    async def run(self) -> NoReturn:
        """Send the marks that acknowledgements earn, and repeat the newest as a heartbeat, until ownership is lost.

        Raises `Fenced` when another has taken over, `OutcomeUnknown` when an acknowledgement did not come, came as an
        error, or the connection was lost: then take over again and publish the difference.
        """
        spoken = 0.0
        loop = asyncio.get_running_loop()
        forget = self._bus.on_reconnect(self._wake.set)
        try:
            while True:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(self._heartbeat):
                        await self._wake.wait()
                self._wake.clear()
                await self._look_for_trouble()
                mark = self._marking.earned()
                if mark is None and spoken and loop.time() - spoken >= self._heartbeat:
                    mark = self._marking.repeated()
                if mark is not None:
                    spoken = loop.time()
                    await self._publish(Outgoing("mark", encode_mark(mark), ROLLUP), None)
        except BusUnavailable as error:
            raise self._fail(OutcomeUnknown(self.stream, len(self._pending), error.reason)) from error
        finally:
            forget()
            self._fail(OutcomeUnknown(self.stream, len(self._pending), "the writer has ended"))

    async def _publish(self, message: Outgoing, opened: Open | None) -> None:
        self._number += 1
        size = len(message.payload)
        self._pending[self._number] = _Sent(message.subject, size, asyncio.get_running_loop().time(), opened)
        self._pending_bytes += size
        subject = f"{names.owned_prefix(self._cluster, self.token)}.{message.subject}"
        await self._bus.publish(
            subject, message.payload, reply=f"{self._inbox}.{self._number}", headers=message.headers
        )

    async def _wait_for_room(self) -> None:
        """Until half of the window is free, so that sender and acknowledgements take turns in large steps."""
        while len(self._pending) > WINDOW_MESSAGES // 2 or self._pending_bytes > WINDOW_BYTES // 2:
            self._room.clear()
            await self._room.wait()
            self._check()

    async def _on_answer(self, message: Msg) -> None:
        prefix, _, number = message.subject.rpartition(".")
        sent = self._pending.pop(int(number), None) if prefix == self._inbox else None
        if sent is None:
            return
        self._pending_bytes -= sent.size
        if message.headers and message.headers.get("Status") == NO_RESPONDERS:
            self._refused = True
            self._wake.set()
            return
        answer = _decode_answer(message.data)
        if answer.error:
            self._fail(OutcomeUnknown(self.stream, len(self._pending) + 1, answer.error.description))
            return
        if sent.opened is not None and self._marking.acknowledge(sent.opened, sent.subject, answer.seq):
            self._wake.set()
        if not self._pending and self._marking.settled:
            self._idle.set()
        if len(self._pending) <= WINDOW_MESSAGES // 2:
            self._room.set()

    def _check(self) -> None:
        """Raises what ended the ownership."""
        if self._failure is not None:
            raise self._failure

    def _fail(self, failure: StreamError) -> StreamError:
        """Remember the first reason, tell everyone who waits, and return it."""
        if self._failure is None:
            self._failure = failure
        for event in (self._wake, self._room, self._idle):
            event.set()
        return self._failure

    async def _look_for_trouble(self) -> None:
        self._check()
        if self._refused:
            raise self._fail(await self._diagnosis("no response from the stream"))
        if self._bus.generation != self._generation:
            raise self._fail(OutcomeUnknown(self.stream, len(self._pending), "the connection was lost"))
        oldest = next(iter(self._pending.values()), None)
        if oldest and asyncio.get_running_loop().time() - oldest.at > self._acknowledge_within:
            reason = f"{oldest.subject} was not acknowledged in {self._acknowledge_within} s"
            raise self._fail(OutcomeUnknown(self.stream, len(self._pending), reason))

    async def _diagnosis(self, reason: str) -> StreamError:
        """Why the stream does not answer: it has another owner, or it is the stream, or NATS, that is away."""
        unknown = OutcomeUnknown(self.stream, len(self._pending), reason)
        try:
            answer = await self._bus.call(f"STREAM.INFO.{self.stream}")
        except (BusUnavailable, Refused):
            return unknown
        subjects: list[str] = answer["config"]["subjects"]
        owned = f"{names.owned_prefix(self._cluster, self.token)}.>" in subjects
        return unknown if owned else Fenced(self.stream, self._name)


def policy_stream_options(cluster: str, owner: str, replicas: int) -> dict[str, Any]:
    """The stream whose only way in is the subject that carries the token *owner*."""
    source = f"{names.owned_prefix(cluster, owner)}.>"
    stored = names.policy_subjects(cluster)
    return {
        "name": names.policy_stream(cluster),
        "description": "eastwest: programs, address sets and marks",
        "subjects": [source],
        "subject_transform": {"src": source, "dest": stored},
        "republish": {"src": stored, "dest": names.live_subjects(cluster)},
        "retention": "limits",
        "storage": "file",
        "num_replicas": replicas,
        "allow_rollup_hdrs": True,
        "allow_direct": True,
        "allow_msg_ttl": True,
    }


def _newest_mark(payloads: Iterable[bytes]) -> Mark | None:
    found = None
    for payload in payloads:
        with contextlib.suppress(msgspec.MsgspecError):
            found = decode_mark(payload)
    return found
