"""Address sets and what a batch changes in them, netted: what joins and leaves within one batch never shows.

A set has members only while some program names it. Who owns a set (a selection, a block, a Service signature) fills
it when it is named and keeps it current from then on.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from schemas import sets
from schemas.policy import SetChange
from schemas.sets import SetKind

if TYPE_CHECKING:  # who looks at a set is none of its business
    from processors.core.segmentation.virtual_addresses.signatures import Signature


class AddressSet:
    """One address set; the kinds of sets fill it from where they know."""

    __slots__ = ("__weakref__", "_added", "_ledger", "_removed", "id", "members", "named", "published", "watchers")

    def __init__(self, ledger: "Ledger", kind: SetKind, definition: str) -> None:
        self.id = sets.set_id(kind, definition)
        self.members: set[bytes] = set()
        """Current while the set is named."""
        self.named = 0
        """How many directions in use name it."""
        self.published = False
        """Whether receivers hold it, as of the batch before."""
        self.watchers: set[Signature] = set()
        """Egress signatures whose rules name it."""
        self._ledger = ledger
        self._added: set[bytes] = set()
        self._removed: set[bytes] = set()

    def fill(self) -> Iterable[bytes]:
        """The members as of now; from here on its owner keeps them current."""
        return ()

    def rest(self) -> None:
        """No program names the set any more: its owner need not keep it current."""

    def add(self, member: bytes) -> None:
        if member in self.members:
            return
        self.members.add(member)
        if member in self._removed:
            self._removed.discard(member)
        else:
            self._added.add(member)
        self._ledger.touched.add(self)

    def discard(self, member: bytes) -> None:
        if member not in self.members:
            return
        self.members.discard(member)
        if member in self._added:
            self._added.discard(member)
        else:
            self._removed.add(member)
        self._ledger.touched.add(self)

    def name(self) -> None:
        """One more direction names it."""
        if not self.named and not self.published:
            self.members = set(self.fill())
            self._added.clear()
            self._removed.clear()
        self.named += 1
        self._ledger.touched.add(self)

    def release(self) -> None:
        """One direction fewer names it; it stays filled until the batch ends."""
        self.named -= 1
        self._ledger.touched.add(self)

    def moved(self) -> Iterable[bytes]:
        """What joined or left in this batch."""
        return self._added | self._removed

    def settle(self) -> SetChange | None:
        """What the batch changed for receivers; the next batch begins."""
        added, removed, known = self._added, self._removed, self.published
        self._added, self._removed = set(), set()
        self.published = self.named > 0
        if not self.published:
            self.members = set()
            self.rest()
            return SetChange(id=self.id, gone=True) if known else None
        if not known:
            return SetChange(id=self.id, added=frozenset(self.members))
        if added or removed:
            return SetChange(id=self.id, added=frozenset(added), removed=frozenset(removed))
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.id} {len(self.members)} members, named {self.named}>"


class FixedSet(AddressSet):
    """A set whose definition is its content, such as a block with its exceptions."""

    __slots__ = ("_content",)

    def __init__(self, ledger: "Ledger", kind: SetKind, definition: str, content: frozenset[bytes]) -> None:
        super().__init__(ledger, kind, definition)
        self._content = content

    def fill(self) -> Iterable[bytes]:
        return self._content


class Ledger:
    """Every published set, and those that the current batch touched."""

    def __init__(self) -> None:
        self.touched: set[AddressSet] = set()
        self.published: dict[str, AddressSet] = {}

    def settle(self) -> tuple[SetChange, ...]:
        """What the batch changed, by id; the next batch begins."""
        changes = []
        for touched in self.touched:
            change = touched.settle()
            if touched.published:
                self.published[touched.id] = touched
            else:
                self.published.pop(touched.id, None)
            if change is not None:
                changes.append(change)
        self.touched = set()
        changes.sort(key=lambda change: change.id)
        return tuple(changes)
