"""Many Pods of one node: each a namespace with addresses on a wire to the node's, without any way out.

What is measured or counted on many Pods needs no packets; a test about packets takes `pod_world`.
"""

import contextlib
import secrets
import subprocess
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from schemas.addresses import TCP
from schemas.programs import Direction, PortRange, Program, Rule
from schemas.sets import SetKind, set_id

NODE: Final = "node-1"
SETS: Final = tuple(set_id(SetKind.ADDRESSES, f"peers {number}") for number in range(5))
MAKERS: Final = 4
"""Threads that give namespaces their links."""


class Crowd:
    """*count* Pods, with namespaces that are made and removed as a test says."""

    def __init__(self, count: int) -> None:
        self.prefix = f"ewt-{secrets.token_hex(3)}"
        self.count = count
        self.node = Path(f"/run/netns/{self.prefix}-node")

    def path(self, number: int, life: int = 0) -> Path:
        return Path(f"/run/netns/{self.prefix}-{number}-{life}")

    def sandbox(self, number: int, life: int = 0, *, uid: str = "") -> Sandbox:
        """Another *life* of the Pod is another sandbox with another namespace and the same addresses.

        *uid* makes it another Pod of that name; empty: one that lives on.
        """
        return Sandbox(
            uid=uid or f"uid-{number}",
            id=f"sandbox-{number}-{life}",
            namespace="crowd",
            name=f"pod-{number}",
            netns=self.path(number, life),
            addresses=tuple(map(addresses.pack, _addresses(number))),
        )

    def make(self, numbers: Sequence[int], life: int = 0) -> None:
        names = {number: self.path(number, life).name for number in numbers}
        _batch("".join(f"netns add {name}\n" for name in names.values()))
        with ThreadPoolExecutor(MAKERS) as makers:
            list(makers.map(lambda number: self._furnish(number, life), names))

    def remove(self, numbers: Sequence[int], life: int = 0) -> None:
        _batch("".join(f"netns del {self.path(number, life).name}\n" for number in numbers))

    def wires(self) -> int:
        """How many ends are in the node's namespace: one per Pod's namespace that exists, named by a file or not."""
        return self.command(self.node, "ip", "-brief", "link").count("@")

    def command(self, path: Path, *words: str) -> str:
        done = subprocess.run(["nsenter", f"--net={path}", *words], capture_output=True, text=True, check=True)
        return done.stdout

    def remove_all(self) -> None:
        left = Path("/run/netns").glob(f"{self.prefix}-*")
        _batch("".join(f"netns del {path.name}\n" for path in left))

    def _furnish(self, number: int, life: int) -> None:
        four, six = _addresses(number)
        lines = (
            f"link add eth0 type veth peer name to-{number}-{life} netns {self.node.name}",
            f"addr add {four}/16 dev eth0",
            f"addr add {six}/64 dev eth0 nodad",
            "link set eth0 up",
        )
        _batch("\n".join([*lines, ""]), "-n", self.path(number, life).name)

    def program(self, number: int, *, uid: str = "", first_port: int = 1000, rules: int = 50) -> Program:
        """*rules* kernel rules beside those that every isolated Pod has, about `SETS`; other ports for every Pod.

        *uid* as for `sandbox`.
        """
        ports = range(first_port + number, first_port + number + rules // len(SETS))
        allowed = tuple(
            Rule(
                id=f"rule{number:04}{port:06}",
                policy="NetworkPolicy/crowd/peers",
                sets=SETS,
                ports=(PortRange(TCP, port, port),),
            )
            for port in ports
        )
        return Program(
            uid=uid or f"uid-{number}",
            namespace="crowd",
            name=f"pod-{number}",
            node=NODE,
            ingress=Direction(isolating=("NetworkPolicy/crowd/peers",), rules=allowed),
        )


def members(count: int = 50) -> dict[str, frozenset[bytes]]:
    """What `SETS` hold: *count* addresses each, half of each family."""
    return {
        identity: frozenset(
            addresses.pack(f"10.{80 + index}.0.{number}" if number % 2 else f"fd80:{index}::{number}")
            for number in range(1, count + 1)
        )
        for index, identity in enumerate(SETS)
    }


def _addresses(number: int) -> tuple[str, str]:
    return f"10.78.{number // 250}.{number % 250 + 1}", f"fd78::{number + 1:x}"


def _batch(lines: str, *options: str) -> None:
    subprocess.run(["ip", *options, "-batch", "-"], input=lines, text=True, check=True)


@contextlib.contextmanager
def made_crowd(count: int, *, empty: bool = False) -> Iterator[Crowd]:
    """*empty*: only the node's own namespace; the Pods' are made as they come."""
    crowd = Crowd(count)
    try:
        _batch(f"netns add {crowd.node.name}\n")
        if not empty:
            crowd.make(range(count))
        yield crowd
    finally:
        crowd.remove_all()
