"""The Pods of this node, as the runtime's CRI lists them.

ListPodSandbox ─▶ what is new: PodSandboxStatus ─▶ namespace and addresses ─┐
ListContainers ─▶ what is new: ContainerStatus ─▶ details ──────────────────┴─▶ Sandbox values
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from enforcers.runtimes.calls import Calls, RuntimeUnavailable
from enforcers.runtimes.containerd import mounted
from enforcers.runtimes.messages import CONTAINER_STATES, NETWORK_OF_NODE, SANDBOX_READY, message_type
from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from schemas.status import ContainerDetail

SERVICE: Final = "/runtime.v1.RuntimeService"
RESTARTS: Final = "io.kubernetes.container.restartCount"


class _Network(msgspec.Struct, frozen=True):
    """What never changes about a sandbox."""

    netns: Path
    addresses: tuple[bytes, ...]


class CriListing:
    """Asks over *calls*; remembers what never changes."""

    def __init__(self, calls: Calls) -> None:
        self.description = ""
        """Name and version of the runtime, once it was asked."""
        self._calls = calls
        self._networks: dict[str, _Network | None] = {}  # sandbox id → its network; None: the node's
        self._details: dict[tuple[str, int], ContainerDetail] = {}  # container id and state

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
            found[each.metadata.uid] = Sandbox(
                uid=each.metadata.uid,
                id=each.id,
                namespace=each.metadata.namespace,
                name=each.metadata.name,
                netns=network.netns,
                addresses=network.addresses,
                handler=each.runtime_handler,
                created_at=each.created_at / 1e9,
                containers=tuple(sorted(containers.get(each.id, ()), key=lambda detail: detail.name)),
            )
        return found

    async def _network(self, identity: str) -> _Network | None:
        if identity not in self._networks:
            request = message_type("SandboxStatusRequest")(id=identity, verbose=True)
            try:
                answer = await self._ask("PodSandboxStatus", request, "SandboxStatusResponse")
            except RuntimeUnavailable as error:
                if error.refused:  # it went since the list was made, or is not whole yet
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
            if not error.refused:
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
        return await self._calls.ask(f"{SERVICE}/{method}", request, answer)


def _network_of(answer: Any) -> _Network | None:
    """containerd tells the namespace's path in the sandbox's specification, part of its verbose word."""
    try:
        info = msgspec.json.decode(_entries(answer.info).get("info", "{}"))
        namespaces = info["runtimeSpec"]["linux"]["namespaces"]
        path = next(each["path"] for each in namespaces if each["type"] == "network")
    except (msgspec.DecodeError, KeyError, TypeError, StopIteration):
        return None
    texts = [answer.status.network.ip, *(each.ip for each in answer.status.network.additional_ips)]
    return _Network(mounted(path), tuple(addresses.pack(text) for text in texts if text))


def _entries(entries: Iterable[Any]) -> dict[str, str]:
    return {entry.key: entry.value for entry in entries}


def _time(nanoseconds: int) -> str:
    """RFC 3339; empty for never."""
    if not nanoseconds:
        return ""
    return datetime.fromtimestamp(nanoseconds // 1_000_000_000, UTC).isoformat().replace("+00:00", "Z")
