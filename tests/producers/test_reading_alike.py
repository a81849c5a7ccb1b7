"""Kubelink's fold of its own topic and everybody else's reading of it are one rule, whatever compaction has left."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.core.reading import Reader
from producers.core.ledger import Ledger
from schemas.events import decode_event
from streams.log import Record
from tests.processors.core import messy_logs

STRAY = st.one_of(
    st.tuples(st.just("foreign key"), st.sampled_from("ab"), st.integers(1, 3)),
    st.tuples(st.just("bad object"), st.sampled_from("ab")),
    st.tuples(st.just("nested"), st.sampled_from("ab")),
)


def stray(step: tuple[Any, ...], epoch: int) -> tuple[str, bytes]:
    """A record that is JSON, and yet none of ours."""
    match step:
        case ("foreign key", name, address):
            _, value = messy_logs.event("Pod", name, epoch, messy_logs.pod(name, address, "u1"), uid="u1")
            return f"Pod/shop/{'b' if name == 'a' else 'a'}", value
        case ("bad object", name):
            return messy_logs.event("Pod", name, epoch, {"metadata": {"name": 7}}, uid="u1")
        case _:
            return f"Pod/shop/{step[1]}", b"[" * 50_000


def with_strays(clean: list[Any], strays: list[tuple[int, tuple[Any, ...]]]) -> list[Record]:
    """*clean*, with strays put in somewhere; each of the epoch that its place has."""
    entries = [(record.key, record.value) for record in clean]
    records: list[Record] = []
    for number, (key, value) in enumerate(entries):
        records.append(Record(2 * number, 0, key, value))
    epochs = [record.offset for record in records if record.key == "Epoch/-/-"]
    for number, (place, step) in enumerate(strays):
        offset = 2 * (place % len(entries)) + 1
        if all(record.offset != offset for record in records):
            epoch = max(epoch for epoch in epochs if epoch < offset)
            records.append(Record(offset, number, *stray(step, epoch)))
    return sorted(records, key=lambda record: record.offset)


def cleaned(records: list[Record], below: int, *, tombstones: bool) -> list[Record]:
    """What Kafka's cleaner leaves after it came to offset *below*: there the newest of each key, beyond it all."""
    old = {record.key: record for record in records if record.offset < below}
    kept = [record for record in old.values() if tombstones or record.value is not None]
    return [*sorted(kept, key=lambda record: record.offset), *(each for each in records if each.offset >= below)]


def folded(records: list[Record]) -> Ledger:
    ledger = Ledger()
    for record in records:
        ledger.fold(record)
    return ledger


def read(records: list[Record]) -> dict[str, tuple[str, int]]:
    """Key → uid and offset of what exists."""
    state = {}
    for fact in Reader().read(records).facts:
        if fact.object is None:
            state.pop(fact.key, None)
        else:
            state[fact.key] = (fact.uid, fact.offset)
    return state


@settings(max_examples=400, deadline=None)
@given(messy_logs.steps, st.lists(st.tuples(st.integers(0, 30), STRAY), max_size=4), st.integers(0, 60), st.booleans())
def test_what_kubelink_holds_for_sound_every_reader_knows_whatever_compaction_left(history, strays, below, tombstones):
    records = with_strays(messy_logs.written(history), strays)
    values = {record.offset: record.value for record in records}
    ledger = folded(records)
    for left in (records, cleaned(records, below, tombstones=tombstones)):
        known = read(left)
        for kind in ("Pod", "NetworkPolicy"):
            sound = (known.keys() | ledger.objects[kind].keys()) - ledger.unsound[kind]
            for key in (key for key in sound if key.startswith(f"{kind}/")):
                held = ledger.objects[kind].get(key)
                assert (held is not None) == (key in known), key
                if held is not None:
                    uid, offset = known[key]
                    value = values[offset]
                    assert value is not None
                    assert (held.uid, held.object) == (uid, bytes(decode_event(value).object))
