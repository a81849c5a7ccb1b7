"""Which words of enforcers are news, for the record that auditors read (`wire.md`, the status topic)."""

from collections.abc import Iterable

from msgspec.structs import replace

from schemas.status import CvenStatus, Enforcement, Status, enforcement_of


class Confirmed:
    """What each node's enforcer confirmed last, as far as it was written down."""

    def __init__(self) -> None:
        self._written: dict[str, Enforcement] = {}
        self._news: dict[str, Enforcement] = {}

    def hear(self, statuses: Iterable[Status]) -> None:
        """Take in what components say; of several words of one node the last counts."""
        for status in statuses:
            if isinstance(status, CvenStatus):
                said = enforcement_of(status)
                written = self._written.get(said.node)
                if written is not None and replace(said, heartbeat=written.heartbeat) == written:
                    self._news.pop(said.node, None)
                else:
                    self._news[said.node] = said

    @property
    def news(self) -> list[Enforcement]:
        """What is to be written, by node."""
        return [self._news[node] for node in sorted(self._news)]

    def wrote(self, written: Iterable[Enforcement]) -> None:
        """*written* stands in the log; what was heard since then is still news."""
        for each in written:
            self._written[each.node] = each
            if self._news.get(each.node) == each:
                del self._news[each.node]
