"""What else on this node meddles with who may talk to whom: a second enforcer, or source-NAT between Pods.

Both are warnings. Two enforcers block what either blocks, and neither knows why; behind a source-NAT the destination
sees the node's address, and no policy there can tell which Pod it is.
"""

import asyncio
import ipaddress
import subprocess
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from compose.doctor.finding import Finding
from enforcers.core.netlink.connections import Connection
from enforcers.kernel.connections import conntrack
from enforcers.kernel.namespaces import HERE
from enforcers.kernel.sockets import NETLINK_NETFILTER, NetlinkSocket
from enforcers.runtimes.cri import CriRuntime
from schemas import addresses

LISTINGS: Final = (
    ("iptables-nft-save",),
    ("ip6tables-nft-save",),
    ("iptables-legacy-save",),
    ("ip6tables-legacy-save",),
    ("nft", "list", "tables"),
)
COMM_LENGTH: Final = 15
"""The kernel keeps so many characters of a process's name."""
POD_RANGE_BITS: Final = {4: 16, 6: 48}
"""How large a range around a Pod's address is taken for the cluster's Pods where nobody says which it is."""
LISTED: Final = 3


class Sign(msgspec.Struct, frozen=True):
    """How an enforcer of NetworkPolicies shows on a node."""

    names: tuple[str, ...] = ()
    """What its chains or tables begin with."""
    processes: tuple[str, ...] = ()


KNOWN: Final[Mapping[str, Sign]] = {
    "Calico": Sign(names=(":cali-", ":cali_"), processes=("calico-felix", "calico-node")),
    "Cilium": Sign(names=(":CILIUM_",), processes=("cilium-agent",)),
    "Antrea": Sign(names=(":ANTREA-",), processes=("antrea-agent",)),
    "kube-router": Sign(names=(":KUBE-NWPLCY", ":KUBE-POD-FW"), processes=("kube-router",)),
    "Weave Net": Sign(names=(":WEAVE-NPC",), processes=("weave-npc",)),
    "kube-network-policies": Sign(
        names=("table inet kube-network-policies", "table inet kindnet-network-policies"),
        processes=("kube-network-policies", "kindnetd"),
    ),
    "OVN-Kubernetes": Sign(processes=("ovnkube", "ovn-controller")),
    "Azure NPM": Sign(names=(":AZURE-NPM",), processes=("azure-npm",)),
    "AWS network policy agent": Sign(processes=("aws-network-policy-agent", "aws-eks-nodeagent")),
}


def examine_neighbours(runtime: str) -> Iterator[Finding]:
    """Both findings; the second only where containerd, at the socket *runtime*, tells which addresses are Pods'."""
    yield second_enforcer()
    if Path(runtime).is_socket() and (pods := asyncio.run(_pods(runtime))):
        with NetlinkSocket(HERE, NETLINK_NETFILTER) as netlink:
            yield source_nat(conntrack.marked(netlink, 0), pods)


async def _pods(runtime: str) -> frozenset[bytes]:
    async with CriRuntime(runtime) as cri:
        sandboxes = await cri.sandboxes()
    return frozenset(address for sandbox in sandboxes.values() for address in sandbox.addresses)


def second_enforcer() -> Finding:
    """Whether anyone else enforces NetworkPolicies here, by rules in this network namespace and by processes."""
    found = list(_others(_listed(), _processes()))
    return Finding(
        what="no second NetworkPolicy enforcer",
        ok=not found,
        needed=False,
        detail="; ".join(found),
        remedy="let one enforce: switch the other's network policies off, or keep this one observing (--observe)",
    )


def _others(listed: str, processes: Collection[str]) -> Iterator[str]:
    lines = listed.splitlines()
    for name, sign in KNOWN.items():
        rules = next((line for line in lines if line.startswith(sign.names)), "") if sign.names else ""
        process = next((each for each in sign.processes if each[:COMM_LENGTH] in processes), "")
        if rules or process:
            yield f"{name} ({rules.split(' -')[0].lstrip(':') or f'process {process}'})"


def _listed() -> str:
    """Chains and tables of this network namespace, as the tools print them; of a tool that is not there, nothing."""
    texts = []
    for command in LISTINGS:
        try:
            texts.append(subprocess.run(command, capture_output=True, text=True, check=False, timeout=20).stdout)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            continue
    return "\n".join(texts)


def _processes() -> set[str]:
    found = set()
    for path in Path("/proc").glob("[0-9]*/comm"):
        try:
            found.add(path.read_text().strip())
        except OSError:  # it ended meanwhile
            continue
    return found


def source_nat(tracked: Iterable[Connection], pods: Collection[bytes]) -> Finding:
    """Whether any of the node's *tracked* connections from its *pods* to other Pods leaves with another source address.

    A Pod that reaches itself through a Service has to be translated, and is left out.
    """
    ranges = {_range(address) for address in pods}
    lost = {
        tuple(map(addresses.unpack, (source, each.reply.source, each.reply.destination)))
        for each in tracked
        if (source := each.original.source) in pods
        and source not in (each.reply.destination, each.reply.source)
        and _range(each.reply.source) in ranges
    }
    shown = [f"{source} → {destination} as {seen}" for source, destination, seen in sorted(lost)]
    more = f" and {len(shown) - LISTED} more" if len(shown) > LISTED else ""
    return Finding(
        what="no source-NAT between Pods",
        ok=not lost,
        needed=False,
        detail=f"the destination does not see which Pod it is: {', '.join(shown[:LISTED])}{more}" if lost else "",
        remedy="exempt the Pods' ranges from masquerading (the CNI plugin's ipMasq, ip-masq-agent, kube-proxy's "
        "--cluster-cidr and --masquerade-all)",
    )


def _range(address: bytes) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    bits = POD_RANGE_BITS[addresses.family(address)]
    return ipaddress.ip_network((address, bits), strict=False)
