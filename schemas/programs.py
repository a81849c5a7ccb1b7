"""Programs: what one Pod must enforce.

A program names no address of its own Pod, so it exists as soon as the Pod is bound to a node. It refers to address
sets by id and carries, beside each rule, the policy behind it: what the kernel does and why travel together.
"""

import base64
import functools
import hashlib
from enum import StrEnum
from typing import Final

import msgspec

from schemas.addresses import PROTOCOL_NAMES

RULE_ID_BYTES: Final = 10
DENIAL_BYTES: Final = 6


class Mode(StrEnum):
    """How the Pods of a namespace are managed. Later modes (visibility only, full) join here."""

    IDLE = "idle"
    """Nothing is programmed, not even connection tracking; inventory only."""
    SELECTIVE = "selective"
    """Policies are enforced exactly; what no policy isolates is open."""


class PortRange(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """Destination ports *first* to *last*, both included, of one protocol (number); 0 to 65535 is every port."""

    protocol: int
    first: int = 0
    last: int = 65535

    def __str__(self) -> str:
        name = PROTOCOL_NAMES.get(self.protocol, str(self.protocol))
        if (self.first, self.last) == (0, 65535):
            return f"any/{name}"
        return f"{self.first}/{name}" if self.first == self.last else f"{self.first}-{self.last}/{name}"


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Allows a new connection whose peer is in any of *sets* and whose destination port is in any of *ports*."""

    id: str
    """Stable: derived from the policy, its rule and the content (`rule_id`). In the kernel rule's comment."""
    policy: str
    """The object behind it: ``NetworkPolicy/<namespace>/<name>``."""
    sets: tuple[str, ...] | None = None
    """Peers by set id, any of them; ``None``: any peer. A *tuples* set matches address, protocol and port."""
    ports: tuple[PortRange, ...] | None = None
    """``None``: any port of any protocol."""


class Virtual(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How egress to virtual addresses is decided: before every rule, and finally.

    A packet to a Service still carries the virtual address where a Pod's rules see it, so rules about Pods and blocks
    say nothing about it. The Service is open iff every endpoint behind it is.
    """

    addresses: str
    """Set of the addresses that are virtual whatever the port (ClusterIPs)."""
    ports: str
    """Set of the (address, protocol, port) that are virtual: external and load-balancer addresses, NodePorts."""
    allowed: tuple[str, ...]
    """Sets of the virtual (address, protocol, port) that this Pod may reach; no other virtual address passes."""


class Direction(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """An isolated direction: what no rule allows is blocked."""

    isolating: tuple[str, ...]
    """The policies that isolate, sorted: the reason of a block."""
    rules: tuple[Rule, ...] = ()
    """Sorted by policy, then in the policy's order."""
    virtual: Virtual | None = None
    """Egress only."""


class Program(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """What one Pod must enforce. Travels on ``policy.<cluster>.pod.<node>.<uid>``, whole."""

    uid: str
    namespace: str
    name: str
    node: str
    mode: Mode = Mode.SELECTIVE
    mirror: str = ""
    """A static Pod's id at the runtime, where it differs from *uid*."""
    advisory: bool = False
    """Some container may edit the Pod's own rules: it is privileged or has NET_ADMIN."""
    bypassable: bool = False
    """Some container may send packets past its rules: it has NET_RAW."""
    ingress: Direction | None = None
    """``None``: not isolated in this direction."""
    egress: Direction | None = None

    def policies_of(self, rule: str) -> tuple[str, ...]:
        """The policies behind the rule of that id: the one that allows, or all that isolate; none for other ids."""
        for direction in (self.ingress, self.egress):
            if direction is not None:
                if any(rule == denial_id(denial, direction.isolating) for denial in Denial):
                    return direction.isolating
                if policy := next((each.policy for each in direction.rules if each.id == rule), ""):
                    return (policy,)
        return ()

    @property
    def isolated(self) -> bool:
        """Whether it has rules at all."""
        return self.ingress is not None or self.egress is not None

    @property
    def isolates(self) -> bool:
        """Whether it asks for any rule."""
        return self.ingress is not None or self.egress is not None

    @property
    def sets(self) -> frozenset[str]:
        """Every set that must exist before this program."""
        found: set[str] = set()
        for direction in (self.ingress, self.egress):
            if direction is None:
                continue
            for rule in direction.rules:
                found.update(rule.sets or ())
            if virtual := direction.virtual:
                found.update((virtual.addresses, virtual.ports, *virtual.allowed))
        return frozenset(found)


def rule_id(*parts: str) -> str:
    """16 characters, derived from *parts*: the same wherever and whenever computed."""
    digest = hashlib.blake2b("\0".join(parts).encode(), digest_size=RULE_ID_BYTES).digest()
    return base64.b32encode(digest).decode().lower()


class Denial(StrEnum):
    """Why a direction's last rules block."""

    DEFAULT = "default"
    """No rule allows it."""
    VIRTUAL = "virtual"
    """A virtual address that is not open."""
    UNMARKED = "unmarked"
    """A reply of a connection that was cut, or never judged."""


@functools.lru_cache(maxsize=4096)
def denial_id(denial: Denial, isolating: tuple[str, ...]) -> str:
    """The id of a blocking rule, in the kernel as in a verdict: ``default-5f0c…``, at most 21 characters.

    It names the *set* of isolating policies, however many: whoever holds the program finds them by it, also from a log
    prefix, which has room for 63 characters.
    """
    digest = hashlib.blake2b("\0".join(isolating).encode(), digest_size=DENIAL_BYTES).hexdigest()
    return f"{denial}-{digest}"


encode_program = msgspec.msgpack.Encoder().encode
decode_program = msgspec.msgpack.Decoder(Program).decode
