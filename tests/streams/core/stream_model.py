"""A policy stream without a server: what is stored, what is republished, what a read would find."""

import msgspec

from schemas.policy import Policy, encode_mark
from streams.core.difference import difference
from streams.core.marking import Marking
from streams.core.node_view import CatchUp, NodeView
from streams.core.parts import Stored
from streams.core.publication import ROLLUP, Outgoing, Publication
from streams.core.set_view import EVERY_PART

Live = tuple[str, int, int, bytes]


class StreamModel:
    """The owner and the stream in one; `live` collects what is republished."""

    def __init__(self, *, max_payload: int = 1 << 20) -> None:
        self.max_payload = max_payload
        self.sequence = 0
        self.stored: list[Stored] = []
        self.last: dict[str, int] = {}
        self.live: list[Live] = []
        self.desired = Policy(programs={}, sets={})
        self.take_over()

    def take_over(self) -> None:
        self._store(Outgoing("fence", b"fence", ROLLUP))
        self.publication = Publication(max_payload=self.max_payload)
        self.published = self.publication.read((message.subject, message) for message in self.stored)
        self.marking = Marking(None)

    def wipe(self) -> None:
        """The store is lost; the owner takes over what is empty now."""
        self.sequence, self.stored, self.last = 0, [], {}
        self.take_over()

    def _store(self, message: Outgoing) -> int:
        self.sequence += 1
        if message.headers and "Nats-Rollup" in message.headers:
            self.stored = [kept for kept in self.stored if kept.subject != message.subject]
        self.stored.append(Stored(message.subject, self.sequence, message.payload))
        self.live.append((message.subject, self.sequence, self.last.get(message.subject, 0), message.payload))
        self.last[message.subject] = self.sequence
        return self.sequence

    def publish(
        self,
        desired: Policy,
        revision: int,
        *,
        released: frozenset[bytes] = frozenset(),
        crash_after: int | None = None,
    ) -> None:
        """Publish the difference and its mark; or only the first *crash_after* messages, as an owner that dies.

        Of what sets lose, the addresses *released* were given up.
        """
        change = msgspec.structs.replace(difference(desired, self.published), released=released)
        messages = self.publication.plan(change)
        opened = self.marking.sent(revision, "", len(messages))
        for message in messages[:crash_after]:
            self.marking.acknowledge(opened, message.subject, self._store(message))
        self.published = self.desired = desired
        if mark := self.marking.earned():
            self._store(Outgoing("mark", encode_mark(mark), ROLLUP))

    def heartbeat(self) -> None:
        self._store(Outgoing("mark", encode_mark(self.marking.repeated()), ROLLUP))

    # a reader's requests

    def read(self, prefix: str) -> list[Stored]:
        return [message for message in self.stored if message.subject.startswith(prefix)]

    def catch_up(self, node: str) -> CatchUp:
        mark = self.read("mark")
        return CatchUp(
            fence=self.read("fence")[0].sequence,
            mark=self.marking.last if mark else None,
            mark_sequence=mark[0].sequence if mark else 0,
            programs=self.read(f"pod.{node}."),
        )

    def serve(self, view: NodeView, node: str) -> None:
        """Answer what *view* asks for, once."""
        if view.must_catch_up:
            view.caught_up(self.catch_up(node))
        for uid in sorted(view.unproven):
            found = self.read(f"pod.{node}.{uid}")
            view.fetched_program(uid, found[-1] if found else None)
        for identity, part in view.missing_parts():
            tail = f"set.{identity}." if part == EVERY_PART else f"set.{identity}.{part}"
            view.sets[identity].fetched(part, self.read(tail))
