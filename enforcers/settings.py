"""The enforcer's settings."""

import socket
from typing import ClassVar, Literal

import msgspec

from enforcers.core.layout import DEFAULT_MARK
from schemas import addresses
from schemas.local import DEFAULT_SOCKET
from streams.settings import Settings, host_and_port


class EnforcerSettings(Settings, frozen=True, kw_only=True):
    """How a C-VEN runs, and what it decides."""

    section: ClassVar[str] = "enforcer"

    node: str = msgspec.field(default_factory=socket.gethostname)
    """The Kubernetes name of the node it runs on. Default: the host's name."""
    runtime: str = "/run/containerd/containerd.sock"
    """Socket of the container runtime (CRI, containerd), which knows the Pods. Default: containerd's usual one."""
    socket: str = DEFAULT_SOCKET
    """Unix socket on which it answers `eastwest node`, for root of this machine alone. Empty: none. Default:
    /run/eastwest/enforcer.sock."""
    observe: bool = False
    """Plan and report, and program nothing: for a first look at a cluster. Default: false."""
    pause: bool = False
    """Keep everything as it is and write nothing, until started without. Default: false."""
    unknown_pods: Literal["open", "isolate"] = "open"
    """What becomes of Pods that the snapshot on disk does not know while NATS is away: ``open`` (default) leaves them
    as they are, ``isolate`` admits only their own node."""
    extra_node_addresses: tuple[str, ...] = ()
    """Addresses from which the node also reaches its Pods, beside those that it has: meshes probe from link-local
    ones. Default: none."""
    foreign_handlers: tuple[str, ...] = ("runsc*", "gvisor*", "kata*", "firecracker*")
    """Runtime handlers, as patterns, whose Pods have a network stack of their own: no rule of this kernel reaches it,
    so they are reported as unenforceable. Default: those of gVisor, Kata and Firecracker."""
    mark: int = DEFAULT_MARK
    """The bit of the connection mark that stands for allowed; no one else may use it. Default: 268435456 (2²⁸)."""
    set_backend: Literal["auto", "netlink", "restore"] = "auto"
    """How address sets are written and read: by ``netlink``, or by the ipset tool (``restore``), which is slower.
    ``auto`` (default): by netlink where a trial at the start shows that it works, else by the tool."""
    chain_backend: Literal["auto", "netlink", "restore"] = "restore"
    """How chains are written: by iptables-nft-restore (``restore``, default), or by ``netlink``, which is many times
    quicker. ``auto``: by netlink where a trial at the start shows that the tool lists the same, else by the tool."""
    parallel: int = 16
    """How many Pods have chains written at a time. The tool mostly waits where rules go, 10 to 20 ms each, and
    computes where they come: more than this makes it no quicker on two cores. Default: 16."""
    disk_after_seconds: float = 5.0
    """How long to wait for NATS after the start before the snapshot on disk is enforced. Default: 5."""
    relist_seconds: float = 10.0
    """How often the runtime is asked for its Pods, beside listening to its events. Default: 10."""
    verify_seconds: float = 10.0
    """How often each Pod's rules and sets are compared with what was written, beside listening for changes of rules:
    changes of sets tell nobody. Default: 10."""
    gate_listen: str = ""
    """``host:port`` where Pods of this node ask whether they may start (`eastwest gate`); without a host, on every
    address of the node. Empty (the default): nowhere. The manifests say ``:9462``."""
    status_seconds: float = 5.0
    """How often it says that it is alive. Default: 5."""
    drain_seconds: float = 10.0
    """How long to go on after a stop with Pods that are being programmed. Default: 10."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.mark <= 0xFFFFFFFF or self.mark & (self.mark - 1):
            raise ValueError(f"mark {self.mark:#x} is not one bit of 32")
        if self.verify_seconds <= 0:
            raise ValueError(f"verify_seconds is {self.verify_seconds:g}, and has to be more than nothing")
        if self.parallel < 1:
            raise ValueError(f"parallel is {self.parallel}, and at least one Pod has to be programmed at a time")
        if self.gate_listen:
            host_and_port(self.gate_listen)
        for text in self.extra_node_addresses:
            addresses.pack(text)
