"""Two indexes that find matches without looking at what cannot match.

`SelectorIndex`: given labels, which selectors match? `LabelIndex`: given a selector, which label sets match?
Both file by the *rarest* label pair that a match requires, so a thousand unrelated selectors or Pods cost nothing.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Generic, TypeVar

from processors.core.segmentation.selection.selectors import Selector

T = TypeVar("T")
Term = tuple[str, str | None]
"""A label pair, or a key with any value."""


class SelectorIndex(Generic[T]):
    """Selectors by one term that each requires; those that require none are looked at every time."""

    def __init__(self) -> None:
        self._buckets: dict[Term, dict[T, Selector]] = {}
        self._filed: dict[T, tuple[Term, ...]] = {}
        self._rest: dict[T, Selector] = {}

    def __bool__(self) -> bool:
        return bool(self._filed)

    def add(self, item: T, selector: Selector) -> None:
        """File *item*; a selector that matches nothing is not kept."""
        terms: tuple[Term, ...] = ()
        if not selector.impossible:
            terms = self._rarest(selector)
            for term in terms:
                self._buckets.setdefault(term, {})[item] = selector
            if not terms:
                self._rest[item] = selector
        self._filed[item] = terms

    def discard(self, item: T) -> None:
        for term in self._filed.pop(item, ()):
            bucket = self._buckets[term]
            del bucket[item]
            if not bucket:
                del self._buckets[term]
        self._rest.pop(item, None)

    def matching(self, labels: Mapping[str, str]) -> Iterator[T]:
        """Every item whose selector matches *labels*, once."""
        for item, selector in self._rest.items():
            if selector.matches(labels):
                yield item
        buckets = self._buckets
        if not buckets:
            return
        for pair in labels.items():
            for term in (pair, (pair[0], None)):
                for item, selector in buckets.get(term, {}).items():
                    if selector.matches(labels):
                        yield item

    def _rarest(self, selector: Selector) -> tuple[Term, ...]:
        """The terms to file under: one key's values, with the fewest selectors there already."""
        choices: list[tuple[Term, ...]] = [
            tuple((key, value) for value in sorted(values)) for key, values in selector.required.items()
        ]
        choices += [((key, None),) for key in sorted(selector.present)]
        return min(choices, key=self._crowd, default=())

    def _crowd(self, terms: Iterable[Term]) -> int:
        return sum(1 + len(self._buckets.get(term, ())) for term in terms)


class LabelIndex(Generic[T]):
    """Items with labels, by every pair and every key."""

    def __init__(self) -> None:
        self._items: dict[T, Mapping[str, str]] = {}
        self._buckets: dict[Term, dict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[T]:
        return iter(self._items)

    def add(self, item: T, labels: Mapping[str, str]) -> None:
        self._items[item] = labels
        for term in _terms(labels):
            self._buckets.setdefault(term, {})[item] = None

    def discard(self, item: T) -> None:
        for term in _terms(self._items.pop(item, {})):
            bucket = self._buckets[term]
            del bucket[item]
            if not bucket:
                del self._buckets[term]

    def matching(self, selector: Selector) -> Iterator[T]:
        """Every item whose labels *selector* matches, once."""
        if selector.impossible:
            return
        items = self._items
        for item in self._candidates(selector):
            if selector.matches(items[item]):
                yield item

    def _candidates(self, selector: Selector) -> Iterable[T]:
        fewest: list[dict[T, None]] | None = None
        size = len(self._items)
        choices: list[list[Term]] = [[(key, value) for value in values] for key, values in selector.required.items()]
        choices += [[(key, None)] for key in selector.present]
        for terms in choices:
            buckets = [bucket for term in terms if (bucket := self._buckets.get(term))]
            count = sum(map(len, buckets))
            if count < size or fewest is None:
                fewest, size = buckets, count
        if fewest is None:
            return self._items
        return (item for bucket in fewest for item in bucket)


def _terms(labels: Mapping[str, str]) -> Iterator[Term]:
    for key, value in labels.items():
        yield key, value
        yield key, None
