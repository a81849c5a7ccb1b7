"""Cases: initial objects, steps of changes, and the verdicts expected after each.

`read_jsonl` reads the JSON-lines suites; `compose.checking.suites.short_form` the short YAML form. Both end in the same
`Case`, and `History` turns a case into what a Kubelink would have written: uids, rising resource versions, the last
state on deletions, Pods bound to nodes.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec

from schemas import addresses
from schemas.addresses import ICMP, PROTOCOLS

Object = dict[str, Any]
"""A Kubernetes object as plain data."""
NODES: Final = ("node-1", "node-2")
"""Where Pods go that name no node: in turn."""
TIERS: Final = ("ClusterNetworkPolicy", "AdminNetworkPolicy", "BaselineAdminNetworkPolicy")
"""Policy kinds that are not supported yet."""
VERDICTS: Final = ("allowed", "blocked")


class CaseError(ValueError):
    """A case file that cannot be read: *path*, *where* in it, and *why*."""

    def __init__(self, path: str, where: str, why: str) -> None:
        super().__init__(f"{path}: {where}: {why}")
        self.path = path
        self.where = where
        self.why = why


class Cell(msgspec.Struct, frozen=True):
    """One connection and its expected verdict."""

    source: str
    """``namespace/pod``, or an address."""
    destination: str
    """``namespace/pod``, ``namespace/service`` after ``service:``, or an address."""
    protocol: int
    """ICMP means an echo request of the destination's family."""
    port: int
    allowed: bool

    def __str__(self) -> str:
        if self.protocol == ICMP:
            return f"{self.source} -> {self.destination} echo"
        return f"{self.source} -> {self.destination} {self.port}/{addresses.PROTOCOL_NAMES[self.protocol]}"


class Action(msgspec.Struct, frozen=True):
    """One change of the cluster."""

    verb: str
    """``create``, ``update`` or ``delete``."""
    object: Object
    """The whole new object; for ``delete`` kind, namespace and name suffice."""


class Step(msgspec.Struct, frozen=True):
    """Changes, and what is to hold after them."""

    name: str
    actions: tuple[Action, ...]
    cells: tuple[Cell, ...]


class Case(msgspec.Struct, frozen=True):
    """A policy test."""

    id: str
    name: str
    initial: tuple[Object, ...]
    steps: tuple[Step, ...]
    unsupported: str = ""
    """Why this case cannot be judged yet; empty for the others."""
    notes: tuple[str, ...] = ()
    """What a reader of the result must know, such as a disputed expectation."""
    tags: tuple[str, ...] = ()
    """By which cases are chosen."""


def read_jsonl(path: Path) -> Iterator[Case]:
    """The cases of a JSON-lines file, in order. Raises `CaseError`; `OSError` where there is no such file."""
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield read_case(json.loads(line))
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise CaseError(str(path), f"line {number}", f"not a case: {error!r}") from error


def read_case(data: Object) -> Case:
    """One case of a suite. Raises `KeyError`, `TypeError` or `ValueError` for what is not one."""
    initial = data["initial"]
    objects = (*initial.get("nodes", ()), *initial["namespaces"], *initial["pods"])
    disputed = data.get("disputed")
    steps = tuple(_step(index, step, disputed) for index, step in enumerate(data["steps"], 1))
    used = {action.object.get("kind", "") for step in steps for action in step.actions}
    tiers = sorted(used.intersection(TIERS))
    return Case(
        id=data["id"],
        name=data["name"],
        initial=objects,
        steps=steps,
        unsupported=f"needs {', '.join(tiers)}" if tiers else "",
        tags=_tags(data),
        notes=(f"disputed, judged as {disputed['oracle']}: {disputed['reason']}",) if disputed else (),
    )


def _tags(data: Object) -> tuple[str, ...]:
    """The suite's own, and ``default-run`` for what its tool runs unless asked for more."""
    default = (data.get("upstream") or {}).get("default_run")
    return (*data.get("tags", ()), *(("default-run",) if default else ()))


def _step(index: int, data: Object, disputed: Object | None) -> Step:
    actions: list[Action] = []
    for action in data["actions"]:
        actions += (Action("delete", found) for found in action.get("cascades", ()))
        actions.append(_action(action["kind"], action["object"]))
    return Step(data.get("name") or f"step {index}", tuple(actions), tuple(_cells(data["expected"], disputed)))


def _action(kind: str, found: Object) -> Action:
    verb, _, rest = kind.partition("_")
    if verb == "set" and rest.endswith("_labels"):
        return Action("update", found)
    if verb not in ("create", "update", "delete"):
        raise ValueError(f"unknown action {kind!r}")
    return Action(verb, found)


def _cells(expected: dict[str, dict[str, str]], disputed: Object | None) -> Iterable[Cell]:
    for service, table in expected.items():
        protocol, _, port = service.partition("/")
        for pair, verdict in table.items():
            source, arrow, destination = pair.partition("->")
            judged = disputed["oracle"] if disputed else verdict
            if not arrow or judged not in VERDICTS:
                raise ValueError(f"{pair!r}: {verdict!r} is not a connection and a verdict")
            yield Cell(source, destination, PROTOCOLS[protocol.upper()], int(port), judged == "allowed")
