"""Who owns an address: a finished Pod's address is given to the next one, and for a while both may claim it."""

from collections.abc import Iterable

from processors.core.segmentation.selection.members import Workload


class Owners:
    """Claims to addresses. The claimant of the greatest rank owns: the Running one, of those one that is not being
    deleted, of those the newest; then uid and name, so that the answer never depends on the order of events.
    """

    def __init__(self) -> None:
        self._claims: dict[bytes, list[Workload]] = {}
        self._owners: dict[bytes, Workload] = {}

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


def _precedence(workload: Workload) -> tuple[object, ...]:
    view = workload.view
    return (*view.rank, view.namespace, view.name)
