"""An enforcer reduced to what it was told."""

import msgspec


class Receiver:
    """Keeps what updates say, and is strict about what they promise."""

    def __init__(self):
        self.programs = {}
        self.sets = {}
        self.mark = None
        self.completes = 0

    def apply(self, update):
        gone = {change.id for change in update.sets if change.gone}
        for change in update.sets:
            if change.gone:
                assert change.id in self.sets, "a set goes that was never there"
                continue
            assert not change.added & change.removed
            members = self.sets.get(change.id, frozenset())
            self.sets[change.id] = (members | change.added) - change.removed
            if update.complete:
                assert self.sets[change.id] == change.added, "a complete update's additions are all members"
        for item in update.programs:
            assert item.sets <= self.sets.keys() - gone, "a program names a set that is not known"
            self.programs[item.uid] = msgspec.structs.replace(item, revision=-1)  # of the message, not of the policy
        for uid in update.gone:
            assert self.programs.pop(uid, None), "a program goes that was never there"
        for identity in gone:
            del self.sets[identity]
        if update.complete:
            self.completes += 1
            assert update.mark is not None
            assert {item.uid for item in update.programs} == self.programs.keys()
            assert {change.id for change in update.sets} - gone == self.sets.keys()
        if update.mark is not None:
            self.mark = update.mark
