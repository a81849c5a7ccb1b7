"""``-l``: which objects by their labels, as kubectl reads it."""

import re
from collections.abc import Callable, Mapping
from typing import Final

import click

Test = Callable[[Mapping[str, str]], bool]

_SET_BASED: Final = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_SEPARATOR: Final = re.compile(r",(?![^(]*\))")


def label_test(selector: str | None) -> Test:
    """The test that *selector* describes: ``a=b``, ``a!=b``, ``a``, ``!a``, ``a in (b, c)``, ``a notin (b)``; all hold.

    A missing label satisfies ``!=`` and ``notin``, as in the API. Raises `click.BadParameter`.
    """
    tests = [_requirement(part.strip()) for part in _SEPARATOR.split(selector or "") if part.strip()]
    return lambda labels: all(test(labels) for test in tests)


def _requirement(text: str) -> Test:
    if match := _SET_BASED.match(text):
        key, operator, values = match[1], match[2], {value.strip() for value in match[3].split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in values
        return lambda labels: labels.get(key) not in values
    for operator, equal in (("!=", False), ("==", True), ("=", True)):
        key, found, value = (part.strip() for part in text.partition(operator))
        if found:
            if not key:
                break
            return lambda labels: (labels.get(key) == value) is equal
    if re.search(r"[\s=()]", text) or text == "!":
        raise click.BadParameter(f"{text!r} is not a label selector")
    if text.startswith("!"):
        return lambda labels: text[1:].strip() not in labels
    return lambda labels: text in labels
