"""Selector vectors as cases: a label selector, labels, and whether they match.

Every vector has a Namespace of its own, with a Pod that carries its labels, and is asked twice: does a policy with this
selector isolate the Pod, and does a rule with this selector admit it?
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from compose.checking.suites.cases import Action, Case, CaseError, Cell, Object, Step
from schemas.addresses import PROTOCOLS

VECTORS_PER_CASE: Final = 250
STRANGER: Final = "192.0.2.1"
"""Nobody's address (RFC 5737): whom no rule admits."""
PORT: Final = 80


def is_vector(line: str) -> bool:
    """Whether *line* is a vector and not a case."""
    found = json.loads(line)
    return isinstance(found, dict) and "selector" in found and "match" in found


def read_vectors(path: Path) -> Iterator[Case]:
    """The vectors of a JSON-lines file, many to a case. Raises `CaseError`; `OSError` where there is no such file."""
    with path.open(encoding="utf-8") as lines:
        numbered = [(number, line) for number, line in enumerate(lines, 1) if line.strip()]
    for start in range(0, len(numbered), VECTORS_PER_CASE):
        yield _case(path, numbered[start : start + VECTORS_PER_CASE])


def _case(path: Path, part: Iterable[tuple[int, str]]) -> Case:
    actions: list[Action] = []
    cells: list[Cell] = []
    numbers: list[int] = []
    for number, line in part:
        try:
            vector = json.loads(line)
            actions += (Action("create", item) for item in _objects(number, vector))
            cells += _cells(number, vector)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CaseError(str(path), f"line {number}", f"not a selector vector: {error!r}") from error
        numbers.append(number)
    name = f"{path.stem} {numbers[0]} to {numbers[-1]}"
    return Case(
        id=name.replace(" ", "-"), name=name, initial=(), steps=(Step("all at once", tuple(actions), tuple(cells)),)
    )


def _objects(number: int, vector: dict[str, Any]) -> Iterator[Object]:
    namespace, selector = f"v{number}", vector["selector"]
    yield {"kind": "Namespace", "metadata": {"name": namespace}, "status": {"phase": "Active"}}
    for position, (name, labels) in enumerate((("labelled", vector["labels"]), ("target", {"the": "target"}))):
        address = f"10.{128 + position}.{number >> 8}.{number & 255}"
        yield {
            "kind": "Pod",
            "metadata": {"namespace": namespace, "name": name, "labels": labels},
            "spec": {"containers": []},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        }
    admits = {
        "podSelector": {"matchLabels": {"the": "target"}},
        "ingress": [{"from": [{"podSelector": selector}]}],
    }
    yield _policy(namespace, "admits", admits)
    if selector is not None:  # a policy's own selector cannot be null: it is never absent
        yield _policy(namespace, "isolates", {"podSelector": selector, "policyTypes": ["Ingress"]})


def _policy(namespace: str, name: str, spec: Object) -> Object:
    return {"kind": "NetworkPolicy", "metadata": {"namespace": namespace, "name": name}, "spec": spec}


def _cells(number: int, vector: dict[str, Any]) -> Iterator[Cell]:
    matches = vector["match"]
    if not isinstance(matches, bool):
        raise TypeError(f"match is {matches!r}, and neither true nor false")
    if vector["selector"] is not None:
        yield Cell(STRANGER, f"v{number}/labelled", PROTOCOLS["TCP"], PORT, not matches)
    yield Cell(f"v{number}/labelled", f"v{number}/target", PROTOCOLS["TCP"], PORT, matches)
