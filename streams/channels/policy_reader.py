"""The read side of a policy stream for one node: live messages, catch-ups, and fetches where something is missing.

live.policy.<cluster>.pod.<node>.*  ─┐
live.policy.<cluster>.set.<id>.*    ─┼─▶ inbox ─▶ NodeView ─▶ NodeUpdate ─▶ the enforcer
live.policy.<cluster>.mark, .fence  ─┘               ▲
POLICY-<cluster>, read when needed ──────────────────┘
"""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Final, Self

import structlog
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from schemas import names
from schemas.policy import Mark, NodeUpdate, decode_mark
from schemas.unreadable import UNREADABLE
from streams.backoff import Backoff
from streams.core.node_view import CatchUp, NodeView
from streams.core.parts import Stored
from streams.core.set_view import EVERY_PART
from streams.errors import BusUnavailable, ReadFailed, Refused
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import read_stream

LATE_SECONDS: Final = 0.2
"""A message that a mark lists and that has not come by then was lost."""
FEW_PARTS: Final = 8
MESSAGES_PER_READ: Final = 500
"""A read of its own costs the server and us as much as some 500 messages do (6 ms with hundreds of reads open)."""

_log = structlog.get_logger("streams.channels.policy_reader")


class PolicyReader:
    """An async iterator of `NodeUpdate` values; an async context manager.

    It never ends by itself: what cannot be read is tried again, and what stands, stands. Take each update before asking
    for the next; what arrives meanwhile is kept and comes in one piece.
    """

    def __init__(
        self,
        bus: NatsBus,
        cluster: str,
        node: str,
        *,
        jitter_seconds: float = 1.0,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._bus = bus
        self._cluster = cluster
        self._stream = names.policy_stream(cluster)
        self._programs = names.program_subject(cluster, node, "*")
        self._node = node
        self._jitter = jitter_seconds
        self._uniform = uniform
        self._view = NodeView(node)
        self._reported: set[str] = set()
        self._inbox: list[Msg] = []
        self._arrived = asyncio.Event()
        self._generation = bus.generation
        self._subscriptions: list[Subscription] = []
        self._set_subscriptions: dict[str, Subscription] = {}
        self._leave: Callable[[], None] = lambda: None
        self._replicated: bool | None = None
        self._all_set_messages = 0
        """How many messages all sets together had when last read; 0: not known."""
        self._catch_up_at = 0.0
        self._blocked_since: float | None = None
        self._retry_at = 0.0
        self._backoff = Backoff(first_seconds=0.1, limit_seconds=2.0)
        self.catch_ups = 0
        """How often everything was read."""
        self.fetches = 0
        """How often one program, part or set was read again."""

    def __repr__(self) -> str:
        return f"<reader of {self._stream} for {self._node}: {self._view}, {len(self._inbox)} in the inbox>"

    async def __aenter__(self) -> Self:
        self._leave = self._bus.on_reconnect(self._arrived.set)
        try:
            for subject in (
                f"live.{self._programs}",
                f"live.{names.mark_subject(self._cluster)}",
                f"live.{names.fence_subject(self._cluster)}",
            ):
                self._subscriptions.append(await self._bus.subscribe(subject, self._on_message))
        except BaseException:
            await self._close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._close()

    async def _close(self) -> None:
        self._leave()
        for subscription in (*self._subscriptions, *self._set_subscriptions.values()):
            with contextlib.suppress(BusUnavailable):
                await self._bus.unsubscribe(subscription)

    async def _on_message(self, message: Msg) -> None:
        """Never waits. Handlers of different subscriptions are in no order; but so, whenever the reader looks, all that
        the server sent before anything in the inbox is there too: no gain without the loss that was sent before it."""
        self._inbox.append(message)
        self._arrived.set()

    def __aiter__(self) -> AsyncIterator[NodeUpdate]:
        return self

    async def __anext__(self) -> NodeUpdate:
        """The next update, as soon as there is something to apply or to acknowledge."""
        while True:
            self._take_in()
            await self._fetch_missing()
            if update := self._view.take():
                await self._leave_sets()
                return update
            if not self._inbox:
                await self._wait()

    def _take_in(self) -> None:
        """Everything that has arrived."""
        if self._generation != self._bus.generation:
            self._generation = self._bus.generation
            self._replicated = None
            self._forget()
        messages, self._inbox = self._inbox, []
        self._arrived.clear()
        below = len(f"live.policy.{self._cluster}.")
        for message in messages:
            must = self._view.must_catch_up
            headers = message.headers or {}
            try:
                sequence, last = int(headers["Nats-Sequence"]), int(headers["Nats-Last-Sequence"])
                self._view.live(message.subject[below:], sequence, last, message.data)
            except (*UNREADABLE, KeyError, ValueError) as error:
                _log.error("unreadable policy message", subject=message.subject, error=str(error))
            if self._view.must_catch_up and not must:
                self._plan_catch_up()
        self._report_unreadable()

    def _report_unreadable(self) -> None:
        for uid in self._view.unreadable.keys() - self._reported:
            _log.error("unreadable program", node=self._node, uid=uid, error=self._view.unreadable[uid])
        self._reported = set(self._view.unreadable)

    @property
    def unreadable(self) -> dict[str, str]:
        """Why a program cannot be read, by uid; until it can, nothing is complete and no mark is handed over."""
        return dict(self._view.unreadable)

    def _forget(self) -> None:
        self._view.forget()
        self._plan_catch_up()

    def _plan_catch_up(self) -> None:
        """Not at once: all nodes have the same reason at the same moment."""
        self._catch_up_at = _now() + self._uniform(0, self._jitter)

    async def _wait(self) -> None:
        """Until something arrives, or the next thing is due."""
        due = [self._retry_at] if self._needs_fetch() else []
        if self._view.must_catch_up:
            due.append(max(self._catch_up_at, self._retry_at))
        if self._blocked_since is not None:
            due.append(self._blocked_since + LATE_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(min(due) if due else None):
                await self._arrived.wait()

    def _needs_fetch(self) -> bool:
        return bool(self._view.unproven or self._view.missing_parts())

    async def _fetch_missing(self) -> None:
        """Read what messages alone cannot tell. A read that fails says nothing and is tried again later."""
        view = self._view
        self._watch_for_lateness()
        if _now() < self._retry_at:
            return
        try:
            if view.must_catch_up and _now() >= self._catch_up_at:
                view.caught_up(await self._read_all())
                self.catch_ups += 1
            if self._needs_fetch():
                await self._fetch()
        except (ReadFailed, BusUnavailable, Refused) as error:
            self._retry_at = _now() + self._backoff.delay()
            _log.info("policy not readable now", stream=self._stream, reason=str(error))
        else:
            if self._needs_fetch():  # the stream itself lacks it: its owner will write it
                self._retry_at = _now() + self._backoff.delay()
            else:
                self._backoff.reset()

    def _watch_for_lateness(self) -> None:
        if not self._view.blocked():
            self._blocked_since = None
        elif self._blocked_since is None:
            self._blocked_since = _now()
        elif _now() - self._blocked_since >= LATE_SECONDS:
            self._blocked_since = _now()
            self._view.doubt_missing()

    async def _read_all(self) -> CatchUp:
        """Fence and mark first: whatever is read after them is at least as new."""
        if self._replicated is None:
            info = await self._bus.call(f"STREAM.INFO.{self._stream}")
            self._replicated = info["config"].get("num_replicas", 1) > 1
        fence = await self._bus.last_message(self._stream, names.fence_subject(self._cluster))
        mark = await self._bus.last_message(self._stream, names.mark_subject(self._cluster))
        fence_sequence = _sequence(fence)
        if fence_sequence < self._view.newest and fence_sequence == 0:
            raise ReadFailed(self._stream, names.fence_subject(self._cluster), "it does not include the fence")
        return CatchUp(
            fence=fence_sequence,
            mark=_read_mark(mark),
            mark_sequence=_sequence(mark),
            programs=await self._read(self._programs, last_only=True, include=max(fence_sequence, _sequence(mark))),
        )

    async def _read(self, subject: str, *, last_only: bool, include: int = 0) -> list[Stored]:
        return await read_stream(
            self._bus,
            self._stream,
            subject,
            last_only=last_only,
            include=max(include, self._view.newest),
            proven=bool(self._replicated),
        )

    async def _fetch(self) -> None:
        """Programs and set parts that are missing; sets are listened to before they are read."""
        missing = self._view.missing_parts()
        for identity in {identity for identity, _ in missing} - self._set_subscriptions.keys():
            self._set_subscriptions[identity] = await self._bus.subscribe(
                f"live.{names.set_subject(self._cluster, identity, '*')}", self._on_message
            )
        for uid in sorted(self._view.unproven):
            await self._fetch_program(uid)
        self.fetches += len(missing)
        if len(missing) >= FEW_PARTS and len(missing) * MESSAGES_PER_READ >= self._all_set_messages:
            await self._fetch_from_all_sets(missing)
        else:
            for identity, part in missing:
                found = await self._read(names.set_subject(self._cluster, identity, part), last_only=False)
                self._view.sets[identity].fetched(part, found)

    async def _fetch_program(self, uid: str) -> None:
        self.fetches += 1
        subject = names.program_subject(self._cluster, self._node, uid)
        found = await self._read(subject, last_only=True)
        self._view.fetched_program(uid, found[-1] if found else None)

    async def _fetch_from_all_sets(self, missing: list[tuple[str, str]]) -> None:
        """One read of every set there is, of which the missing parts are kept."""
        found = await self._read(names.set_subject(self._cluster, "*", "*"), last_only=False)
        self._all_set_messages = len(found)
        by_set: dict[str, list[Stored]] = {identity: [] for identity, _ in missing}
        for message in found:
            identity = message.subject.rsplit(".", 2)[1]
            if identity in by_set:
                by_set[identity].append(message)
        for identity, part in missing:
            stored = by_set[identity]
            if part != EVERY_PART:
                stored = [message for message in stored if message.subject.endswith(f".{part}")]
            self._view.sets[identity].fetched(part, stored)

    async def _leave_sets(self) -> None:
        """Sets that no program names any more."""
        for identity in self._set_subscriptions.keys() - self._view.sets.keys():
            with contextlib.suppress(BusUnavailable):
                await self._bus.unsubscribe(self._set_subscriptions.pop(identity))


def _now() -> float:
    return asyncio.get_running_loop().time()


def _sequence(message: Msg | None) -> int:
    return int((message.headers or {})["Nats-Sequence"]) if message is not None else 0


def _read_mark(message: Msg | None) -> Mark | None:
    if message is None:
        return None
    try:
        mark: Mark = decode_mark(message.data)
    except UNREADABLE as error:
        raise ReadFailed("", message.subject, f"the mark is unreadable: {error}") from error
    return mark
