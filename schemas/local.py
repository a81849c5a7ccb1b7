"""What an enforcer says on its own node, over a unix socket: to whoever stands in front of it while all else is away.

JSON over HTTP, for `eastwest node` only: it may change with the version, since both ends are of the same one.
"""

from typing import Final

import msgspec

from schemas.programs import Program
from schemas.status import Order, PodState

COUNT: Final = "X-Count"
DEFAULT_SOCKET: Final = "/run/eastwest/enforcer.sock"


class NodeState(msgspec.Struct, frozen=True, kw_only=True):
    """The enforcer itself."""

    node: str
    version: str
    realized: int
    """Newest revision realized; -1: none."""
    known: bool
    """Whether it knows the node's complete policy, or enforces what it kept on disk."""
    from_disk: bool
    observing: bool
    orders: tuple[Order, ...]
    pods: dict[PodState, int]
    """How many are in which state."""
    sets_by: str
    """How address sets are written: ``netlink`` or ``restore``, which is the ipset tool."""
    chains_by: str
    """How chains are: ``netlink`` or ``restore``, which is iptables-nft-restore."""
    problems: tuple[str, ...] = ()


class PodLine(msgspec.Struct, frozen=True, kw_only=True):
    """One Pod of the node."""

    namespace: str
    name: str
    uid: str
    state: PodState
    bypassable: bool
    rules: int
    """Of its program, both directions."""
    sets: int
    """That they name."""
    patches: int
    """Written since it was found."""
    connections: int
    """Tracked in its namespace when it was last looked into, at most some ten seconds ago."""
    connections_limit: int
    """How many may be; 0: not known, as of a Pod without rules."""
    reason: str
    """Why it does not hold what it should."""
    problems: tuple[str, ...]
    """What is wrong though it may hold what it should."""
    netns: str


class SetLine(msgspec.Struct, frozen=True, kw_only=True):
    """One address set that this node's programs name."""

    id: str
    members: int
    pods: int
    """That name it."""


class ProgramView(msgspec.Struct, frozen=True, kw_only=True):
    """A program, and the members of the sets that it names."""

    program: Program
    sets: dict[str, tuple[bytes, ...]]


class RuleCounter(msgspec.Struct, frozen=True, kw_only=True):
    """What one rule in the kernel has seen since it was written."""

    family: int
    chain: str
    rule: str
    """Id of the program's rule, or what it is for."""
    policies: tuple[str, ...] = ()
    """The object behind it; for a block, all that isolate."""
    packets: int
    bytes: int


class PodCounters(msgspec.Struct, frozen=True, kw_only=True):
    namespace: str
    name: str
    counters: tuple[RuleCounter, ...] = ()
    error: str = ""


class PatchNote(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A patch that was written to one Pod."""

    time: str
    """RFC 3339, when it was written whole."""
    namespace: str
    name: str
    what: str
    milliseconds: float
    """It took, waiting for a turn not included."""


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """What the kernel holds for one Pod, compared with what it should hold.

    They come as JSON lines, each as soon as it is known; the header `COUNT` tells how many there will be.
    """

    namespace: str
    name: str
    differences: tuple[str, ...] = ()
    error: str = ""
    """Why it could not be compared."""


class Trouble(msgspec.Struct, frozen=True):
    """The body of every answer but 200."""

    error: str
