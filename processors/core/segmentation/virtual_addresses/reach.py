"""Which Services a signature could open at all: only those need judging.

A rule about Pods opens nothing but what has such a Pod behind it: the address finds the rule. A rule about any peer or
about blocks may open anything with a fitting port: those rules are few in kind (everything, DNS, the web), so both
sides are filed under the ports of such rules.
"""

from collections.abc import Iterable

from processors.core.segmentation.virtual_addresses.services import ServiceKey, ServiceView
from processors.core.segmentation.virtual_addresses.signatures import Shape, Signature


class Reach:
    """Signatures and Services, filed under the ports of rules that look at no Pod."""

    def __init__(self) -> None:
        self._signatures: dict[Shape, dict[Signature, None]] = {}
        self._services: dict[Shape, dict[ServiceKey, None]] = {}
        self._shapes: dict[Signature, Shape] = {}

    @property
    def empty(self) -> bool:
        return not (self._signatures or self._services or self._shapes)

    def file(self, signature: Signature, views: Iterable[tuple[ServiceKey, ServiceView]]) -> None:
        """*signature* has new rules; *views* are all Services, looked at for rules of a kind not seen before."""
        self.discard(signature)
        shape = self._shapes[signature] = signature.shape
        if shape and shape not in self._signatures:
            self._services[shape] = {key: None for key, view in views if _fits(shape, view)}
        if shape:
            self._signatures.setdefault(shape, {})[signature] = None

    def discard(self, signature: Signature) -> None:
        shape = self._shapes.pop(signature, None)
        if not shape:
            return
        del self._signatures[shape][signature]
        if not self._signatures[shape]:
            del self._signatures[shape], self._services[shape]

    def refresh(self, key: ServiceKey, view: ServiceView) -> None:
        """A Service changed."""
        for shape, keys in self._services.items():
            if _fits(shape, view):
                keys[key] = None
            else:
                keys.pop(key, None)

    def services(self, signature: Signature) -> Iterable[ServiceKey]:
        """The Services that *signature*'s rules about any peer and blocks may open."""
        return self._services.get(self._shapes[signature], ())

    def signatures(self, key: ServiceKey) -> Iterable[Signature]:
        """The signatures whose rules about any peer and blocks may open the Service *key*."""
        return [found for shape, keys in self._services.items() if key in keys for found in self._signatures[shape]]


def _fits(shape: Shape, view: ServiceView) -> bool:
    """Whether some endpoint's port is one of *shape*."""
    if None in shape:
        return bool(view.doors)
    ranges = [item for ports in shape for item in ports or ()]
    return any(
        item.protocol == target.protocol and item.first <= target.port <= item.last
        for target in view.targets
        for item in ranges
    )
