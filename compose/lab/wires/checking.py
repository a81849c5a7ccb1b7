"""Reading back what must hold before anyone sends a packet: every way is open, and none leads out of the lab."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from compose.lab import namespaces
from compose.lab.wires.wiring import Wiring

READY_SECONDS: Final = 10.0
POLL_SECONDS: Final = 0.005


class NotClosed(Exception):
    """The lab's network leads somewhere else, so nothing may be sent in it."""

    def __init__(self, namespace: str, reason: str) -> None:
        super().__init__(f"namespace {namespace} is not closed: {reason}")
        self.namespace = namespace
        self.reason = reason


class NotReady(Exception):
    """Bridge ports in *namespace* did not begin to forward in time."""

    def __init__(self, namespace: str, ports: list[str]) -> None:
        super().__init__(f"bridge ports in {namespace} do not forward after {READY_SECONDS} s: {', '.join(ports)}")
        self.namespace = namespace
        self.ports = ports


class _Port(msgspec.Struct):
    ifname: str
    state: str = ""


_decode_ports = msgspec.json.Decoder(list[_Port]).decode


def check_closed(wirings: Mapping[str, Wiring]) -> None:
    """Raise `NotClosed` unless every route ends at a link that the lab made, and only Pods have a default route.

    A Pod's default route ends at its node, which has none. Links without a route are no way: some kernels put unused
    tunnels into every new namespace.
    """
    views = namespaces.inside_each((name, _routes) for name in wirings)
    for (name, wiring), (links, default_route) in zip(wirings.items(), views, strict=True):
        foreign = links - wiring.links
        if foreign:
            raise NotClosed(name, f"it has a route by the link {min(foreign)}, which the lab did not make")
        if default_route and not wiring.has_default_route:
            raise NotClosed(name, "it has a default route")


def _routes() -> tuple[set[str], bool]:
    """Links with routes, and whether there is a default route, in the calling thread's own view of /proc/net."""
    net = Path("/proc/thread-self/net")
    v4 = [line.split() for line in (net / "route").read_text().splitlines()[1:]]
    v6 = [line.split() for line in (net / "ipv6_route").read_text().splitlines()]
    links = {fields[0] for fields in v4} | {fields[9] for fields in v6}
    # A default route has no bits in its mask; the kernel's own unreachable one of IPv6 sits on lo.
    any_v4 = any(int(fields[7], 16) == 0 for fields in v4)
    any_v6 = any(fields[1] == "00" and fields[9] != "lo" for fields in v6)
    return links, any_v4 or any_v6


async def wait_until_forwarding(namespace: str) -> None:
    """Wait until every bridge port in *namespace* forwards; the kernel lets it only after it noticed the carrier."""
    deadline = time.monotonic() + READY_SECONDS
    while True:
        ports = _decode_ports(await namespaces.run(namespace, ["bridge", "-j", "link", "show"]) or b"[]")
        waiting = [port.ifname for port in ports if port.state != "forwarding"]
        if not waiting:
            return
        if time.monotonic() > deadline:
            raise NotReady(namespace, waiting)
        await asyncio.sleep(POLL_SECONDS)
