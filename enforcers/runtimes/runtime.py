"""Where Pods are: sandboxes with their network namespaces, as something on the node reports them."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Protocol

import msgspec

from schemas.status import ContainerDetail


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod's network as it exists on this node. Another *id* is another namespace, under the same uid or not."""

    uid: str
    """As the runtime knows the Pod: for a static Pod, the id of its mirror annotation."""
    id: str = ""
    namespace: str
    name: str
    netns: Path
    """A file that names the network namespace. Never the node's own: Pods in the host network are left out."""
    addresses: tuple[bytes, ...] = ()
    """The Pod's addresses, packed."""
    handler: str = ""
    """The runtime's handler that made it: ``runc``, ``runsc``, ``kata-qemu``; empty: the default one."""
    created_at: float = 0.0
    """When the runtime made it, in seconds since the epoch; 0: it does not tell."""
    containers: tuple[ContainerDetail, ...] = ()


class Runtime(Protocol):
    """Entered as an async context manager by who made it."""

    @property
    def description(self) -> str:
        """Name and version, for people."""
        ...

    def watch(self) -> AsyncIterator[Mapping[str, Sandbox]]:
        """All sandboxes by uid, first as they are, then again whenever something about them changed."""
        ...
