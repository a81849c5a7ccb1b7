"""Writing a cluster's log as Kubelink would, briefly."""

from collections.abc import Sequence
from typing import Any

import msgspec

from schemas.events import (
    CLUSTER,
    EPOCH,
    KINDS,
    SYNC,
    ClusterInfo,
    EpochStart,
    Event,
    EventType,
    encode_event,
    encode_object,
)
from schemas.objects import TYPES
from streams.log import Entry, Log

OBSERVED = "2026-01-02T03:04:05.000006Z"


class Writer:
    """Appends events of one epoch."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.epoch = -1

    async def begin(self, kinds: Sequence[str] = KINDS) -> None:
        start = EpochStart(kinds=tuple(kinds), writer="test")
        (self.epoch,) = await self.log.append([self._entry(EPOCH, "", "-", encode_object(start))])

    async def sync(self, kinds: Sequence[str] = KINDS) -> None:
        await self.log.append([self._entry(SYNC, "", kind, b"{}") for kind in kinds])

    async def cluster(self, version: str) -> None:
        await self.log.append([self._entry(CLUSTER, "", "-", encode_object(ClusterInfo(version=version)))])

    async def put(self, *objects: dict[str, Any]) -> int:
        """Append an event per object (``kind`` and the API's own fields); return the last revision."""
        return (await self.log.append([self._object(entry, EventType.MODIFIED) for entry in objects]))[-1]

    async def delete(self, *objects: dict[str, Any]) -> int:
        entries = []
        for document in objects:
            entry = self._object(document, EventType.DELETED)
            entries += [entry, Entry(entry.key, None)]
        return (await self.log.append(entries))[-1]

    def _object(self, document: dict[str, Any], type_: EventType) -> Entry:
        kind, meta = document["kind"], document["metadata"]
        uid = meta.setdefault("uid", f"uid-{kind}-{meta.get('namespace', '')}-{meta['name']}".lower())
        projected = encode_object(msgspec.convert(document, TYPES[kind]) if kind != "NetworkPolicy" else document)
        return self._entry(
            kind,
            meta.get("namespace", ""),
            meta["name"],
            projected,
            uid=uid,
            type_=type_,
            version=meta.get("resourceVersion", ""),
        )

    def _entry(
        self,
        kind: str,
        namespace: str,
        name: str,
        body: bytes,
        *,
        uid: str = "",
        type_: EventType = EventType.ADDED,
        version: str = "",
    ) -> Entry:
        event = Event(
            type=type_, kind=kind, namespace=namespace, name=name, uid=uid, resource_version=version,
            observed_at=OBSERVED, epoch=self.epoch, object=msgspec.Raw(body),
        )  # fmt: skip
        return Entry(event.key, encode_event(event))


def namespace(name: str, **labels: str) -> dict[str, Any]:
    return {"kind": "Namespace", "metadata": {"name": name, "labels": labels}, "status": {"phase": "Active"}}


def node(name: str, address: str) -> dict[str, Any]:
    return {
        "kind": "Node",
        "metadata": {"name": name},
        "status": {
            "addresses": [{"type": "InternalIP", "address": address}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    }


def pod(name: str, address: str, space: str = "shop", on: str = "n1", **labels: str) -> dict[str, Any]:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": space, "labels": labels},
        "spec": {"nodeName": on, "containers": [{"name": "app", "image": "app:1"}]},
        "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
    }


def service(name: str, address: str, *endpoints: str, space: str = "shop") -> list[dict[str, Any]]:
    """A Service and its one slice; port 80 of every endpoint."""
    labels = {"kubernetes.io/service-name": name}
    return [
        {
            "kind": "Service",
            "metadata": {"name": name, "namespace": space},
            "spec": {"clusterIP": address, "clusterIPs": [address], "ports": [{"port": 80}]},
        },
        {
            "kind": "EndpointSlice",
            "metadata": {"name": f"{name}-1", "namespace": space, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [endpoint]} for endpoint in endpoints],
            "ports": [{"port": 80}],
        },
    ]


def allow(name: str, to: dict[str, str], peer: dict[str, str], space: str = "shop") -> dict[str, Any]:
    return {
        "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": space},
        "spec": {
            "podSelector": {"matchLabels": to},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": peer}}], "ports": [{"port": 80}]}],
        },
    }
