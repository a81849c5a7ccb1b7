"""Label selectors: read leniently, kept in one canonical form, so that selectors which mean the same are the same.

Source of the rules: ``LabelSelector`` (meta/v1) field comments and ``LabelSelectorAsSelector``: *NotIn* and
*DoesNotExist* match objects without the key; *In* and *NotIn* need values, *Exists* and *DoesNotExist* forbid them.
"""

from collections.abc import Mapping
from typing import Final, cast

import msgspec

LabelPairs = tuple[tuple[str, str], ...]
"""Labels as sorted pairs: hashable, and equal where the labels are."""


class Unreadable(ValueError):
    """A part of a policy that cannot be read: *where* it stands and *why*."""

    def __init__(self, where: str, why: str) -> None:
        super().__init__(f"{where}: {why}")
        self.where = where
        self.why = why


class Selector:
    """A label selector in canonical form. Equal and hashed by meaning, as far as single keys go."""

    __slots__ = ("_hash", "absent", "excluded", "impossible", "present", "required", "text")

    def __init__(
        self,
        required: Mapping[str, frozenset[str]],
        excluded: Mapping[str, frozenset[str]],
        present: frozenset[str],
        absent: frozenset[str],
        impossible: bool,
    ) -> None:
        self.required = required
        """Key → the values one of which it must have."""
        self.excluded = excluded
        """Key → the values it must not have; a missing key satisfies."""
        self.present = present
        self.absent = absent
        self.impossible = impossible
        """It contradicts itself and matches nothing."""
        self.text = "nothing" if impossible else _text(required, excluded, present, absent)
        """The canonical form: equal for selectors of equal meaning; part of set ids."""
        self._hash = hash(self.text)

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether *labels* satisfy every requirement."""
        if self.impossible:
            return False
        for key, values in self.required.items():
            if labels.get(key) not in values:
                return False
        for key in self.present:
            if key not in labels:
                return False
        for key in self.absent:
            if key in labels:
                return False
        return all(labels.get(key) not in values for key, values in self.excluded.items())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Selector) and self.text == other.text

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        return f"Selector({self.text})"


def _text(
    required: Mapping[str, frozenset[str]],
    excluded: Mapping[str, frozenset[str]],
    present: frozenset[str],
    absent: frozenset[str],
) -> str:
    form: dict[str, object] = {}
    if required:
        form["in"] = {key: sorted(required[key]) for key in sorted(required)}
    if excluded:
        form["not in"] = {key: sorted(excluded[key]) for key in sorted(excluded)}
    if present:
        form["present"] = sorted(present)
    if absent:
        form["absent"] = sorted(absent)
    return msgspec.json.encode(form).decode()


def read_selector(value: object, where: str) -> Selector:
    """The selector that decoded JSON *value* says; *where* names its place. Raises `Unreadable`."""
    if not isinstance(value, dict):
        raise Unreadable(where, f"is {_name(value)}, not a selector")
    if unknown := value.keys() - {"matchLabels", "matchExpressions"}:
        raise Unreadable(where, f"has the unknown field {min(unknown)!r}")
    gathered = _Gathered()
    labels = value.get("matchLabels")
    if labels is None:
        labels = {}
    if not isinstance(labels, dict):
        raise Unreadable(f"{where}.matchLabels", f"is {_name(labels)}, not an object")
    for key, text in labels.items():
        if not isinstance(text, str):
            raise Unreadable(f"{where}.matchLabels[{key}]", f"is {_name(text)}, not a string")
        gathered.require(key, frozenset((text,)))
    expressions = value.get("matchExpressions")
    if expressions is None:
        expressions = []
    if not isinstance(expressions, list):
        raise Unreadable(f"{where}.matchExpressions", f"is {_name(expressions)}, not a list")
    for index, expression in enumerate(expressions):
        gathered.add(expression, f"{where}.matchExpressions[{index}]")
    return gathered.selector()


class _Gathered:
    """Requirements while a selector is read."""

    def __init__(self) -> None:
        self.required: dict[str, frozenset[str]] = {}
        self.excluded: dict[str, frozenset[str]] = {}
        self.present: set[str] = set()
        self.absent: set[str] = set()

    def require(self, key: str, values: frozenset[str]) -> None:
        before = self.required.get(key)
        self.required[key] = values if before is None else before & values

    def add(self, expression: object, where: str) -> None:
        if not isinstance(expression, dict):
            raise Unreadable(where, f"is {_name(expression)}, not an object")
        if unknown := expression.keys() - {"key", "operator", "values"}:
            raise Unreadable(where, f"has the unknown field {min(unknown)!r}")
        key, operator = expression.get("key"), expression.get("operator")
        if not isinstance(key, str) or not key:
            raise Unreadable(f"{where}.key", "is not a label key")
        values = _values(expression.get("values"), where)
        match operator:
            case "In" if values:
                self.require(key, values)
            case "NotIn" if values:
                self.excluded[key] = self.excluded.get(key, frozenset()) | values
            case "Exists" if not values:
                self.present.add(key)
            case "DoesNotExist" if not values:
                self.absent.add(key)
            case "In" | "NotIn":
                raise Unreadable(f"{where}.values", f"must not be empty for {operator}")
            case "Exists" | "DoesNotExist":
                raise Unreadable(f"{where}.values", f"must be empty for {operator}")
            case _:
                raise Unreadable(f"{where}.operator", f"{operator!r} is not In, NotIn, Exists or DoesNotExist")

    def selector(self) -> Selector:
        """Drop what other requirements imply, and see contradictions."""
        for key in [key for key in self.excluded if key in self.required]:
            self.required[key] -= self.excluded.pop(key)
        impossible = (
            not all(self.required.values())
            or not self.absent.isdisjoint(self.required)
            or not self.absent.isdisjoint(self.present)
        )
        if impossible:
            return NOTHING
        return Selector(
            self.required,
            {key: values for key, values in self.excluded.items() if key not in self.absent},
            frozenset(self.present - self.required.keys()),
            frozenset(self.absent),
            impossible=False,
        )


def _values(value: object, where: str) -> frozenset[str]:
    if value is None:
        return frozenset()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise Unreadable(f"{where}.values", "is not a list of strings")
    return frozenset(cast("list[str]", value))


def _name(value: object) -> str:
    """What *value* is, in JSON's words."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


NOTHING: Final = Selector({}, {}, frozenset(), frozenset(), impossible=True)
EVERYTHING: Final = Selector({}, {}, frozenset(), frozenset(), impossible=False)
