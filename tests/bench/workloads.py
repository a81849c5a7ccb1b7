"""The clusters of the bench (`docs/performance.md`), as objects and as logs. The same seed gives the same cluster."""

import random
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from processors.core.reading import Fact, Reader
from schemas.events import EPOCH, KINDS, SYNC, EpochStart, Event, EventType, encode_event, encode_object
from schemas.objects import KubernetesObject, Labels, Meta, Namespace, NetworkPolicy, Pod, PodIP, PodSpec, PodStatus
from streams.log import Entry, Record

SEED: Final = 20
NODES: Final = 100
OBSERVED: Final = "2026-01-01T00:00:00.000000Z"

Objects = Iterator[KubernetesObject]


# --- clusters --------------------------------------------------------------------------------------------------------


def small(spaces: int) -> Objects:
    """*spaces* namespaces; each denies by default, and two labels of two Pods each may talk among themselves."""
    for number in range(spaces):
        name = f"ns-{number}"
        yield namespace(name, app=name)
        yield policy(name, "default-deny", {})
        for scale in (1, 2):
            labels = {f"app-{scale}": f"scale-{scale}"}
            yield policy(name, f"np-{scale}", labels, peer(labels))
            for index in range(2):
                yield pod(name, f"pod-{scale}-{index}", number * 4 + scale * 2 - 2 + index, labels)


def large(spaces: int, scales: int = 100) -> Objects:
    """*spaces* namespaces; each denies by default, and *scales* labels of 10 Pods each may talk among themselves."""
    for number in range(spaces):
        name = f"ns-{number}"
        yield namespace(name, app=name)
        yield policy(name, "default-deny", {})
        for scale in range(scales):
            labels = {f"app-{scale}": f"scale-{scale}"}
            yield policy(name, f"np-{scale}", labels, peer(labels))
            for index in range(10):
                yield pod(name, f"pod-{scale}-{index}", (number * scales + scale) * 10 + index, labels)


def per_pod(pods: int, seed: int = SEED) -> Objects:
    """Pairs of Pods with random labels a and b, each with a policy of its own: a from b, and b from a."""
    dice = random.Random(seed)
    yield namespace("pairs")
    for pair in range(pods // 2):
        ends = [{"one": f"{dice.getrandbits(64):x}"} for _ in range(2)]
        for index, (own, other) in enumerate((ends, ends[::-1])):
            yield pod("pairs", f"pod-{pair}-{index}", 2 * pair + index, own)
            yield policy("pairs", f"np-{pair}-{index}", own, peer(other))


def cluster(spaces: int, companies: int, scales: int = 10) -> Objects:
    """*spaces* namespaces of *companies* companies; per namespace *scales* labels of 10 Pods each, and as many policies
    that admit the same label from all namespaces of the same company."""
    for number in range(spaces):
        name, company = f"ns-{number}", f"company-{number % companies}"
        yield namespace(name, company=company)
        for scale in range(scales):
            labels = {"app": f"scale-{scale}"}
            yield policy(name, f"np-{scale}", labels, peer(labels, {"company": company}))
            for index in range(10):
                yield pod(name, f"pod-{scale}-{index}", (number * scales + scale) * 10 + index, labels)


def unrelated(selectors: int) -> Objects:
    """*selectors* policies in a namespace where no Pod has any of the labels that they ask for."""
    yield namespace("unrelated")
    for number in range(selectors):
        labels = {"unrelated": f"value-{number}"}
        yield policy("unrelated", f"np-{number}", labels, peer(labels, {}))


# --- objects ---------------------------------------------------------------------------------------------------------


def namespace(name: str, **labels: str) -> Namespace:
    return Namespace(
        metadata=Meta(name=name, uid=f"uid-{name}", labels={"kubernetes.io/metadata.name": name, **labels})
    )


def pod(space: str, name: str, number: int, labels: Labels, *, node: str = "") -> Pod:
    """A running Pod whose address follows from *number*."""
    return Pod(
        metadata=Meta(name=name, namespace=space, uid=f"uid-{space}-{name}", labels=labels),
        spec=PodSpec(node_name=node or f"node-{number % NODES}"),
        status=running(address(number)),
    )


def running(at: str) -> PodStatus:
    return PodStatus(phase="Running", pod_ip=at, pod_ips=(PodIP(ip=at),))


def address(number: int) -> str:
    """One of 2²⁴ addresses of 10.0.0.0/8."""
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def policy(space: str, name: str, subject: Labels, *peers: dict[str, Any]) -> NetworkPolicy:
    """Ingress to whom *subject* selects, from *peers* on any port."""
    rules = [{"from": list(peers)}] if peers else []
    spec = {"podSelector": {"matchLabels": subject}, "policyTypes": ["Ingress"], "ingress": rules}
    return NetworkPolicy(
        metadata=Meta(name=name, namespace=space, uid=f"uid-{space}-{name}"),
        spec=msgspec.Raw(msgspec.json.encode(spec)),
    )


def peer(labels: Labels, spaces: Labels | None = None) -> dict[str, Any]:
    """Pods with *labels*, in the policy's own namespace or in those with the labels *spaces*."""
    found: dict[str, Any] = {"podSelector": {"matchLabels": labels}}
    if spaces is not None:
        found["namespaceSelector"] = {"matchLabels": spaces}
    return found


# --- logs ------------------------------------------------------------------------------------------------------------


def entry(item: KubernetesObject, epoch: int = 0, at: str = OBSERVED) -> Entry:
    """The event of *item*, as Kubelink writes it."""
    meta = item.metadata
    return _entry(type(item).__name__, meta.namespace, meta.name, encode_object(item), epoch, uid=meta.uid, at=at)


def entries(objects: Iterable[KubernetesObject]) -> list[Entry]:
    """A whole log, from its beginning: one epoch with everything listed in the order of `KINDS`."""
    start = EpochStart(kinds=KINDS, writer="bench")
    listed = sorted(objects, key=lambda item: KINDS.index(type(item).__name__))
    return [
        _entry(EPOCH, "", "-", encode_object(start), -1),
        *map(entry, listed),
        *(_entry(SYNC, "", kind, b"{}", 0) for kind in KINDS),
    ]


def _entry(kind: str, space: str, name: str, body: bytes, epoch: int, *, uid: str = "", at: str = OBSERVED) -> Entry:
    event = Event(
        type=EventType.ADDED, kind=kind, namespace=space, name=name, uid=uid, observed_at=at, epoch=epoch,
        object=msgspec.Raw(body),
    )  # fmt: skip
    return Entry(event.key, encode_event(event))


def records(written: Iterable[Entry]) -> list[Record]:
    """*written* as a log yields it, from offset 0 on."""
    return [Record(offset, 0, each.key, each.value) for offset, each in enumerate(written)]


def fact(item: KubernetesObject, offset: int = 1 << 30) -> Fact:
    """*item* as a fold takes it."""
    meta = item.metadata
    return Fact(type(item).__name__, meta.namespace, meta.name, meta.uid, item, offset)


def facts(written: Iterable[Record]) -> tuple[Fact, ...]:
    """All that *written* says."""
    return Reader().read(written).facts
