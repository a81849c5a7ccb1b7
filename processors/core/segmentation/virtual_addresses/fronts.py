"""Front doors: every virtual address and (address, protocol, port), and the Services that claim it."""

from collections.abc import Iterable, Iterator

from processors.core.segmentation.address_sets import Ledger
from processors.core.segmentation.virtual_addresses.services import NOTHING, ServiceKey, Services, ServiceView
from processors.core.segmentation.virtual_addresses.signatures import HeldSet
from schemas import sets
from schemas.sets import SetKind

Claim = tuple[ServiceKey, int]
"""A Service, and which of its doors."""


class Fronts:
    """The views of all Services, and the fronts that they have between them."""

    def __init__(self, ledger: Ledger, services: Services) -> None:
        self.views: dict[ServiceKey, ServiceView] = {}
        self.addresses = HeldSet(ledger, SetKind.ADDRESSES, "virtual addresses")
        self.ports = HeldSet(ledger, SetKind.TUPLES, "virtual ports")
        self._services = services
        self._at: dict[bytes, dict[ServiceKey, None]] = {}
        self._claims: dict[bytes, dict[ServiceKey, int]] = {}

    @property
    def empty(self) -> bool:
        return not (self.views or self._at or self._claims)

    def replace(self, key: ServiceKey, new: ServiceView) -> set[ServiceKey]:
        """The Service *key* looks like *new* now; return the others that share a front with it, before or now."""
        old = self.views.get(key, NOTHING)
        if new == NOTHING:
            del self.views[key]
        else:
            self.views[key] = new
        shift(self._at, key, old.addresses, new.addresses)
        for address in old.addresses ^ new.addresses:
            (self.addresses.put if address in self._at else self.addresses.drop)(address)
        for door in old.doors:
            for item in door.tuples:
                self._claims[item].pop(key, None)
        for index, door in enumerate(new.doors):
            for item in door.tuples:
                self._claims.setdefault(item, {})[key] = index
        rivals: set[ServiceKey] = set()
        for item in {item for view in (old, new) for door in view.doors for item in door.tuples}:
            rivals.update(other for front in (item, *self.behind_every(item)) for other in self._claims.get(front, ()))
            self._count(item)
        return rivals - {key}

    def _count(self, item: bytes) -> None:
        """Let *item* be a virtual port as long as some Service has it other than at a ClusterIP."""
        claimants = self._claims[item]
        if not claimants:
            del self._claims[item]
        outer = any(item in self.views[other].doors[index].outer for other, index in claimants.items())
        (self.ports.put if outer else self.ports.drop)(item)

    def claims(self, item: bytes) -> Iterator[Claim]:
        """Who has *item*; for one at every address of the own node, also who has it at the address of some node."""
        found = self._claims.get(item, {})
        yield from found.items()
        if found and item == sets.here(item):
            own, protocol, port = sets.unpack_endpoint(item)
            for address in self._services.nodes_at:
                if len(address) == len(own):
                    yield from self._claims.get(sets.endpoint(address, protocol, port), {}).items()

    def behind_every(self, item: bytes) -> Iterable[bytes]:
        """The front at every address of the own node that *item*, at a node's address, is a part of."""
        everywhere = sets.here(item)
        is_part = everywhere in self._claims and sets.unpack_endpoint(item)[0] in self._services.nodes_at
        return (everywhere,) if is_part else ()


def shift(
    index: dict[bytes, dict[ServiceKey, None]], key: ServiceKey, old: Iterable[bytes], new: Iterable[bytes]
) -> None:
    """Move *key* from the addresses *old* to *new*."""
    for address in old:
        if (found := index.get(address)) is not None:
            found.pop(key, None)
            if not found:
                del index[address]
    for address in new:
        index.setdefault(address, {})[key] = None
