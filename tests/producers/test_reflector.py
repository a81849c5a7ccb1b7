"""What is written: what differs and nothing else, whatever happened before."""

from collections.abc import Callable
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from producers.core.entries import Scribe, epoch_entry
from producers.core.ledger import Ledger
from producers.core.observations import ListBegun, ListComplete, Observation, Observed, Unreadable
from producers.core.reflector import Reflector
from schemas.events import EpochStart, Event, EventType, decode_event
from schemas.objects import Meta, Pod, PodStatus
from streams.log import Entry, Record
from tests.producers.reading import compacted, fold

NOW = "2026-01-01T00:00:00.000000Z"


def a_pod(name: str, uid: str = "u1", address: str = "", version: str = "1") -> Pod:
    meta = Meta(name=name, namespace="shop", uid=uid, resource_version=version)
    return Pod(metadata=meta, status=PodStatus(pod_ip=address))


def added(item: Pod) -> Observed[Any]:
    return Observed(EventType.ADDED, item)


def deleted(item: Pod) -> Observed[Any]:
    return Observed(EventType.DELETED, item)


class Topic:
    """An events topic in memory, and writers of it."""

    def __init__(self) -> None:
        self.records: list[Record] = []

    def append(self, entries: list[Entry]) -> int:
        first = len(self.records)
        for offset, entry in enumerate(entries, first):
            self.records.append(Record(offset, offset, entry.key, entry.value, entry.headers))
        return first

    def begin(self, limit: int = 1 << 20) -> "Writer":
        """As a Kubelink begins: an epoch, a fold of everything."""
        epoch = self.append([epoch_entry("test", EpochStart(kinds=("Pod",), writer="w"), NOW)])
        ledger = Ledger()
        for record in self.records:
            ledger.fold(record)
        return Writer(self, Reflector(ledger, Scribe("test", epoch), max_entry_bytes=limit))


class Writer:
    def __init__(self, topic: Topic, reflector: Reflector) -> None:
        self.topic = topic
        self.reflector = reflector

    def write(self, *observations: Observation) -> list[Event | None]:
        """Append what they lead to; return it, ``None`` for a tombstone."""
        entries = self.reflector.reflect(observations, NOW)
        self.topic.append(entries)
        return [None if entry.value is None else decode_event(entry.value) for entry in entries]

    def lists(self, *items: Pod) -> list[Event | None]:
        return self.write(ListBegun("Pod"), *map(added, items), ListComplete("Pod"))

    def look(self, since: int) -> list[Event | None]:
        """Fold what others appended from offset *since* on, and mend."""
        for record in self.topic.records[since:]:
            self.reflector.ledger.fold(record)
        entries = self.reflector.mend(NOW)
        self.topic.append(entries)
        return [None if entry.value is None else decode_event(entry.value) for entry in entries]


def kinds(events: list[Event | None]) -> list[str]:
    return ["tombstone" if event is None else f"{event.type.value} {event.kind}/{event.name}" for event in events]


def test_a_first_list_is_added_and_marked_complete():
    assert kinds(Topic().begin().lists(a_pod("a"))) == ["ADDED Pod/a", "ADDED Sync/Pod"]


def test_the_same_again_is_no_event_even_with_another_version():
    writer = Topic().begin()
    writer.lists(a_pod("a"))
    assert writer.write(added(a_pod("a", version="2"))) == []
    assert writer.lists(a_pod("a", version="3")) == []


def test_a_restart_writes_only_its_epoch_and_its_marks():
    topic = Topic()
    topic.begin().lists(a_pod("a"), a_pod("b"))
    assert kinds(topic.begin().lists(a_pod("a"), a_pod("b"))) == ["MODIFIED Sync/Pod"]


def test_what_a_list_does_not_tell_is_deleted_with_its_last_state():
    topic = Topic()
    topic.begin().lists(a_pod("a"), a_pod("b", address="10.0.0.9"))
    written = topic.begin().lists(a_pod("a"))
    assert kinds(written) == ["DELETED Pod/b", "tombstone", "MODIFIED Sync/Pod"]
    assert written[0] is not None
    assert msgspec.json.decode(written[0].object)["status"] == {"podIP": "10.0.0.9"}


def test_the_same_name_with_another_uid_is_a_deletion_and_an_addition():
    writer = Topic().begin()
    writer.lists(a_pod("a", uid="u1"))
    written = writer.write(Observed(EventType.MODIFIED, a_pod("a", uid="u2")))
    assert kinds(written) == ["DELETED Pod/a", "tombstone", "ADDED Pod/a"]
    assert [event.uid for event in written if event] == ["u1", "u2"]


def test_a_late_deletion_of_a_predecessor_leaves_its_successor_alone():
    writer = Topic().begin()
    writer.lists(a_pod("a", uid="u2"))
    assert writer.write(deleted(a_pod("a", uid="u1"))) == []


def test_an_unreadable_object_is_neither_changed_nor_deleted():
    topic = Topic()
    topic.begin().lists(a_pod("a"), a_pod("b"))
    writer = topic.begin()
    bad = Unreadable(kind="Pod", namespace="shop", name="b", reason="bad")
    assert kinds(writer.write(ListBegun("Pod"), added(a_pod("a")), bad, ListComplete("Pod"))) == ["MODIFIED Sync/Pod"]
    assert "bad" in writer.reflector.problems["Pod/shop/b"]
    writer.write(added(a_pod("b")))
    assert writer.reflector.problems == {}


def test_a_list_with_a_nameless_object_proves_no_deletion():
    topic = Topic()
    topic.begin().lists(a_pod("a"), a_pod("b"))
    writer = topic.begin()
    bad = Unreadable(kind="Pod", place="item 2", reason="bad")
    assert kinds(writer.write(ListBegun("Pod"), added(a_pod("a")), bad, ListComplete("Pod"))) == ["MODIFIED Sync/Pod"]
    assert kinds(writer.lists(a_pod("a"))) == ["DELETED Pod/b", "tombstone"]


def test_a_list_that_was_broken_off_proves_nothing():
    topic = Topic()
    topic.begin().lists(a_pod("a"), a_pod("b"))
    writer = topic.begin()
    assert writer.write(ListBegun("Pod"), added(a_pod("a"))) == []
    assert kinds(writer.lists(a_pod("a"), a_pod("b"))) == ["MODIFIED Sync/Pod"]


def test_an_object_above_the_limit_is_named_and_its_neighbours_are_written():
    writer = Topic().begin(limit=2000)
    huge = Pod(metadata=Meta(name="huge", namespace="shop", uid="u", labels={"x": "y" * 4000}))
    assert kinds(writer.lists(huge, a_pod("a"))) == ["ADDED Pod/a", "ADDED Sync/Pod"]
    assert "at most 2000" in writer.reflector.problems["Pod/shop/huge"]


def test_an_object_that_grew_above_the_limit_can_still_be_deleted():
    writer = Topic().begin(limit=2000)
    writer.lists(a_pod("a"))
    huge = Pod(metadata=Meta(name="a", namespace="shop", uid="u1", labels={"x": "y" * 4000}))
    assert writer.write(added(huge)) == []
    assert kinds(writer.write(deleted(huge))) == ["DELETED Pod/a", "tombstone"]
    assert writer.reflector.problems == {}


def test_a_corrupt_record_is_written_over_while_tailing_and_at_the_start():
    for restart in (False, True):
        topic = Topic()
        writer = topic.begin()
        writer.lists(a_pod("a"))
        since = topic.append([Entry("Pod/shop/a", b"\x00garbage")])
        written = topic.begin().lists(a_pod("a")) if restart else writer.look(since)
        assert kinds(written)[0] == "MODIFIED Pod/a"
        state, _ = fold(compacted(topic.records))
        assert set(state) == {"Pod/shop/a"}


def test_a_corrupt_record_about_something_that_does_not_exist_is_buried():
    topic = Topic()
    writer = topic.begin()
    writer.lists(a_pod("a"))
    since = topic.append([Entry("Pod/shop/ghost", b"\x00garbage")])
    assert kinds(writer.look(since)) == ["DELETED Pod/ghost", "tombstone"]
    assert kinds(writer.look(since + 1)) == []


def test_what_a_replaced_writer_wrote_late_is_written_over():
    topic = Topic()
    paused = topic.begin()
    paused.lists(a_pod("a", address="10.0.0.1"), a_pod("b"))
    writer = topic.begin()
    writer.lists(a_pod("a", address="10.0.0.2"), a_pod("b"))
    since = len(topic.records)
    paused.write(Observed(EventType.MODIFIED, a_pod("a", address="10.0.0.3")), deleted(a_pod("b")), added(a_pod("c")))
    written = writer.look(since)
    assert sorted(kinds(written)) == ["DELETED Pod/c", "MODIFIED Pod/a", "MODIFIED Pod/b", "tombstone"]
    for stored in (topic.records, compacted(topic.records)):
        state, epochs = fold(stored)
        assert {key: item.get("status") for key, item in state.items()} == {
            "Pod/shop/a": {"podIP": "10.0.0.2"},
            "Pod/shop/b": {},
        }
        assert epochs.complete


def test_a_mark_of_a_replaced_writer_does_not_hide_ours():
    topic = Topic()
    paused = topic.begin()
    topic.begin().lists()
    writer = topic.begin()
    writer.lists()
    since = len(topic.records)
    paused.lists()
    assert kinds(writer.look(since)) == ["MODIFIED Sync/Pod"]
    assert fold(compacted(topic.records))[1].complete


def test_a_deletion_that_lost_its_tombstone_gets_one():
    topic = Topic()
    writer = topic.begin()
    writer.lists(a_pod("a"))
    writer.write(deleted(a_pod("a")))
    topic.records.pop()  # as if the broker had died between the two
    assert kinds(topic.begin().lists()) == ["DELETED Pod/a", "tombstone", "MODIFIED Sync/Pod"]


# --- the law -----------------------------------------------------------------------------------------------------


class World:
    """A cluster, the Kubelink in charge, and everything that may go wrong around them."""

    def __init__(self) -> None:
        self.cluster: dict[str, Pod] = {}
        self.topic = Topic()
        self.zombie = self.topic.begin()
        self.zombie.lists(a_pod("a"), a_pod("b"))
        self.restarted()

    def restarted(self, _: object = None) -> None:
        self.writer = self.topic.begin()
        self.relisted()

    def relisted(self, _: object = None) -> None:
        self.writer.lists(*self.cluster.values())

    def list_broken_off(self, _: object = None) -> None:
        self.writer.write(ListBegun("Pod"), *map(added, list(self.cluster.values())[:1]))

    def changed(self, item: Pod) -> None:
        self.cluster[item.metadata.name] = item
        self.writer.write(Observed(EventType.MODIFIED, item))

    def removed(self, item: Pod) -> None:
        if (gone := self.cluster.pop(item.metadata.name, None)) is not None:
            self.writer.write(deleted(gone))

    def changed_unseen(self, item: Pod) -> None:
        self.cluster[item.metadata.name] = item

    def removed_unseen(self, item: Pod) -> None:
        self.cluster.pop(item.metadata.name, None)

    def changed_by_zombie(self, item: Pod) -> None:
        self._behind_our_back(lambda: self.zombie.write(added(item)))

    def removed_by_zombie(self, item: Pod) -> None:
        self._behind_our_back(lambda: self.zombie.write(deleted(item)))

    def corrupted(self, item: Pod) -> None:
        self._behind_our_back(lambda: self.topic.append([Entry(f"Pod/shop/{item.metadata.name}", b"garbage")]))

    def mark_corrupted(self, _: object = None) -> None:
        self._behind_our_back(lambda: self.topic.append([Entry("Sync/-/Pod", b"garbage")]))

    def _behind_our_back(self, action: Callable[[], object]) -> None:
        since = len(self.topic.records)
        action()
        self.writer.look(since)


PODS = st.builds(
    a_pod,
    st.sampled_from("abc"),
    uid=st.sampled_from(("u1", "u2")),
    address=st.sampled_from(("", "10.0.0.1", "10.0.0.2")),
)
STEPS = st.sampled_from([name for name in vars(World) if not name.startswith("_")])


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(STEPS, PODS), max_size=25))
def test_whatever_happened_the_log_ends_as_the_cluster_is_compacted_or_not(steps: list[tuple[str, Pod]]):
    world = World()
    for step, item in steps:
        getattr(world, step)(item)
    world.relisted()

    expected = {f"Pod/shop/{name}": (item.metadata.uid, item.status.pod_ip) for name, item in world.cluster.items()}
    for stored in (world.topic.records, compacted(world.topic.records)):
        state, epochs = fold(stored)
        found = {key: (item["uid"], item.get("status", {}).get("podIP", "")) for key, item in state.items()}
        assert found == expected
        assert epochs.complete
    assert world.writer.lists(*world.cluster.values()) == []  # and nothing is left to write
