"""What counts in the log, and what is made of it."""

import msgspec

from processors.core.reading import Batch, Reader
from schemas.events import EPOCH, SYNC, EpochStart, Event, EventType, encode_event, encode_object
from streams.log import Record


def record(offset: int, key: str, value: bytes | None) -> Record:
    return Record(offset, 0, key, value)


def epoch(offset: int, *kinds: str) -> Record:
    start = msgspec.Raw(encode_object(EpochStart(kinds=kinds, writer="test")))
    return record(offset, "Epoch/-/-", encode_event(Event(type=EventType.ADDED, kind=EPOCH, name="-", object=start)))


def sync(offset: int, kind: str, written_in: int) -> Record:
    event = Event(type=EventType.ADDED, kind=SYNC, name=kind, epoch=written_in)
    return record(offset, event.key, encode_event(event))


def namespace(offset: int, written_in: int, *, uid: str = "1", type_: EventType = EventType.ADDED) -> Record:
    found = msgspec.Raw(b'{"metadata":{"name":"shop","uid":"%s"}}' % uid.encode())
    event = Event(type=type_, kind="Namespace", name="shop", uid=uid, epoch=written_in, object=found)
    return record(offset, event.key, encode_event(event))


TOMBSTONE_KEY = "Namespace/-/shop"


def said(batch: Batch) -> list[tuple[str, str, bool]]:
    """Name, uid and existence, fact by fact."""
    return [(fact.name, fact.uid, fact.object is not None) for fact in batch.facts]


def test_a_record_of_a_replaced_writer_does_not_count() -> None:
    reader = Reader()
    assert said(reader.read([epoch(0), epoch(1), namespace(2, 0)])) == []
    assert said(reader.read([namespace(3, 1)])) == [("shop", "1", True)]


def test_a_deletion_and_its_tombstone_are_one_deletion() -> None:
    reader = Reader()
    deletion = namespace(2, 0, type_=EventType.DELETED)
    tombstone = record(3, TOMBSTONE_KEY, None)
    assert said(reader.read([epoch(0), namespace(1, 0), deletion, tombstone, deletion, tombstone])) == [
        ("shop", "1", True),
        ("shop", "1", False),
    ]


def test_a_tombstone_whose_deletion_was_compacted_away_deletes() -> None:
    reader = Reader()
    assert said(reader.read([epoch(0), namespace(1, 0), record(9, TOMBSTONE_KEY, None)]))[-1] == ("shop", "1", False)


def test_the_tombstone_of_a_replaced_writer_does_not_count_either() -> None:
    reader = Reader()
    reader.read([epoch(0), epoch(1), namespace(2, 1)])
    stale = [namespace(3, 0, type_=EventType.DELETED), record(4, TOMBSTONE_KEY, None)]
    assert said(reader.read(stale)) == []
    assert said(reader.read([namespace(5, 1), record(6, TOMBSTONE_KEY, None)]))[-1] == ("shop", "1", False)


def test_the_same_name_with_another_uid_is_another_object() -> None:
    reader = Reader()
    assert said(reader.read([epoch(0), namespace(1, 0), namespace(2, 0, uid="2")])) == [
        ("shop", "1", True),
        ("shop", "1", False),
        ("shop", "2", True),
    ]


def test_what_cannot_be_read_is_named_and_stops_nothing() -> None:
    reader = Reader()
    torn = record(1, TOMBSTONE_KEY, b'{"type":"ADD')
    batch = reader.read([epoch(0), torn, namespace(2, 0)])
    assert [(item.offset, item.key) for item in batch.poison] == [(1, TOMBSTONE_KEY)]
    assert batch.poison[0].reason
    assert said(batch) == [("shop", "1", True)]


def test_a_record_nested_beyond_reason_is_named_like_any_other() -> None:
    reader = Reader()
    deep = b'{"type":"ADDED","kind":"Pod","name":"p","epoch":0,"object":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    batch = reader.read([epoch(0), record(1, "Pod/shop/p", deep), namespace(2, 0)])
    assert [item.key for item in batch.poison] == ["Pod/shop/p"]
    assert said(batch) == [("shop", "1", True)]


def test_an_object_of_the_wrong_shape_is_named_with_its_field() -> None:
    reader = Reader()
    event = Event(type=EventType.ADDED, kind="Pod", name="p", object=msgspec.Raw(b'{"metadata":{"name":7}}'), epoch=0)
    batch = reader.read([epoch(0), record(1, event.key, encode_event(event))])
    assert "metadata.name" in batch.poison[0].reason


def test_a_kind_of_a_later_version_is_passed_over() -> None:
    reader = Reader()
    event = Event(type=EventType.ADDED, kind="RuleSet", name="r", epoch=0)
    batch = reader.read([epoch(0), record(1, event.key, encode_event(event))])
    assert batch.facts == ()
    assert batch.poison == ()


def test_the_log_is_complete_when_every_named_kind_was_listed_in_the_current_epoch() -> None:
    reader = Reader()
    assert not reader.complete
    reader.read([epoch(0, "Pod", "Node"), sync(1, "Pod", 0)])
    assert not reader.complete
    reader.read([sync(2, "Node", 0)])
    assert reader.complete
    reader.read([epoch(3, "Pod"), sync(4, "Pod", 0)])
    assert not reader.complete
    assert reader.read([sync(5, "Pod", 3)]).revision == 5
    assert reader.complete
