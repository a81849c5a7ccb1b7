"""Kubelink's settings, and the source they describe."""

from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import ClassVar

from producers.api_connection import Access
from producers.api_server_source import ApiServerSource, Patience
from producers.capture_source import CaptureSource
from producers.lease import LeaseTurn
from producers.manifest_source import ManifestSource
from producers.source import Source
from streams.settings import Settings


class KubelinkSettings(Settings, frozen=True, kw_only=True):
    """What Kubelink needs to know; by default the cluster that it runs in, or the current kubeconfig context."""

    section: ClassVar[str] = "kubelink"

    api_url: str = ""
    """URL of the API server. Empty (the default): from the kubeconfig, or from the Pod's service account."""
    api_token_file: str = ""
    """File with the bearer token for *api_url*; read again for every request. Default: none."""
    api_ca_file: str = ""
    """File with the certificate authority of *api_url*. Empty (the default): the system's."""
    kubeconfig: str = ""
    """Kubeconfig file. Empty (the default): ``KUBECONFIG`` or ``~/.kube/config``, unless it runs in a Pod."""
    context: str = ""
    """Context of the kubeconfig. Empty (the default): its current one."""
    manifests: tuple[str, ...] = ()
    """Files and folders of manifests to take instead of an API server. Default: none."""
    captures: tuple[str, ...] = ()
    """Recorded watch streams, lists or exports to play instead of an API server. Default: none."""
    captures_per_second: float = 0.0
    """Events per second at which captures are played; 0 (the default): as fast as the log takes them."""
    lease: str = ""
    """``namespace/name`` of the Lease by which several Kubelinks take turns. Empty (the default): there is only one."""
    lease_seconds: float = 15.0
    """How long a holder that does not renew its Lease keeps it. Default: 15."""
    watch_silence_seconds: float = 120.0
    """A watch that says nothing for so long is asked for again; bookmarks come about every 60 s. Default: 120."""
    quiet_seconds: float = 30.0
    """How often a kind is asked for that the cluster lacks or forbids. Default: 30."""
    drain_seconds: float = 5.0
    """How long what was taken in is still written after a stop. Default: 5."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.manifests and self.captures:
            raise ValueError("manifests and captures cannot be taken together: each is a whole cluster")
        if self.lease and self.lease.count("/") != 1:
            raise ValueError(f"lease is namespace/name, not {self.lease!r}")
        if self.lease_seconds < 1:
            raise ValueError("lease_seconds is at least 1: a Lease counts in whole seconds")

    @property
    def access(self) -> Access:
        return Access(
            url=self.api_url,
            token_file=self.api_token_file,
            ca_file=self.api_ca_file,
            kubeconfig=self.kubeconfig,
            context=self.context,
        )

    @property
    def description(self) -> str:
        """What it reads from, for people."""
        if paths := self.manifests or self.captures:
            return ", ".join(paths)
        return self.api_url or (f"context {self.context}" if self.context else "the cluster of the kubeconfig or Pod")

    @property
    def wants_api_server(self) -> bool:
        return not self.manifests and not self.captures


def source_of(settings: KubelinkSettings) -> Source:
    """The source that *settings* describe; nothing is opened yet."""
    if settings.manifests:
        return ManifestSource([Path(path) for path in settings.manifests])
    if settings.captures:
        paths = [Path(path) for path in settings.captures]
        return CaptureSource(paths, events_per_second=settings.captures_per_second)
    patience = Patience(silence_seconds=settings.watch_silence_seconds, quiet_seconds=settings.quiet_seconds)
    return ApiServerSource(settings.access, patience=patience)


def turn_of(settings: KubelinkSettings, identity: str) -> AbstractAsyncContextManager[LeaseTurn] | None:
    """The Lease by which turns are taken, to be entered; ``None`` where there is only one Kubelink."""
    if not settings.lease or not settings.wants_api_server:
        return None
    namespace, name = settings.lease.split("/")
    return LeaseTurn(
        settings.access,
        namespace=namespace,
        name=name,
        identity=identity,
        lease_seconds=settings.lease_seconds,
        renew_within_seconds=settings.lease_seconds * 2 / 3,
        retry_seconds=settings.lease_seconds / 7,
    )
