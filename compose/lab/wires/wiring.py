"""From a plan to lines for ``ip -batch``, one batch per namespace, and only what differs from the plan before."""

from collections.abc import Iterable
from typing import Final

import msgspec

from compose.lab.plan import Plan, PlannedNode, PlannedPod, family, hardware_address, link_name

POD_LINK: Final = "eth0"
UPLINK: Final = "fabric0"
"""A node's interface on the fabric."""
BRIDGE: Final = "br0"

ROUTER_SYSCTLS: Final = {
    "net/ipv4/ip_forward": "1",
    "net/ipv6/conf/all/forwarding": "1",
    # All traffic between Pods of a node enters and leaves by the bridge: a redirect would send them past the node.
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/conf/all/rp_filter": "0",
    "net/ipv4/conf/default/rp_filter": "0",
}
COMMON_SYSCTLS: Final = {
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
    # Addresses are usable at once; nobody waits for neighbours that do not exist.
    "net/ipv6/conf/all/accept_dad": "0",
    "net/ipv6/conf/default/accept_dad": "0",
    "net/ipv6/conf/default/accept_ra": "0",
    "net/ipv6/conf/default/router_solicitations": "0",
    "net/ipv6/conf/all/disable_ipv6": "0",
    "net/ipv6/conf/default/disable_ipv6": "0",
    # Ordinary users of a Pod may bind any port, as container runtimes allow.
    "net/ipv4/ip_unprivileged_port_start": "0",
}

BRIDGE_SYSCTLS: Final = {
    # Where the kernel can, it shows bridged frames to iptables, and translates there without routing: a node would
    # see a packet twice, and a Pod could not reach itself through a Service.
    "net/bridge/bridge-nf-call-iptables": "0",
    "net/bridge/bridge-nf-call-ip6tables": "0",
    "net/bridge/bridge-nf-call-arptables": "0",
}
"""Absent where the kernel has no such part."""

ANYWHERE: Final = {4: "0.0.0.0/0", 6: "::/0"}
OUTSIDE_ADDRESS: Final = "100.64.0.254"
"""Stays whatever other addresses come and go: with a link's last IPv4 address the kernel drops all its routes."""

FABRIC, NODE, HOST = range(3)

Batch = tuple[str, tuple[str, ...]]
"""A namespace and the lines for it."""


class Item(msgspec.Struct, frozen=True):
    """One thing in a namespace: the line that makes it so, and the one that takes it away."""

    apply: str
    remove: str = ""


class Wiring(msgspec.Struct, frozen=True):
    """A namespace's whole configuration; the order of items is the order in which they are applied.

    Keys say what an item is: ``link``, ``port``, ``up``, ``address``, ``route`` or ``owner``, and its name.
    """

    rank: int
    """Whoever makes a link comes before what is at its other end: 0 the fabric, 1 nodes, 2 Pods and the outside."""
    items: dict[str, Item]
    incarnation: str = ""
    """When it differs, the namespace is not changed but replaced."""

    @property
    def links(self) -> set[str]:
        """Every interface the namespace may have."""
        return {name for kind, _, name in (key.partition(" ") for key in self.items) if kind in ("link", "up")}

    @property
    def has_default_route(self) -> bool:
        return any(f"route {anywhere}" in self.items for anywhere in ANYWHERE.values())

    @property
    def sysctls(self) -> dict[str, str]:
        return COMMON_SYSCTLS | (ROUTER_SYSCTLS if self.rank == NODE else {})


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Steps in their order; the batches of one step do not depend on each other."""

    detach: tuple[Batch, ...] = ()
    """Takes links away first: a vanishing namespace answers a little longer, its link ends at once."""
    delete: tuple[str, ...] = ()
    create: tuple[str, ...] = ()
    apply: tuple[tuple[Batch, ...], ...] = ()
    """By rank."""
    clean: tuple[Batch, ...] = ()
    """Old addresses and routes, last: additions before removals."""


def wire(plan: Plan) -> dict[str, Wiring]:
    """The configuration of every namespace of *plan*, infrastructure first."""
    wirings = {plan.fabric: _fabric(plan), plan.outside: _outside(plan)}
    wirings |= {node.netns: _node(plan, node) for node in plan.nodes}
    wirings |= {pod.netns: _pod(pod, plan.node(pod.pod.node)) for pod in plan.pods if pod.link}
    return wirings


def changes(before: dict[str, Wiring], after: dict[str, Wiring]) -> Changes:
    """What to do so that *before* becomes *after*; nothing for what is equal."""
    kept = {name for name in after if name in before and before[name].incarnation == after[name].incarnation}
    applied: list[dict[str, tuple[str, ...]]] = [{}, {}, {}]
    detached, cleaned = {}, {}
    for name, wiring in after.items():
        old = before[name].items if name in kept else {}
        applied[wiring.rank][name] = tuple(_apply(old, wiring.items))
        gone = [(key, item.remove) for key, item in old.items() if key not in wiring.items and item.remove]
        detached[name] = tuple(line for key, line in gone if key.startswith("link "))
        cleaned[name] = tuple(line for key, line in reversed(gone) if not key.startswith("link "))
    return Changes(
        detach=_batches(detached),
        delete=tuple(name for name in before if name not in kept),
        create=tuple(name for name in after if name not in kept),
        apply=tuple(_batches(lines) for lines in applied),
        clean=_batches(cleaned),
    )


def _apply(old: dict[str, Item], new: dict[str, Item]) -> Iterable[str]:
    for key, item in new.items():
        known = old.get(key)
        if known == item:
            continue
        if known is not None and known.remove:
            # `replace` does not exchange a direct IPv6 route for one with a gateway: it would keep both.
            yield known.remove
        yield item.apply


def _batches(lines: dict[str, tuple[str, ...]]) -> tuple[Batch, ...]:
    return tuple((name, batch) for name, batch in lines.items() if batch)


def _fabric(plan: Plan) -> Wiring:
    """Only a bridge: it forwards frames, has no address and no route."""
    items = _up("lo") | dict(_bridge(plan.fabric))
    for peer in (plan.outside, *(node.netns for node in plan.nodes)):
        items |= _veth(link_name(peer), UPLINK, peer)
    return Wiring(FABRIC, items)


def _outside(plan: Plan) -> Wiring:
    items = _up("lo", UPLINK)
    items |= dict(_address(address, UPLINK) for address in (OUTSIDE_ADDRESS, *plan.externals))
    for node in plan.nodes:
        items |= _routes_to_node(plan, node)
    return Wiring(HOST, items)


def _node(plan: Plan, node: PlannedNode) -> Wiring:
    items = _up("lo", UPLINK)
    items |= dict(_bridge(node.netns))
    items |= dict(_address(address, BRIDGE) for address in (*node.gateways, *node.bridge))
    items |= dict(_address(address, UPLINK) for address in node.addresses)
    for pod in plan.pods:
        if pod.link and pod.pod.node == node.name:
            items |= _veth(pod.link, POD_LINK, pod.netns)
            items |= dict(_route(address, f"dev {BRIDGE}") for address in pod.routed)
            items |= dict(_owner(address, pod.link, BRIDGE) for address in pod.routed)
    for other in plan.nodes:
        if other.name != node.name:
            items |= _routes_to_node(plan, other)
    # A connection that the node itself begins needs a route before its destination is translated. Where a node or
    # somebody beyond the cluster has the address as well, what is not the Service's goes to them.
    taken = {address for each in plan.nodes for address in each.local}
    virtual = (address for service in plan.services for address in service.addresses if address not in taken)
    items |= dict(_route(address, f"dev {BRIDGE}") for address in virtual)
    items |= dict(_route(address, f"dev {UPLINK}") for address in plan.externals)
    return Wiring(NODE, items)


def _pod(planned: PlannedPod, node: PlannedNode) -> Wiring:
    items = _up("lo", POD_LINK)
    items |= dict(_address(address, POD_LINK) for address in planned.pod.addresses)
    families = {family(address) for address in planned.pod.addresses}
    for gateway in node.gateways:
        if family(gateway) in families:
            anywhere = ANYWHERE[family(gateway)]
            items |= dict([_route(gateway, f"dev {POD_LINK}")])
            items[f"route {anywhere}"] = Item(
                f"route replace {anywhere} via {gateway} dev {POD_LINK}", f"route del {anywhere} dev {POD_LINK}"
            )
    return Wiring(HOST, items, incarnation=planned.link)


def _routes_to_node(plan: Plan, node: PlannedNode) -> dict[str, Item]:
    """A node and its Pods, as seen from elsewhere on the fabric."""
    items = dict(_route(address, f"dev {UPLINK}") for address in node.addresses)
    items |= dict(_owner(address, node.netns, UPLINK) for address in node.addresses)
    next_hop = {family(address): address for address in reversed(node.addresses)}
    for pod in plan.pods:
        if pod.link and pod.pod.node == node.name:
            items |= dict(
                _route(address, f"via {next_hop[family(address)]} dev {UPLINK} onlink") for address in pod.routed
            )
    return items


def _up(*links: str) -> dict[str, Item]:
    return {f"up {link}": Item(f"link set {link} up") for link in links}


def _bridge(netns: str) -> Iterable[tuple[str, Item]]:
    # A bridge takes the lowest address of its ports unless told otherwise: every Pod that came or went could change
    # the gateway's, behind the back of those that know it.
    mac = hardware_address(netns)
    yield f"link {BRIDGE}", Item(f"link add {BRIDGE} address {mac} type bridge stp_state 0 mcast_snooping 0")
    yield f"up {BRIDGE}", Item(f"link set {BRIDGE} up")


def _owner(address: str, link: str, device: str) -> tuple[str, Item]:
    """When *address* gets another owner, who finds it on *device* must not go on sending to the hardware of the one
    before."""
    return f"owner {address} {link}", Item(f"neigh flush to {address} dev {device}")


def _veth(link: str, peer_link: str, peer: str) -> dict[str, Item]:
    """A veth on the bridge whose other end is *peer_link* in the namespace *peer*; made in place, never by the host."""
    return {
        f"link {link}": Item(f"link add {link} type veth peer name {peer_link} netns {peer}", f"link del {link}"),
        f"port {link}": Item(f"link set {link} master {BRIDGE} up"),
    }


def _host_prefix(address: str) -> str:
    return f"{address}/32" if family(address) == 4 else f"{address}/128"


def _address(address: str, link: str) -> tuple[str, Item]:
    line = f"{_host_prefix(address)} dev {link}"
    nodad = "" if family(address) == 4 else " nodad"
    return f"address {address}", Item(f"addr replace {line}{nodad}", f"addr del {line}")


def _route(address: str, way: str) -> tuple[str, Item]:
    prefix = _host_prefix(address)
    return f"route {prefix}", Item(f"route replace {prefix} {way}", f"route del {prefix}")
