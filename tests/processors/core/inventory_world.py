"""Facts in few words for the inventory fold, and what it makes of them."""

from collections.abc import Sequence

import msgspec

from processors.core.inventory_fold import InventoryFold
from processors.core.reading import Fact
from schemas.objects import decode_object
from schemas.programs import Mode
from schemas.reports import AnyReport


class Selected:
    """Policies by namespace, each of which selects every Pod of it."""

    def __init__(self, **policies: Sequence[str]) -> None:
        self.policies = policies
        self.problems: dict[str, tuple[str, ...]] = {}
        self.warnings: dict[str, tuple[str, ...]] = {}
        self.exposed: dict[tuple[str, str], tuple[str, ...]] = {}

    def selecting(self, namespace: str, pod: str) -> Sequence[str]:
        return self.policies.get(namespace, ())

    def exposing(self, namespace: str, pod: str) -> Sequence[str]:
        return self.exposed.get((namespace, pod), ())


def mode_of(namespace: str) -> Mode:
    return Mode.IDLE if namespace == "idle" else Mode.SELECTIVE


def new(segmenting: Selected | None = None) -> InventoryFold:
    return InventoryFold("test", segmenting or Selected(), mode_of)


def there(kind: str, name: str, namespace: str = "", **parts: object) -> Fact:
    uid = f"uid-{kind}-{namespace}-{name}"
    document = {"metadata": {"name": name, "namespace": namespace, "uid": uid} | parts.pop("metadata", {}), **parts}
    return Fact(kind, namespace, name, uid, decode_object(kind, msgspec.json.encode(document)), 0)


def gone(kind: str, name: str, namespace: str = "") -> Fact:
    return Fact(kind, namespace, name, f"uid-{kind}-{namespace}-{name}", None, 0)


def taken(fold: InventoryFold) -> dict[str, AnyReport | None]:
    changes = fold.take_changes()
    assert not fold.dirty
    return changes


def slice_of(service: str, name: str, *endpoints: dict[str, object]) -> Fact:
    return there(
        "EndpointSlice",
        name,
        "shop",
        metadata={"labels": {"kubernetes.io/service-name": service}},
        addressType="IPv4",
        endpoints=list(endpoints),
        ports=[{"name": "http", "port": 8080}],
    )


def endpoint(address: str, **conditions: bool) -> dict[str, object]:
    return {
        "addresses": [address],
        "conditions": conditions,
        "targetRef": {"kind": "Pod", "namespace": "shop", "name": address},
    }


def node(name: str, ready: str = "True", pod_range: str = "10.244.0.0/24") -> Fact:
    return there(
        "Node", name,
        spec={"podCIDR": pod_range, "podCIDRs": [pod_range]},
        status={
            "addresses": [{"type": "InternalIP", "address": "192.0.2.1"}],
            "conditions": [{"type": "Ready", "status": ready, "reason": "KubeletNotReady"}],
            "nodeInfo": {"machineID": "m", "kernelVersion": "6.1", "osImage": "Debian", "containerRuntimeVersion": "containerd://1.7",
                         "kubeletVersion": "v1.34.0"},
        },
    )  # fmt: skip


def settle(history: Sequence[Fact]) -> dict[str, AnyReport]:
    fold = new()
    fold.fold(history)
    return {key: report for key, report in taken(fold).items() if report is not None}
