"""One set as a node was told of it, with its newest changes numbered, and which addresses were given up meanwhile.

A Pod whose kernel is at number 41 needs only the changes since, not a comparison of everything.
"""

from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Set
from typing import Final

import msgspec

from enforcers.core.layout import Family
from schemas import sets
from schemas.sets import SetKind

REMEMBERED: Final = 64
"""Changes per set that can be applied one after the other; a Pod further behind is compared as a whole."""
RELEASES: Final = 1 << 16
"""Addresses whose release is remembered, some 10 MB. Of older ones it is not known any more, and sets gain first: to
take all that is lost for released would shut out every Pod that was only relabelled."""


class Step(msgspec.Struct, frozen=True):
    """What a set gained and lost between two of its versions."""

    added: frozenset[bytes]
    removed: frozenset[bytes]
    released: frozenset[bytes] = frozenset()
    """Those of *removed* whose address its owner has given up, in that moment or later: whoever has it now is another
    one. Where it only moved to another set its owner is the same."""


class Releases:
    """When addresses were given up by their owners, by the number of the update that told so.

    Kept for a whole node: what a set lost when its Pod was relabelled may be given up while it is in another set, and
    be another Pod's by the time that a kernel follows.
    """

    def __init__(self) -> None:
        self.update = 0
        """Number of the newest update."""
        self._newest: OrderedDict[bytes, int] = OrderedDict()

    def tell(self, released: Iterable[bytes]) -> None:
        """The next update begins, and tells that the addresses *released* were given up."""
        self.update += 1
        for address in released:
            self._newest[address] = self.update
            self._newest.move_to_end(address)
        while len(self._newest) > RELEASES:
            self._newest.popitem(last=False)

    def since(self, update: int, address: bytes) -> bool:
        """Whether *address* was given up in *update* or later."""
        return self._newest.get(address, -1) >= update


class _Change(msgspec.Struct, frozen=True):
    """What a set gained and lost at once."""

    update: int
    """The number of the update that told of it, as in `Releases`."""
    added: frozenset[bytes]
    removed: frozenset[bytes]


class TrackedSet:
    """The members of one set, and how they came to be what they are."""

    def __init__(
        self, members: Iterable[bytes] = (), *, first_version: int = 0, releases: Releases | None = None
    ) -> None:
        self.members = set(members)
        self.version = first_version
        """Number of the newest change."""
        self._releases = releases or Releases()
        self._changes: deque[_Change] = deque(maxlen=REMEMBERED)
        self._written: dict[Family, tuple[bytes, ...]] = {}

    @property
    def told(self) -> Set[bytes]:
        """The members as they were told."""
        return self.members

    def change(self, added: Iterable[bytes], removed: Iterable[bytes]) -> bool:
        """Apply a change; return whether there was any."""
        gains = frozenset(added) - self.members
        losses = (frozenset(removed) & self.members) - frozenset(added)
        if not gains and not losses:
            return False
        self.members |= gains
        self.members -= losses
        self._changes.append(_Change(self._releases.update, gains, losses))
        self._written.clear()
        self.version += 1
        return True

    def as_written(self, family: Family, write: Callable[[Set[bytes]], tuple[bytes, ...]]) -> tuple[bytes, ...]:
        """What *write* makes of the members for one family: made once until they change, for all Pods that name it."""
        if family not in self._written:
            self._written[family] = write(self.members)
        return self._written[family]

    @property
    def most(self) -> int:
        """No fewer than it had at any version that is remembered."""
        return len(self.members) + sum(len(each.removed) for each in self._changes)

    def since(self, version: int) -> Step | None:
        """The net change since *version*; ``None``: too long ago to know."""
        count = self.version - version
        if not 0 <= count <= len(self._changes):
            return None
        added, lost = _net(list(self._changes)[len(self._changes) - count :])
        released = (each for each, update in lost.items() if self._releases.since(update, self._address_of(each)))
        return Step(added, frozenset(lost), frozenset(released))

    def at(self, version: int) -> frozenset[bytes] | None:
        """The members as they were at *version*; ``None``: too long ago to know."""
        step = self.since(version)
        return None if step is None else frozenset((self.members - step.added) | step.removed)

    def _address_of(self, member: bytes) -> bytes:
        """Whose release counts for *member*: its own, in a set of addresses. Nobody owns, nor releases, a block."""
        return member


class TupleSet(TrackedSet):
    """A set of tuples on a node that has the addresses *node*: what was told of the own node, at each of these.

    A change of a tuple, or of an address, costs no more than the members that it makes or ends.
    """

    def __init__(
        self, node: frozenset[bytes] = frozenset(), *, first_version: int = 0, releases: Releases | None = None
    ) -> None:
        super().__init__(first_version=first_version, releases=releases)
        self._node = node
        self._told: set[bytes] = set()

    @property
    def told(self) -> Set[bytes]:
        return self._told

    def change(self, added: Iterable[bytes], removed: Iterable[bytes]) -> bool:
        gains = frozenset(added)
        losses = frozenset(removed) - gains
        self._told |= gains
        self._told -= losses
        return self._settle(member for each in (*gains, *losses) for member in self._meant(each))

    def move(self, node: frozenset[bytes]) -> bool:
        """The node has the addresses *node* now; return whether that changes anything."""
        moved = node ^ self._node
        self._node = node
        ours = [each for each in self._told if each == sets.here(each)]
        return self._settle(member for each in ours for member in _at(each, moved))

    def _settle(self, touched: Iterable[bytes]) -> bool:
        """Let the set hold those of *touched* that it should, and no others of them."""
        present: dict[bool, set[bytes]] = {True: set(), False: set()}
        for member in touched:
            present[self._is_meant(member)].add(member)
        return super().change(present[True], present[False])

    def _address_of(self, member: bytes) -> bytes:
        return sets.address_of(SetKind.TUPLES, member)

    def _meant(self, told: bytes) -> Iterable[bytes]:
        return _at(told, self._node) if told == sets.here(told) else (told,)

    def _is_meant(self, member: bytes) -> bool:
        address, _, _ = sets.unpack_endpoint(member)
        return member in self._told or (address in self._node and sets.here(member) in self._told)


def _at(member: bytes, node: Iterable[bytes]) -> Iterator[bytes]:
    """The tuple *member* of the own node at those of its addresses that are of the same family."""
    address, protocol, port = sets.unpack_endpoint(member)
    return (sets.endpoint(each, protocol, port) for each in node if len(each) == len(address))


def _net(changes: Iterable[_Change]) -> tuple[frozenset[bytes], dict[bytes, int]]:
    """What several changes come to, where the last word about a member differs from the first state.

    Returns what is added, and what is lost with the number of the update that took it away.
    """
    first: dict[bytes, bool] = {}
    last: dict[bytes, int | None] = {}  # when it was lost; there is no such time for what is there
    for change in changes:
        for member in change.added:
            first.setdefault(member, False)
            last[member] = None
        for member in change.removed:
            first.setdefault(member, True)
            last[member] = change.update
    added = frozenset(member for member, lost in last.items() if lost is None and not first[member])
    return added, {member: lost for member, lost in last.items() if lost is not None and first[member]}
