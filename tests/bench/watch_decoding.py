"""Rows of Kubelink's way in: decoding a watch line, and ingesting a stream over HTTP."""

import asyncio
import contextlib
import json
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import kubernetes_asyncio
import msgspec
import uvloop

from producers.api_connection import Access, ApiConnection
from producers.api_server_source import CHUNK_BYTES
from producers.core.decoding import decode_line
from producers.core.lines import LineSplitter
from producers.core.watching import Watch
from tests.bench.measuring import Figure, at_least, best_of

LINE_BYTES = 9_900


def pod_line(size: int = LINE_BYTES) -> bytes:
    """A watch line of a Pod of the usual shape: managed fields and containers are most of it."""
    fields = {f"f:part-{number}": {"f:name": {}, "f:value": {}} for number in range(110)}
    container = {
        "name": "web",
        "image": "registry.example/web:1.2.3",
        "command": ["/bin/web"],
        "env": [{"name": f"VARIABLE_{number}", "value": "value"} for number in range(10)],
        "ports": [{"name": "http", "containerPort": 8080, "protocol": "TCP"}],
        "resources": {"limits": {"cpu": "1", "memory": "1Gi"}},
        "volumeMounts": [{"name": "token", "mountPath": "/var/run/secrets/token", "readOnly": True}],
    }
    state = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
    conditions = [
        {"type": name, "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        for name in ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    ]
    item: dict[str, Any] = {
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": "web-5d8c7b9f4-abcde",
            "namespace": "shop",
            "uid": "12345678-1234-1234-1234-123456789abc",
            "resourceVersion": "1234567",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d8c7b9f4"},
            "ownerReferences": [
                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "u", "controller": True}
            ],
            "managedFields": [{"manager": "kubelet", "operation": "Update", "fieldsV1": fields}],
            "annotations": {"padding": ""},
        },
        "spec": {
            "nodeName": "node-1",
            "containers": [container, {**container, "name": "sidecar"}],
            "volumes": [{"name": "token", "projected": {"sources": []}}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "hostIP": "192.168.0.1",
            "conditions": conditions,
            "containerStatuses": [
                {"name": name, "image": "web", "imageID": "sha256:0", "ready": True, "restartCount": 0, "state": state}
                for name in ("web", "sidecar")
            ],
        },
    }
    line = json.dumps({"type": "MODIFIED", "object": item}, separators=(",", ":"))
    item["metadata"]["annotations"]["padding"] = "x" * max(0, size - len(line))
    return json.dumps({"type": "MODIFIED", "object": item}, separators=(",", ":")).encode()


def decode_seconds() -> float:
    """One 9.9 kB Pod event into a struct."""
    line = pod_line()
    return best_of(lambda: decode_line("Pod", line))


def decode_seconds_kubernetes_asyncio() -> float:
    """The same event into ``V1Pod``, as its watch does it."""
    line = pod_line()

    class Response:
        def __init__(self, data: bytes) -> None:
            self.data = data

    client = kubernetes_asyncio.client.ApiClient.__new__(kubernetes_asyncio.client.ApiClient)
    client.configuration = kubernetes_asyncio.client.Configuration()

    def action() -> object:
        return client.deserialize(Response(json.dumps(json.loads(line)["object"]).encode()), "V1Pod")

    return best_of(action, repeats=3, times=30)


@asynccontextmanager
async def watch_server(events: int) -> AsyncIterator[str]:
    """A process on the loopback that answers every request with *events* watch lines; its URL."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.bench.watch_decoding", str(events), stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()
        await process.wait()


async def _serve(events: int) -> None:
    body = (pod_line() + b"\n") * 100
    chunk = b"%x\r\n%s\r\n" % (len(body), body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(head)
                for _ in range(events // 100):
                    writer.write(chunk)
                    await writer.drain()
                writer.write(b"0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


async def ingest_seconds(url: str) -> tuple[int, float]:
    """Events of one watch on *url* into observations, and how long that took."""
    watch, splitter, events = Watch("Pod"), LineSplitter(), 0
    watch.version = "1"
    async with ApiConnection(Access(url=url)) as api:
        started = time.perf_counter()
        async with api.get("/api/v1/pods", (("watch", "1"),)) as response:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                if lines := splitter.feed(chunk):
                    events += len(watch.lines(lines))
        return events, time.perf_counter() - started


async def ingest_seconds_kubernetes_asyncio(url: str) -> tuple[int, float]:
    """The same by ``watch.Watch`` with models."""
    configuration = kubernetes_asyncio.client.Configuration()
    configuration.host = url
    events = 0
    async with kubernetes_asyncio.client.ApiClient(configuration) as client:
        watch = kubernetes_asyncio.watch.Watch()
        started = time.perf_counter()
        stream = watch.stream(
            kubernetes_asyncio.client.CoreV1Api(client).list_pod_for_all_namespaces, timeout_seconds=1
        )
        async for _ in stream:
            events += 1
            if events >= 500:
                break
        seconds = time.perf_counter() - started
        await watch.close()
        return events, seconds


async def drain_seconds(url: str) -> tuple[int, float]:
    """The limit: the same bytes, looked at by nobody."""
    async with ApiConnection(Access(url=url)) as api:
        received, started = 0, time.perf_counter()
        async with api.get("/api/v1/pods", (("watch", "1"),)) as response:
            async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                received += len(chunk)
        return received // (len(pod_line()) + 1), time.perf_counter() - started


def decode(_scale: float) -> list[Figure]:
    """One 9.9 kB Pod event into a struct. The limit reads the line's type and skips the rest. Ratio: times the speed of
    kubernetes_asyncio's ``V1Pod``."""
    line = pod_line()
    skip = msgspec.json.Decoder(_Skipped).decode
    ours, limit, other = decode_seconds(), best_of(lambda: skip(line)), decode_seconds_kubernetes_asyncio()
    return [
        Figure(
            row="decode", unit="µs", ours=ours * 1e6, limit=limit * 1e6, alternative=other * 1e6,
            alternative_name="kubernetes_asyncio V1Pod", ratio=other / ours,
            goal="≥ 130 times the alternative, ≤ 8 µs", holds=other >= 130 * ours and ours <= 8e-6,
        )
    ]  # fmt: skip


def ingest(scale: float) -> list[Figure]:
    """A watch of 9.9 kB Pod events over HTTP into observations, in one process. The limit receives the bytes and looks
    at none. Ratio: times the events per second of kubernetes_asyncio's watch with models."""
    return uvloop.run(_ingest(at_least(200 * scale) * 100))


async def _ingest(events: int) -> list[Figure]:
    async with watch_server(events) as url:
        limit, ours, other = [
            received / seconds
            for received, seconds in [
                max([await measure(url) for _ in range(3)], key=lambda run: run[0] / run[1])
                for measure in (drain_seconds, ingest_seconds, ingest_seconds_kubernetes_asyncio)
            ]
        ]
    return [
        Figure(
            row="ingest", unit="events/s", ours=ours, limit=limit, alternative=other,
            alternative_name="kubernetes_asyncio watch", ratio=ours / other,
            goal="≥ 60,000 events/s", holds=ours >= 60_000,
        )
    ]  # fmt: skip


class _Skipped(msgspec.Struct):
    type: str


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1])))
