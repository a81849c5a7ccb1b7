"""The write side of a cluster's policy stream: one owner, pipelined messages, marks.

take_over ─▶ own the stream ─▶ read what is published
send ─▶ plan ─▶ publish ····▶ acknowledgements ─▶ run ─▶ mark
"""

import asyncio
import contextlib
from collections.abc import Iterable
from functools import partial
from typing import Any, NoReturn

import msgspec
import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from schemas import names
from schemas.policy import Fence, Mark, Policy, PolicyChange, decode_fence, decode_mark, encode_fence, encode_mark
from schemas.unreadable import UNREADABLE
from streams.core.marking import Marking, Open
from streams.core.publication import ROLLUP, Publication
from streams.errors import BusUnavailable, Fenced, MarkWouldGoBack, OutcomeUnknown, ReadFailed
from streams.lifecycle import happens
from streams.nats.nats_bus import NatsBus
from streams.nats.owned_stream import OwnedStream, Ownership, owned_options
from streams.nats.stream_reading import read_stream

_log = structlog.get_logger("streams.channels.policy_writer")


class Published(msgspec.Struct, frozen=True):
    """What a new owner found."""

    policy: Policy
    mark: Mark | None
    """The newest mark of those before; ``None``: the stream is new, or was lost."""


class PolicyWriter:
    """Owns the policy stream of *cluster* from `take_over` until `run` raises; then take over again, or give way.

    *name* says in the fence, to people, which processor it is.
    """

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
        self._owned = OwnedStream(
            bus,
            Ownership(
                names.policy_stream(cluster),
                partial(names.owned_prefix, cluster),
                partial(policy_stream_options, cluster, replicas),
            ),
            name,
            acknowledge_within_seconds=acknowledge_within_seconds,
        )
        self._fences: Subscription | None = None
        self._sending = asyncio.Lock()
        self._settled = asyncio.Event()
        self._publication = Publication(max_payload=bus.max_payload)
        self._marking = Marking(None)
        self._newest = -1

    def __repr__(self) -> str:
        return f"<policy writer, sent {self._newest}, marked {self._marking.last}, {self._owned}>"

    @property
    def mark(self) -> Mark | None:
        """The newest mark sent, or found at the take-over."""
        return self._marking.last

    @property
    def token(self) -> str:
        """What this writer's newest fence names as the owner; empty before the first take-over."""
        return self._owned.token

    async def take_over(self) -> Published:
        """Become the owner, and return what is published: complete, as of the fence.

        From its first step on, whoever owned the stream writes nothing more. Raises as `OwnedStream.take` does, and
        `ReadFailed`: try again.
        """
        self._settled = asyncio.Event()
        self._publication = Publication(max_payload=self._bus.max_payload)
        if self._fences is None:
            self._fences = await self._bus.subscribe(f"live.{names.fence_subject(self._cluster)}", self._on_fence)
        try:
            return await self._take()
        except BaseException:
            self._owned.fail(OutcomeUnknown(self._owned.stream, 0, "the take-over did not succeed"))
            raise

    async def _take(self) -> Published:
        fence = await self._owned.take("fence", self._fence, ROLLUP)
        everything = names.policy_subjects(self._cluster)
        stored = await read_stream(
            self._bus, self._owned.stream, everything, last_only=False, include=fence, proven=self._replicas > 1
        )
        below = len(everything) - 1
        newest = max((message.sequence for message in stored if message.subject[below:] == "fence"), default=0)
        if newest < fence:
            # A lagging replica; or two updates of the stream at once, after which the server stores what one of the
            # two publishes under no subject of ours (tried): it must not take itself for the owner.
            raise ReadFailed(self._owned.stream, everything, "it does not include the fence")
        if newest > fence:
            raise Fenced(self._owned.stream, self._name)
        policy = self._publication.read((message.subject[below:], message) for message in stored)
        mark = _newest_mark(message.payload for message in stored if message.subject[below:] == "mark")
        self._marking = Marking(mark)
        self._newest = mark.revision if mark else -1
        _log.info(
            "took over", stream=self._owned.stream, fence=fence, programs=len(policy.programs), sets=len(policy.sets)
        )
        return Published(policy, mark)

    async def _on_fence(self, message: Msg) -> None:
        """Another's fence after the own one: over at once, also where nothing is being published."""
        with contextlib.suppress(*UNREADABLE):
            fence = decode_fence(message.data)
            sequence = int((message.headers or {})["Nats-Sequence"])
            if fence.owner != self.token and 0 < self._owned.fence < sequence:
                self._owned.fail(Fenced(self._owned.stream, self._name))

    def _fence(self, token: str) -> bytes:
        return encode_fence(Fence(owner=token, name=self._name))

    async def send(self, change: PolicyChange, revision: int, time: str) -> None:
        """Publish *change*, which with all sent before makes *revision* complete; *time* is its newest event's.

        Returns when all is handed to the connection, without waiting for acknowledgements, unless too many are open.
        An empty change moves the mark alone. Raises `ProgramTooLarge` and `MarkWouldGoBack` before anything is
        published; `Fenced` and `OutcomeUnknown` as `run` does.
        """
        async with self._sending:
            self._owned.check()
            if revision < self._newest:
                raise MarkWouldGoBack(self._owned.stream, self._newest, revision)
            messages = self._publication.plan(change, revision)
            self._newest = revision
            self._settled.clear()
            opened = self._marking.sent(revision, time, len(messages))
            try:
                for message in messages:
                    stored = partial(self._on_stored, opened, message.subject)
                    await self._owned.publish(message.subject, message.payload, message.headers, stored)
            except asyncio.CancelledError:
                self._owned.fail(OutcomeUnknown(self._owned.stream, len(messages), "sending was interrupted"))
                raise
            if not messages:
                self._owned.wake.set()
            # Publishing fills a buffer and does not wait: without this, a caller in a loop would starve the flusher,
            # the acknowledgements and its own marks.
            await asyncio.sleep(0)

    def _on_stored(self, opened: Open, subject: str, sequence: int) -> None:
        if self._marking.acknowledge(opened, subject, sequence):
            self._owned.wake.set()

    def _on_mark_stored(self, sequence: int) -> None:
        if self._marking.settled and not self._owned.unacknowledged:
            self._settled.set()

    async def settled(self) -> None:
        """Wait until a mark of everything sent is acknowledged; `run` must be running. Raises as `run` does."""
        await self._settled.wait()
        self._owned.check()

    async def run(self) -> NoReturn:
        """Send the marks that acknowledgements earn, and repeat the newest as a heartbeat, until ownership is lost.

        The mark of an earlier owner is not repeated: it says nothing about what this one is changing.

        Raises `Fenced` when another has taken over; `OutcomeUnknown` when an acknowledgement did not come, came as an
        error, or the connection was lost: then take over again and publish the difference.
        """
        spoken = 0.0
        loop = asyncio.get_running_loop()
        forget = self._bus.on_reconnect(self._owned.wake.set)
        try:
            while True:
                await happens(self._owned.wake, within_seconds=self._heartbeat)
                self._owned.wake.clear()
                await self._owned.look_for_trouble()
                mark = self._marking.earned()
                if mark is None and spoken and loop.time() - spoken >= self._heartbeat:
                    mark = self._marking.repeated()
                if mark is not None:
                    spoken = loop.time()
                    await self._owned.publish("mark", encode_mark(mark), ROLLUP, self._on_mark_stored)
        finally:
            forget()
            await self._owned.leave()
            if self._fences is not None:
                with contextlib.suppress(BusUnavailable):
                    await self._bus.unsubscribe(self._fences)
                self._fences = None
            self._settled.set()


def policy_stream_options(cluster: str, replicas: int, owner: str) -> dict[str, Any]:
    """The stream whose only way in is the subject that carries the token *owner*, in JetStream's JSON terms."""
    stored = names.policy_subjects(cluster)
    return owned_options(
        names.policy_stream(cluster),
        description="eastwest: programs, address sets and marks",
        inlet=f"{names.owned_prefix(cluster, owner)}.>",
        stored=stored,
        replicas=replicas,
        more={"republish": {"src": stored, "dest": names.live_subjects(cluster)}},
    )


def _newest_mark(payloads: Iterable[bytes]) -> Mark | None:
    found = None
    for payload in payloads:
        with contextlib.suppress(*UNREADABLE):
            found = decode_mark(payload)
    return found
