"""A node's address translation for Services, rendered: what kube-proxy does in iptables mode, in the lab's own chains.

Both texts are whole: chains are declared (and thereby emptied) and filled in one transaction, so a change of endpoints
never leaves a Service half there. Only a connection's first packet is translated; the rest follow its entry.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from compose.lab.plan import VirtualPort, family

FROM_OUTSIDE: Final = "0x4000/0x4000"
"""Marks a connection to a node port: its answers must come back through this node, so it takes the node's address."""


def translate(services: Sequence[VirtualPort], node: str, *, new: bool) -> tuple[str, str]:
    """Input for ``iptables-restore --noflush`` and ``ip6tables-restore --noflush`` on *node*; a *new* one gets the
    jumps too."""
    return _both_tables(services, node, 4, new), _both_tables(services, node, 6, new)


def _both_tables(services: Sequence[VirtualPort], node: str, version: int, new: bool) -> str:
    dnat: list[str] = []
    refuse: list[str] = []
    hairpin: dict[str, None] = {}
    for service in services:
        matches = [f"-d {address}" for address in service.addresses if family(address) == version]
        local = f"-p {service.protocol.lower()} -m addrtype --dst-type LOCAL --dport {service.node_port}"
        known = service.endpoints if service.local is None else dict(service.local).get(node, ())
        endpoints = [(address, port) for address, port in known if family(address) == version]
        for match in matches:
            full = f"{match} -p {service.protocol.lower()} --dport {service.port}"
            dnat += _balanced(full, endpoints)
            if not endpoints and service.local is not None:
                refuse.append(f"-A EW-LAB-REFUSE {full} -j DROP")
            elif not endpoints:
                # An ICMP error that comes back while connect() still holds its socket is lost, a reset is not.
                how = " --reject-with tcp-reset" if service.protocol == "TCP" else ""
                refuse.append(f"-A EW-LAB-REFUSE {full} -j REJECT{how}")
        if service.node_port is not None and endpoints:
            dnat.append(f"-A EW-LAB-SERVICES {local} -j MARK --set-xmark {FROM_OUTSIDE}")
            dnat += _balanced(local, endpoints)
        # A Pod that reaches itself through its Service would drop its own address as a stranger's source.
        hairpin |= dict.fromkeys(
            f"-A EW-LAB-RETURN -s {address} -d {address} -j MASQUERADE" for address, _ in endpoints
        )
    return "\n".join([*_nat(dnat, hairpin, new), *_filter(refuse, new), ""])


def _balanced(match: str, endpoints: Sequence[tuple[str, int]]) -> Iterator[str]:
    """One rule per endpoint, each taking its equal share of what the ones before left."""
    for number, (address, port) in enumerate(endpoints):
        left = len(endpoints) - number
        share = f" -m statistic --mode random --probability {1 / left:.10f}" if left > 1 else ""
        target = f"{address}:{port}" if family(address) == 4 else f"[{address}]:{port}"
        yield f"-A EW-LAB-SERVICES {match}{share} -j DNAT --to-destination {target}"


def _nat(dnat: Iterable[str], hairpin: Iterable[str], new: bool) -> list[str]:
    jumps = ["PREROUTING -j EW-LAB-SERVICES", "OUTPUT -j EW-LAB-SERVICES", "POSTROUTING -j EW-LAB-RETURN"]
    return [
        "*nat",
        ":EW-LAB-SERVICES - [0:0]",
        ":EW-LAB-RETURN - [0:0]",
        *dnat,
        *hairpin,
        f"-A EW-LAB-RETURN -m mark --mark {FROM_OUTSIDE} -j MASQUERADE",
        *(f"-A {jump}" for jump in jumps if new),
        "COMMIT",
    ]


def _filter(refuse: Iterable[str], new: bool) -> list[str]:
    jumps = ["FORWARD -j EW-LAB-REFUSE", "OUTPUT -j EW-LAB-REFUSE"]
    return ["*filter", ":EW-LAB-REFUSE - [0:0]", *refuse, *(f"-A {jump}" for jump in jumps if new), "COMMIT"]
