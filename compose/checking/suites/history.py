"""From a case to what a Kubelink would have written: one log entry per change, each the whole truth of its object.

The API server's part is played here: uids, resource versions that only rise, labels changed on what exists, the last
state on deletions, and a node for every Pod that names none.
"""

import copy
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from compose.checking.suites.cases import NODES, Action, Case, Object
from schemas import names
from schemas.events import EPOCH, KINDS, SYNC, EpochStart, Event, EventType, encode_event, encode_object
from schemas.objects import decode_object
from streams.log import Entry

NODE_ADDRESSES: Final = {"node-1": "172.18.0.2", "node-2": "172.18.0.3"}
"""Of the nodes that a case does not describe itself."""
INSTANT: Final = "2026-01-01T00:00:{:09.6f}Z"
"""Cases have no clock: the n-th change happens n microseconds after this minute began."""


class History:
    """Plays one case, step by step.

    Entries must be appended in order. The first is the epoch's beginning; the offset it gets is the *epoch* of all
    others, set before they are made.
    """

    def __init__(self, case: Case) -> None:
        self.case = case
        self.epoch = 0
        self.objects: dict[str, Object] = {}
        """What exists now, by log key, as plain data."""
        self._changes = 0

    def opening(self) -> Entry:
        """The record that begins the epoch."""
        start = EpochStart(kinds=KINDS, writer="check")
        event = Event(type=EventType.ADDED, kind=EPOCH, name="-", object=msgspec.Raw(encode_object(start)))
        return Entry(event.key, encode_event(event))

    def initial(self) -> list[Entry]:
        """What exists before the first step, then a sign per kind that its list is complete."""
        entries = self.entries(Action("create", item) for item in (*implied_nodes(self.case), *self.case.initial))
        for kind in KINDS:
            event = Event(type=EventType.ADDED, kind=SYNC, name=kind, epoch=self.epoch)
            entries.append(Entry(event.key, encode_event(event)))
        return entries

    def entries(self, actions: Iterable[Action]) -> list[Entry]:
        """What *actions* put into the log. Raises `ValueError` for one that cannot be played."""
        found: list[Entry] = []
        for action in actions:
            key = _key(action.object)
            if action.verb == "delete":
                last = self.objects.pop(key, None)
                if last is None:
                    raise ValueError(f"{key}: cannot be deleted, since it does not exist")
                found += (self._entry(EventType.DELETED, last), Entry(key, None))
                continue
            new = self._completed(action.object)
            kind = EventType.MODIFIED if key in self.objects else EventType.ADDED
            self.objects[key] = new
            found.append(self._entry(kind, new))
        return found

    def _completed(self, given: Object) -> Object:
        """*given* with what an API server and a scheduler would add."""
        new = copy.deepcopy(given)
        before = self.objects.get(_key(given))
        self._changes += 1
        meta = new["metadata"]
        meta.setdefault("uid", before["metadata"]["uid"] if before else f"uid-{self._changes}")
        meta["resourceVersion"] = str(self._changes)
        if new["kind"] == "Pod":
            spec = new.setdefault("spec", {})
            if before:
                spec.setdefault("nodeName", before["spec"]["nodeName"])
            elif "nodeName" not in spec:
                pods = sum(item["kind"] == "Pod" for item in self.objects.values())
                spec["nodeName"] = self._host(new) or NODES[pods % len(NODES)]
        return new

    def _host(self, pod: Object) -> str:
        """The node whose address a Pod on the host's network has."""
        if not pod["spec"].get("hostNetwork"):
            return ""
        address = pod.get("status", {}).get("podIP")
        for item in self.objects.values():
            if item["kind"] == "Node" and address in {entry["address"] for entry in item["status"]["addresses"]}:
                return str(item["metadata"]["name"])
        return ""

    def _entry(self, kind: EventType, found: Object) -> Entry:
        self._changes += 1
        meta = found["metadata"]
        projected = decode_object(found["kind"], msgspec.json.encode(found))
        event = Event(
            type=kind,
            kind=found["kind"],
            namespace=meta.get("namespace", ""),
            name=meta["name"],
            uid=meta["uid"],
            resource_version=meta["resourceVersion"],
            observed_at=INSTANT.format(self._changes / 1_000_000),
            epoch=self.epoch,
            object=msgspec.Raw(encode_object(projected)),
        )
        return Entry(event.key, encode_event(event))


def implied_nodes(case: Case) -> list[Object]:
    """The nodes that *case* takes for granted."""
    given = {_key(item) for item in case.initial}
    nodes = [_node(name, address) for name, address in NODE_ADDRESSES.items()]
    return [node for node in nodes if _key(node) not in given]


def _key(found: dict[str, Any]) -> str:
    meta = found["metadata"]
    return names.key(found["kind"], meta.get("namespace", ""), meta["name"])


def _node(name: str, address: str) -> Object:
    return {
        "kind": "Node",
        "metadata": {"name": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address}]},
    }
