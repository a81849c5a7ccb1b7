"""Logs as they may really be: stale writers, unreadable records, tombstones, objects replaced by namesakes."""

from dataclasses import dataclass

import msgspec
from hypothesis import strategies as st

from schemas.events import EPOCH, KINDS, SYNC, EpochStart, Event, EventType, encode_event, encode_object


@dataclass(frozen=True)
class Record:
    offset: int
    key: str
    value: bytes | None


def event(
    kind: str, name: str, epoch: int, body: object, *, uid: str = "", type_: EventType = EventType.ADDED
) -> tuple[str, bytes]:
    namespace = "" if kind in (EPOCH, SYNC) else "shop"
    found = Event(
        type=type_,
        kind=kind,
        namespace=namespace,
        name=name,
        uid=uid,
        epoch=epoch,
        object=msgspec.Raw(encode_object(body)),
    )
    return found.key, encode_event(found)


def pod(name: str, address: int, uid: str) -> dict[str, object]:
    return {
        "metadata": {"name": name, "namespace": "shop", "uid": uid, "labels": {"app": name}},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIP": f"10.0.0.{address}"},
    }


POLICY = {
    "metadata": {"name": "p", "namespace": "shop"},
    "spec": {"podSelector": {}, "ingress": [{"from": [{"podSelector": {}}]}]},
}

BAD_SELECTOR = {**POLICY, "spec": {"podSelector": {"matchLabels": 7}, "ingress": []}}

steps = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), st.sampled_from("ab"), st.integers(1, 3), st.sampled_from(["u1", "u2"]), st.booleans()
        ),
        st.tuples(st.just("delete"), st.sampled_from("ab"), st.booleans()),
        st.tuples(st.just("bury"), st.sampled_from("ab")),
        st.tuples(st.just("poison"), st.sampled_from("ab")),
        st.just(("policy",)),
        st.just(("bad selector",)),
        st.just(("no policy",)),
        st.just(("epoch",)),
        st.tuples(st.just("sync"), st.sampled_from(KINDS)),
    ),
    max_size=25,
)


def written(history: list[tuple[object, ...]]) -> list[Record]:
    """The records of *history*; a stale writer's carry the epoch before."""
    records: list[Record] = []
    epochs = [-1]

    def append(key: str, value: bytes | None) -> None:
        records.append(Record(2 * len(records), key, value))  # offsets may have gaps

    for name, *rest in [("epoch",), *history]:
        current = epochs[-1]
        match name:
            case "epoch":
                append(*event(EPOCH, "-", -1, EpochStart(kinds=KINDS, writer="t")))
                epochs.append(records[-1].offset)
            case "sync":
                append(*event(SYNC, rest[0], current, {}))
            case "put":
                pod_name, address, life, stale = rest
                uid = f"{pod_name}-{life}"  # never two Pods' at once
                append(*event("Pod", pod_name, epochs[-2] if stale else current, pod(pod_name, address, uid), uid=uid))
            case "delete":
                append(*event("Pod", rest[0], epochs[-2] if rest[1] else current, {}, type_=EventType.DELETED))
            case "bury":
                append(f"Pod/shop/{rest[0]}", None)
            case "poison":
                append(f"Pod/shop/{rest[0]}", b"{")
            case "no policy":
                append("NetworkPolicy/shop/p", None)
            case "bad selector":
                append(*event("NetworkPolicy", "p", current, BAD_SELECTOR))
            case "policy":
                append(*event("NetworkPolicy", "p", current, POLICY))
    return records
