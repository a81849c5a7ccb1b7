"""The cluster's network: one namespace for the control plane, one per node, a bridge between them, no way out.

::

    PREFIX-cp   br0 10.99.0.1 ──┬── eth0 10.99.0.11   PREFIX-n1   Pods 10.244.1.0/24
                                └── eth0 10.99.0.12   PREFIX-n2   Pods 10.244.2.0/24

The addresses are private and exist only in there. An address that is not there must fail, never leave the machine.
"""

import subprocess
from dataclasses import dataclass

from tests.components.namespaces import inside_command

CONTROL_PLANE_ADDRESS = "10.99.0.1"
SERVICE_RANGES = ("10.96.0.0/16", "fd96::/112")
POD_RANGES = ("10.244.0.0/16", "fd44::/48")


@dataclass(frozen=True)
class NodeNetwork:
    """Addresses of the node with *number* (from 1) in the cluster of *prefix*."""

    prefix: str
    number: int

    @property
    def namespace(self) -> str:
        return f"{self.prefix}-n{self.number}"

    @property
    def address(self) -> str:
        return f"10.99.0.{10 + self.number}"

    @property
    def address6(self) -> str:
        return f"fd99::{10 + self.number}"

    @property
    def pods(self) -> str:
        return f"10.244.{self.number}.0/24"

    @property
    def pods6(self) -> str:
        return f"fd44:0:0:{self.number}::/64"


def control_plane_namespace(prefix: str) -> str:
    return f"{prefix}-cp"


def make_networks(prefix: str, nodes: list[NodeNetwork], *, ipv6: bool) -> None:
    """Make the namespaces and links, then check that nothing can leave. Raises RuntimeError where it could."""
    plane = control_plane_namespace(prefix)
    _ip("netns", "add", plane)
    _ip("-n", plane, "link", "set", "lo", "up")
    _ip("-n", plane, "link", "add", "br0", "type", "bridge")
    _ip("-n", plane, "link", "set", "br0", "up")
    _ip("-n", plane, "addr", "add", f"{CONTROL_PLANE_ADDRESS}/24", "dev", "br0")
    if ipv6:
        _ip("-n", plane, "addr", "add", "fd99::1/64", "dev", "br0", "nodad")
    # What nodes say to each other crosses this bridge as on a switch: no firewall of this namespace may see it.
    for family in ("iptables", "ip6tables"):
        _sysctl(plane, f"net/bridge/bridge-nf-call-{family}", "0", required=False)
    for node in nodes:
        _make_node(plane, node, ipv6=ipv6)
    for node in nodes:
        for other in nodes:
            if other != node:
                _ip("-n", node.namespace, "route", "add", other.pods, "via", other.address)
                if ipv6:
                    _ip("-n", node.namespace, "route", "add", other.pods6, "via", other.address6)
    for namespace in (plane, *(node.namespace for node in nodes)):
        refuse_default_route(namespace)


def refuse_default_route(namespace: str) -> None:
    """Raises RuntimeError where *namespace* has a default route in either family."""
    for family in ("-4", "-6"):
        routes = _ip(family, "-n", namespace, "route", "show", "default")
        if routes.strip():
            raise RuntimeError(f"refusing to use {namespace}: packets could leave by {routes.strip()!r}")


def _make_node(plane: str, node: NodeNetwork, *, ipv6: bool) -> None:
    here, uplink = node.namespace, f"v{node.number}"
    _ip("netns", "add", here)
    _ip("-n", plane, "link", "add", uplink, "type", "veth", "peer", "name", "eth0", "netns", here)
    _ip("-n", plane, "link", "set", uplink, "master", "br0", "up")
    _ip("-n", here, "link", "set", "lo", "up")
    _ip("-n", here, "link", "set", "eth0", "up")
    _ip("-n", here, "addr", "add", f"{node.address}/24", "dev", "eth0")
    _sysctl(here, "net/ipv4/ip_forward", "1")
    # Service addresses are translated in nat OUTPUT, which a packet without any route never reaches.
    _ip("-n", here, "route", "add", SERVICE_RANGES[0], "dev", "eth0")
    _ip("-n", plane, "route", "add", node.pods, "via", node.address)
    if ipv6:
        _ip("-n", here, "addr", "add", f"{node.address6}/64", "dev", "eth0", "nodad")
        _sysctl(here, "net/ipv6/conf/all/forwarding", "1")
        _ip("-n", here, "route", "add", SERVICE_RANGES[1], "dev", "eth0")
        _ip("-n", plane, "route", "add", node.pods6, "via", node.address6)


def _ip(*arguments: str) -> str:
    run = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False, timeout=20)
    if run.returncode != 0:
        raise RuntimeError(f"ip {' '.join(arguments)}: {run.stderr.strip()}")
    return run.stdout


def _sysctl(namespace: str, name: str, value: str, *, required: bool = True) -> None:
    """Set one below /proc/sys; one that is not *required* may not exist (its module is not loaded)."""
    command = [*inside_command(namespace), "sh", "-c", f"echo {value} > /proc/sys/{name}"]
    subprocess.run(command, capture_output=True, check=required, timeout=20)
