"""A Pod, two peers and their node, as network namespaces without any way out; real sockets in them.

pod (web)      peer (a)      peer (b)
   └── eth0 ──────┴──────────────┘
         bridge in the namespace `node`
"""

import contextlib
import secrets
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from enforcers.core.layout import DEFAULT_MARK, NODE_SET
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel.rules.chain_backends import ChainBackendName
from enforcers.pods.pod import PodEnforcement
from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from schemas.addresses import TCP
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.sets import SetKind, set_id
from tests.enforcers.sockets import Sockets

NUMBERS: Final = {"node": 1, "web": 2, "a": 3, "b": 4}


def address(name: str, family: int = 4) -> str:
    return f"10.77.1.{NUMBERS[name]}" if family == 4 else f"fd77::{NUMBERS[name]}"


def packed(name: str, family: int = 4) -> bytes:
    return addresses.pack(address(name, family))


def both(*names: str) -> set[bytes]:
    return {packed(name, family) for name in names for family in (4, 6)}


def command(netns: Path, *words: str, text: str = "") -> str:
    """What a command in a namespace prints."""
    done = subprocess.run(
        ["nsenter", f"--net={netns}", *words], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{words} in {netns}: {done.stderr}"
    return done.stdout


class World(Sockets):
    """The namespaces, by short name."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = f"ewt-{secrets.token_hex(3)}"
        self.names = list(NUMBERS)
        self.chains: ChainBackendName = "restore"
        """How enforcements in it write chains."""

    def name(self, name: str) -> str:
        """As ``ip netns`` knows it."""
        return f"{self.prefix}-{name}"

    def path(self, name: str) -> Path:
        return Path("/run/netns") / self.name(name)

    def address(self, name: str, family: int) -> str:
        return address(name, family)

    def command(self, name: str, *words: str, text: str = "") -> str:
        return command(self.path(name), *words, text=text)

    def make(self) -> None:
        subprocess.run(["ip", "-batch", "-"], input=self._names("add"), text=True, check=True)
        others = [name for name in NUMBERS if name != "node"]
        lines = ["link add br0 type bridge mcast_snooping 0", *_address_lines("node", "br0")]
        for name in others:
            target = f"{self.prefix}-{name}"
            lines += [
                f"link add to-{name} type veth peer name eth0 netns {target}",
                f"link set to-{name} master br0 up",
            ]
        self.command("node", "ip", "-batch", "-", text="\n".join([*lines, "link set lo up", ""]))
        for name in others:
            self.command(
                name, "ip", "-batch", "-", text="\n".join([*_address_lines(name, "eth0"), "link set lo up", ""])
            )

        eventually(
            "the bridge's ports to forward",
            lambda: self.command("node", "bridge", "link").count("state forwarding") == len(others),
        )

    def ip(self, name: str, *lines: str) -> None:
        """Run lines of ``ip -batch``."""
        self.command(name, "ip", "-batch", "-", text="\n".join([*lines, ""]))

    def nest(self, name: str, *lines: str) -> None:
        """A namespace behind the Pod: its link eth0 leads to the Pod's link in0. *lines* of ip set it up."""
        subprocess.run(["ip", "netns", "add", f"{self.prefix}-{name}"], check=True)
        self.names.append(name)
        self.ip("web", f"link add in0 type veth peer name eth0 netns {self.prefix}-{name}", "link set in0 up")
        self.ip(name, "link set lo up", "link set eth0 up", *lines)

    def remove(self) -> None:
        self.sockets.close()
        subprocess.run(["ip", "-force", "-batch", "-"], input=self._names("del"), text=True, check=False)

    def _names(self, verb: str) -> str:
        return "".join(f"netns {verb} {self.prefix}-{name}\n" for name in self.names)

    def sandbox(self) -> Sandbox:
        return Sandbox(
            uid="uid-web",
            id="sandbox-1",
            namespace="shop",
            name="web",
            netns=self.path("web"),
            addresses=(packed("web"), packed("web", 6)),
        )

    def index(self, name: str, link: str = "eth0") -> int:
        """The number of a link, which a link-local address needs beside it."""
        return int(self.command(name, "ip", "-o", "link", "show", "dev", link).split(":")[0])

    def rules(self, name: str = "web", *, family: int = 4) -> str:
        """What iptables shows, without counters and comments of the tool."""
        tool = "iptables-nft-save" if family == 4 else "ip6tables-nft-save"
        lines = self.command(name, tool).splitlines()
        return "\n".join(line.split(" [")[0] for line in lines if not line.startswith("#"))

    def foreign_rules(self, name: str = "web", *, family: int = 4) -> str:
        """Everything that is not ours."""
        lines = self.rules(name, family=family).splitlines()
        return "\n".join(line for line in lines if "ew:" not in line and ":EW-" not in line)

    def handles(self) -> str:
        """The rules with the numbers that the kernel gave them: another number is another rule."""
        listing = self.command("web", "nft", "-a", "list", "ruleset")
        return "\n".join(line.split("counter")[0] + line.rpartition("#")[2] for line in listing.splitlines())


def _address_lines(name: str, link: str) -> list[str]:
    return [
        f"addr add {address(name)}/24 dev {link}",
        f"addr add {address(name, 6)}/64 dev {link} nodad",
        f"link set {link} up",
    ]


@contextlib.contextmanager
def made_world() -> Iterator[World]:
    world = World()
    try:
        world.make()
        yield world
    finally:
        world.remove()


def eventually(what: str, holds: Callable[[], bool], seconds: float = 15.0) -> None:
    """Wait until *holds*; says what it waited for."""
    limit = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < limit, f"waited {seconds} s for {what}"
        time.sleep(0.005)


CLIENTS: Final = set_id(SetKind.ADDRESSES, "clients")
VIRTUAL_ADDRESSES: Final = set_id(SetKind.ADDRESSES, "virtual")
VIRTUAL_PORTS: Final = set_id(SetKind.TUPLES, "virtual ports")
VIRTUAL_ALLOWED: Final = set_id(SetKind.TUPLES, "virtual allowed")
POLICY: Final = "NetworkPolicy/shop/web"


def sets(**members: set[bytes]) -> dict[str, TrackedSet]:
    """The node's sets: *clients*, *node* and what is given under its id."""
    return {
        NODE_SET: TrackedSet(members.pop("node", both("node"))),
        CLIENTS: TrackedSet(members.pop("clients", set())),
        **{identity: TrackedSet(found) for identity, found in members.items()},
    }


def rule(*ports: PortRange, peers: tuple[str, ...] | None = (CLIENTS,)) -> Rule:
    return Rule(id="rule0000000000aa", policy=POLICY, sets=peers, ports=ports or None)


def isolated(*rules: Rule, virtual: Virtual | None = None) -> Direction:
    return Direction(isolating=(POLICY,), rules=rules, virtual=virtual)


def program(*, ingress: Direction | None = None, egress: Direction | None = None) -> Program:
    return Program(uid="uid-web", namespace="shop", name="web", node="node-1", ingress=ingress, egress=egress)


PORT_80: Final = PortRange(TCP, 80, 80)

DENY = program(ingress=isolated())
ALLOW = program(ingress=isolated(rule(PORT_80)))


def pod_of(world: World, *, sandbox: Sandbox | None = None, **arguments: Any) -> PodEnforcement:
    pod = PodEnforcement(sandbox or world.sandbox(), DEFAULT_MARK, chains=world.chains, **arguments)
    world.sockets.callback(pod.close)
    return pod


async def enforced(world: World, wanted: Program, members: dict[str, TrackedSet]) -> PodEnforcement:
    pod = pod_of(world)
    await pod.realize(wanted, members)
    return pod
