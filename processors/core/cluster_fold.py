"""One cluster's log, folded: the one path from records to policy and inventory, for services, replay and tests alike.

records ──▶ Reader ──▶ facts ──┬─▶ PolicyFold ──▶ change of programs and sets
                               └─▶ InventoryFold ──▶ reports, when taken
"""

from collections.abc import Iterable

import msgspec

from processors.core.inventory_fold import InventoryFold
from processors.core.policy_fold import PolicyFold, PolicySettings
from processors.core.reading import Poison, Reader, Record
from schemas.policy import Policy, PolicyChange


class Advance(msgspec.Struct, frozen=True):
    """What some records changed."""

    change: PolicyChange
    facts: int
    poison: tuple[Poison, ...]
    revision: int
    """Offset of the newest record; -1 before the first."""
    time: str
    """``observed_at`` of the newest event that counted."""


class ClusterFold:
    """Everything that is derived from the log of one cluster. Feed it from the log's beginning."""

    def __init__(self, cluster: str, settings: PolicySettings) -> None:
        self._reader = Reader()
        self._policy = PolicyFold(settings)
        self.inventory = InventoryFold(cluster, self._policy, settings.mode_of)
        self.revision = -1
        self.time = ""

    @property
    def complete(self) -> bool:
        """Whether every kind was listed in the current epoch."""
        return self._reader.complete

    @property
    def epoch(self) -> int:
        """The current epoch; -1 before the first."""
        return self._reader.epoch

    def policy(self) -> Policy:
        """All programs and sets, as they should be at `revision`."""
        return self._policy.policy()

    def advance(self, records: Iterable[Record]) -> Advance:
        """Fold *records*, which follow those before."""
        batch = self._reader.read(records)
        step = self._policy.fold(batch.facts)
        self.inventory.fold_poison(batch.poison)
        self.inventory.fold(batch.facts)
        self.inventory.touch(step.touched)
        if step.noticed:
            self.inventory.notice()
        self.inventory.wait_for(self._reader.waiting_for)
        self.revision, self.time = batch.revision, batch.time
        return Advance(step.change, len(batch.facts), batch.poison, batch.revision, batch.time)
