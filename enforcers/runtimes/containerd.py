"""containerd's own word of what it does: sooner than its CRI, which lists a sandbox only once its process runs.

    Events/Subscribe ─▶ a container was created, or updated ─▶ Containers/Get ─▶ a sandbox's: namespace and addresses

containerd creates a sandbox's container first, has the network made, and writes the addresses to it some 30 ms later;
it is another 200 ms until the sandbox's process runs and is listed, and some 100 more until the first container does.
What its CRI part knows of the sandbox it keeps with that container, as JSON: that is read here, and where it cannot be,
nothing is lost but time.

containerd's own events serve any number of listeners. CRI's `GetContainerEvents` has one queue for all who ask, so we
would take events away from the kubelet: it is never called.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from enforcers.runtimes.calls import AWAY, Calls, RuntimeUnavailable
from enforcers.runtimes.messages import message_type
from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from streams.backoff import Backoff

SUBSCRIBE: Final = "/containerd.services.events.v1.Events/Subscribe"
GET: Final = "/containerd.services.containers.v1.Containers/Get"
NAMESPACE: Final = "k8s.io"
"""containerd's, of what the kubelet asks for."""
METADATA: Final = {"containerd-namespace": NAMESPACE}
WRITTEN: Final = ("/containers/create", "/containers/update")
DELETED: Final = "/containers/delete"
TOPICS: Final = (*WRITTEN, DELETED, "/tasks/start", "/tasks/exit", "/tasks/delete")
EXTENSION: Final = "io.cri-containerd.sandbox.metadata"

_log = structlog.get_logger("enforcers.containerd")


class _PodMetadata(msgspec.Struct, frozen=True):
    uid: str
    name: str
    namespace: str


class _Config(msgspec.Struct, frozen=True):
    metadata: _PodMetadata


class _Metadata(msgspec.Struct, frozen=True):
    """containerd's ``pkg/cri/store/sandbox`` Metadata, version 1: what is used of it."""

    config: _Config = msgspec.field(name="Config")
    netns: str = msgspec.field(name="NetNSPath", default="")
    ip: str = msgspec.field(name="IP", default="")
    more: list[str] | None = msgspec.field(name="AdditionalIPs", default=None)
    handler: str = msgspec.field(name="RuntimeHandler", default="")


class _Versioned(msgspec.Struct, frozen=True):
    metadata: _Metadata = msgspec.field(name="Metadata")


_decode = msgspec.json.Decoder(_Versioned).decode


Heard = Callable[[str, str], None]
"""Topic and container id; a sandbox's container has the id of the sandbox. No topic: events may have been missed."""


class Containerd:
    """Asks over *calls*, made with `METADATA`."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    async def listen(self, heard: Heard, *, limit_seconds: float) -> None:
        """Tell *heard* of every event, until cancelled; a lost stream is opened again within *limit_seconds*."""
        backoff = Backoff(limit_seconds=limit_seconds)
        filters = [f'namespace=={NAMESPACE},topic=="{topic}"' for topic in TOPICS]
        request, event = message_type("SubscribeRequest")(filters=filters), message_type("ContainerEvent")
        while True:
            try:
                async with self._calls.stream(SUBSCRIBE, request, "Envelope") as stream:
                    await stream.send_message(request, end=True)
                    heard("", "")
                    async for each in stream:
                        backoff.reset()
                        heard(each.topic, event.FromString(each.event.value).id)
            except AWAY as error:
                _log.debug("containerd's events ended", reason=str(error))
            await backoff.wait()

    async def sandbox(self, container: str) -> Sandbox | None:
        """The sandbox whose container this is; ``None``: it is another's, in the node's network, or gone."""
        request = message_type("GetContainerRequest")(id=container)
        try:
            record = (await self._calls.ask(GET, request, "GetContainerResponse")).container
        except RuntimeUnavailable as error:
            _log.debug("container not read", container=container, reason=error.reason)
            return None
        return sandbox_of(record)


def sandbox_of(record: Any) -> Sandbox | None:
    """What a ``ContainerRecord`` tells of a sandbox with a network of its own; else ``None``."""
    told = next((each.value.value for each in record.extensions if each.key == EXTENSION), None)
    if told is None:
        return None
    try:
        known = _decode(told).metadata
        if not known.netns or not known.ip:  # the node's, or not made yet
            return None
        carried = tuple(map(addresses.pack, (known.ip, *(known.more or ()))))
    except ValueError as error:  # another containerd may keep something else there
        _log.debug("a sandbox that is only known once it is listed", sandbox=record.id, reason=str(error))
        return None
    pod = known.config.metadata
    return Sandbox(
        uid=pod.uid,
        id=record.id,
        namespace=pod.namespace,
        name=pod.name,
        netns=mounted(known.netns),
        addresses=carried,
        handler=known.handler,
        created_at=(record.created_at.seconds * 10**9 + record.created_at.nanos) / 1e9,  # as the list's, to the bit
    )


def mounted(path: str) -> Path:
    """/var/run is /run everywhere, but only /run is mounted into a container."""
    return Path(path.replace("/var/run/", "/run/", 1))
