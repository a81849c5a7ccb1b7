"""What a reader of the events topic knows: a fold written independently of Kubelink's own."""

from typing import Any

import msgspec

from schemas.events import EPOCH, SYNC, Epochs, Event, EventType, decode_event
from streams.log import Log, Record


async def records(log: Log) -> list[Record]:
    return [record async for batch in log.read(0) for record in batch]


async def history(log: Log) -> list[Event]:
    """Every readable event, in order."""
    return [decode_event(record.value) for record in await records(log) if record.value is not None]


async def known(log: Log) -> dict[str, Any]:
    """Key → projected object, as every reader must come to it."""
    state, _ = fold(await records(log))
    return state


def fold(stored: list[Record]) -> tuple[dict[str, Any], Epochs]:
    epochs, state = Epochs(), {}
    for record in stored:
        if record.value is None:
            continue
        try:
            event = decode_event(record.value)
        except msgspec.MsgspecError:
            continue
        if not epochs.admit(record.offset, event) or event.kind in (EPOCH, SYNC):
            continue
        if event.type is EventType.DELETED:
            state.pop(record.key, None)
        else:
            state[record.key] = {**msgspec.json.decode(event.object), "uid": event.uid}
    return state, epochs


def compacted(stored: list[Record]) -> list[Record]:
    """What Kafka's cleaner leaves in the end: the newest record per key, without tombstones."""
    newest = {record.key: record for record in stored}
    return sorted((record for record in newest.values() if record.value is not None), key=lambda record: record.offset)
