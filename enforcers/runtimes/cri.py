"""The Pods of this node, as containerd reports them: by its CRI socket, and its own events for speed.

    ListPodSandbox ─▶ what is new: PodSandboxStatus ─▶ namespace and addresses ─┐
    ListContainers ─▶ what is new: ContainerStatus ─▶ details ──────────────────┴─▶ Sandbox values
    Events/Subscribe ─▶ list again, at once

containerd's own events serve any number of listeners. CRI's `GetContainerEvents` has one queue for all who ask, so we
would take events away from the kubelet: it is never called.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import structlog
from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from enforcers.runtimes.cri_messages import CONTAINER_STATES, NETWORK_OF_NODE, SANDBOX_READY, message_type
from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from schemas.status import ContainerDetail
from streams.backoff import Backoff

SERVICE: Final = "/runtime.v1.RuntimeService"
EVENTS: Final = "/containerd.services.events.v1.Events/Subscribe"
TOPICS: Final = ("/tasks/start", "/tasks/exit", "/tasks/delete", "/containers/create", "/containers/delete")
ANSWER_SECONDS: Final = 10.0
AGAIN_SECONDS: Final = (0.015, 0.015, 0.03, 0.06, 0.3)
"""After an event the list is read at once, and again after each of these: a sandbox is listed 7 to 30 ms after its task
started, and its first container starts some 100 ms later. Until its rules are there by then, it is not isolated."""
MIRROR: Final = "kubernetes.io/config.mirror"
RESTARTS: Final = "io.kubernetes.container.restartCount"

_log = structlog.get_logger("enforcers.cri")


class RuntimeUnavailable(Exception):
    """The runtime at *socket* cannot be asked now; what was known of its Pods stands."""

    def __init__(self, socket: str, reason: str) -> None:
        super().__init__(f"container runtime at {socket} does not answer: {reason}")
        self.socket = socket
        self.reason = reason
        self.retriable = True


class _Network(msgspec.Struct, frozen=True):
    """What never changes about a sandbox."""

    netns: Path
    addresses: tuple[bytes, ...]


class CriRuntime:
    """Keeps the promises of `Runtime`; an async context manager."""

    def __init__(self, socket: str, *, relist_seconds: float = 10.0) -> None:
        self.description = ""
        self._socket = socket
        self._relist_seconds = relist_seconds
        self._channel = Channel(path=socket)
        self._networks: dict[str, _Network | None] = {}  # sandbox id → its network; None: the node's
        self._details: dict[tuple[str, int], ContainerDetail] = {}  # container id and state
        self._event = asyncio.Event()

    def __repr__(self) -> str:
        return f"<{self.description or 'runtime'} at {self._socket}, {len(self._networks)} sandboxes>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._channel.close()

    async def watch(self) -> AsyncGenerator[Mapping[str, Sandbox]]:
        """See `Runtime.watch`. A runtime that is away is waited for; meanwhile nothing is said to be gone."""
        listening = asyncio.create_task(self._listen(), name="listen to containerd's events")
        backoff, before = Backoff(limit_seconds=self._relist_seconds), None
        waits: list[float] = []
        try:
            while True:
                self._event.clear()
                try:
                    found = await self.sandboxes()
                except RuntimeUnavailable as error:
                    if not backoff.attempts:
                        _log.warning("waiting for the container runtime", reason=str(error))
                    await backoff.wait()
                    continue
                backoff.reset()
                if found != before:
                    before = found
                    yield found
                if await self._hear(waits.pop(0) if waits else self._relist_seconds):
                    waits = list(AGAIN_SECONDS)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening

    async def sandboxes(self) -> dict[str, Sandbox]:
        """All Pods with a network of their own, by uid, as they are now. Raises `RuntimeUnavailable`."""
        if not self.description:
            version = await self._ask("Version", message_type("VersionRequest")(), "VersionResponse")
            self.description = f"{version.runtime_name} {version.runtime_version}"
        ready = message_type("SandboxFilter")(state=message_type("StateValue")(state=SANDBOX_READY))
        request = message_type("ListSandboxesRequest")(filter=ready)
        listed = (await self._ask("ListPodSandbox", request, "ListSandboxesResponse")).items
        containers = await self._containers()
        self._networks = {each.id: self._networks[each.id] for each in listed if each.id in self._networks}
        found: dict[str, Sandbox] = {}
        for each in sorted(listed, key=lambda sandbox: sandbox.created_at):  # the newest of a Pod wins
            if each.state != SANDBOX_READY or (network := await self._network(each.id)) is None:
                continue
            uid = _entries(each.annotations).get(MIRROR) or each.metadata.uid
            found[uid] = Sandbox(
                uid=uid,
                id=each.id,
                namespace=each.metadata.namespace,
                name=each.metadata.name,
                netns=network.netns,
                addresses=network.addresses,
                handler=each.runtime_handler,
                containers=tuple(sorted(containers.get(each.id, ()), key=lambda detail: detail.name)),
            )
        return found

    async def _network(self, identity: str) -> _Network | None:
        if identity not in self._networks:
            request = message_type("SandboxStatusRequest")(id=identity, verbose=True)
            try:
                answer = await self._ask("PodSandboxStatus", request, "SandboxStatusResponse")
            except RuntimeUnavailable as error:
                if isinstance(error.__cause__, GRPCError):  # it went since the list was made, or is not whole yet
                    return None
                raise
            if answer.status.linux.namespaces.options.network == NETWORK_OF_NODE:
                self._networks[identity] = None
                return None
            network = _network_of(answer)
            if network is None or not network.addresses:  # not whole yet: asked again
                return network
            self._networks[identity] = network
        return self._networks[identity]

    async def _containers(self) -> dict[str, list[ContainerDetail]]:
        """The newest container of each name, by sandbox."""
        listed = await self._ask("ListContainers", message_type("ListContainersRequest")(), "ListContainersResponse")
        newest: dict[tuple[str, str], Any] = {}
        for each in sorted(listed.containers, key=lambda container: container.metadata.attempt):
            newest[each.sandbox_id, each.metadata.name] = each
        details: dict[tuple[str, int], ContainerDetail] = {}
        found: dict[str, list[ContainerDetail]] = {}
        for (sandbox, _), each in newest.items():
            key = (each.id, each.state)
            detail = self._details.get(key) or await self._detail(each)
            details[key] = detail
            found.setdefault(sandbox, []).append(detail)
        self._details = details
        return found

    async def _detail(self, listed: Any) -> ContainerDetail:
        request = message_type("ContainerStatusRequest")(id=listed.id)
        try:
            status = (await self._ask("ContainerStatus", request, "ContainerStatusResponse")).status
        except RuntimeUnavailable as error:
            if not isinstance(error.__cause__, GRPCError):
                raise
            status = message_type("ContainerStatus")()  # it went since the list was made
        return ContainerDetail(
            name=listed.metadata.name,
            image=status.image.image or listed.image.image,
            id=f"containerd://{listed.id}",
            state=CONTAINER_STATES.get(listed.state, "unknown"),
            started_at=_time(status.started_at),
            restarts=int(_entries(listed.annotations).get(RESTARTS, listed.metadata.attempt)),
        )

    async def _ask(self, method: str, request: Any, answer: str) -> Any:
        call = UnaryUnaryMethod(self._channel, f"{SERVICE}/{method}", type(request), message_type(answer))
        try:
            return await call(request, timeout=ANSWER_SECONDS)
        except (GRPCError, StreamTerminatedError, ProtocolError, OSError, TimeoutError) as error:
            raise RuntimeUnavailable(self._socket, f"{method}: {error}") from error

    async def _listen(self) -> None:
        """Wake the watch at every event; without events the list is still read every so often."""
        backoff = Backoff(limit_seconds=self._relist_seconds)
        request_type, envelope = message_type("SubscribeRequest"), message_type("Envelope")
        request = request_type(filters=[f'namespace==k8s.io,topic=="{topic}"' for topic in TOPICS])
        call = UnaryStreamMethod(self._channel, EVENTS, request_type, envelope)
        while True:
            try:
                async with call.open() as stream:
                    await stream.send_message(request, end=True)
                    async for _ in stream:
                        backoff.reset()
                        self._event.set()
            except (GRPCError, StreamTerminatedError, ProtocolError, OSError) as error:
                _log.debug("containerd's events ended", reason=str(error))
            await backoff.wait()

    async def _hear(self, seconds: float) -> bool:
        """Whether there is an event within so many *seconds*."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()
        return self._event.is_set()


def _network_of(answer: Any) -> _Network | None:
    """containerd tells the namespace's path in the sandbox's specification, part of its verbose word."""
    try:
        info = msgspec.json.decode(_entries(answer.info).get("info", "{}"))
        namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        path = next(each["path"] for each in namespaces if each["type"] == "network")
    except (msgspec.DecodeError, KeyError, TypeError, StopIteration):
        return None
    texts = [answer.status.network.ip, *(each.ip for each in answer.status.network.additional_ips)]
    # /var/run is /run everywhere, but only /run is mounted into a container.
    return _Network(Path(path.replace("/var/run/", "/run/", 1)), tuple(addresses.pack(text) for text in texts if text))


def _entries(entries: Iterable[Any]) -> dict[str, str]:
    return {entry.key: entry.value for entry in entries}


def _time(nanoseconds: int) -> str:
    """RFC 3339; empty for never."""
    if not nanoseconds:
        return ""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")
