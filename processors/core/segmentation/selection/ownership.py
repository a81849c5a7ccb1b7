"""Who owns an address: a finished Pod's address is given to the next one, and for a while both may claim it."""

from collections.abc import Iterable

from processors.core.segmentation.selection.members import Workload

PodId = tuple[str, ...]
"""Namespace, name and uid."""


class Owners:
    """Claims to addresses. The claimant of the greatest rank owns: the Running one, of those one that is not being
    deleted, of those the newest; then uid and name, so that the answer never depends on the order of events.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, list[Workload]] = {}
        self._owners: dict[bytes, Workload] = {}
        self._former: dict[bytes, PodId] = {}  # who owned first, in this batch, what was decided anew

    def __len__(self) -> int:
        return len(self._claims)

    def get(self, address: bytes) -> Workload | None:
        return self._owners.get(address)

    def contested(self, addresses: Iterable[bytes]) -> set[bytes]:
        """Those of *addresses* that more than one Pod claims."""
        return {address for address in addresses if len(self._claims.get(address, ())) > 1}

    def claim(self, workload: Workload, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            self._claims.setdefault(address, []).append(workload)

    def withdraw(self, workload: Workload, addresses: Iterable[bytes]) -> None:
        for address in addresses:
            self._claims[address].remove(workload)

    @property
    def released(self) -> frozenset[bytes]:
        """Addresses that a Pod owned before and does not own any more since this batch, whoever does now.

        One that only leaves or joins selections, since its Pod's labels or a policy changed, is not among them.
        """
        return frozenset(address for address, former in self._former.items() if _id_of(self.get(address)) != former)

    def unsettle(self, address: bytes) -> Workload | None:
        """Who owns *address*, before claims or claimants change and it is decided anew."""
        owner = self.get(address)
        if owner is not None and owner.cohort is not None:
            self._former.setdefault(address, _id_of(owner))
        return owner

    def settle(self, address: bytes) -> Workload | None:
        """Decide anew who owns *address*."""
        claimants = self._claims.get(address)
        if not claimants:
            self._claims.pop(address, None)
            self._owners.pop(address, None)
            return None
        owner = claimants[0] if len(claimants) == 1 else max(claimants, key=_precedence)
        self._owners[address] = owner
        return owner

    def forget_former(self) -> None:
        """The next batch begins."""
        self._former.clear()


def _precedence(workload: Workload) -> tuple[object, ...]:
    view = workload.view
    return (*view.rank, view.namespace, view.name)


def _id_of(workload: Workload | None) -> PodId:
    """Which Pod *workload* is: another one of the same name has another uid. Of nobody: empty."""
    return (workload.view.namespace, workload.view.name, workload.view.uid) if workload is not None else ()
