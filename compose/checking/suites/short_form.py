"""The short form of a policy test: YAML, one case per document.

    case: a Pod that a policy selects admits only whom a rule names
    pods:
      shop/client: {labels: {app: client}}
      shop/stranger:
      shop/web: {labels: {app: web}, ports: {http: 8080}}
    policies:
      shop/web:
        podSelector: {matchLabels: {app: web}}
        ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
    allow: [shop/client -> shop/web 8080]
    deny: [shop/stranger -> shop/web 8080]
    steps:
      - name: the label goes
        pods: {shop/client: {labels: {}}}
        deny: [shop/client -> shop/web 8080]

The document itself is the first step. Every step may hold ``namespaces`` (name: labels), ``nodes`` (name: addresses),
``pods``, ``services``, ``policies`` (name: spec, as it stands), ``objects`` (whole manifests), ``delete`` (log keys),
``allow`` and ``deny``. What exists is changed, and keeps what is not said again. `World` has the words for each.

A line is ``SOURCE -> DESTINATION PORT[/PROTOCOL], …``. A source is a Pod or an address; a destination also
``service:namespace/name``. The protocol is TCP unless said otherwise; ``echo`` is no port but an ICMP echo request.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from compose.checking.suites.cases import Action, Case, CaseError, Cell, Step
from compose.checking.suites.manifests import Misspelt, World, checked, split
from schemas.addresses import ECHO, ICMP, PROTOCOLS

Object = dict[str, Any]
STEP_WORDS: Final = frozenset(
    ("name", "namespaces", "nodes", "pods", "services", "policies", "objects", "delete", "allow", "deny")
)
CASE_WORDS: Final = STEP_WORDS - {"name"} | {"case", "rule", "why", "steps"}
"""``rule`` and ``why`` are for people: which sentence of the specification this is, and why it matters."""


def read_short_form(path: Path) -> Iterator[Case]:
    """The cases of a YAML file, in order. Raises `CaseError`; `OSError` where there is no such file."""
    try:
        documents = list(yaml.safe_load_all(path.read_text(encoding="utf-8")))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CaseError(str(path), "the file", f"is not YAML: {error}") from error
    for number, document in enumerate(documents, 1):
        if document is None:
            continue
        where = f"document {number}"
        try:
            if isinstance(document, dict) and "case" in document:
                where = f"{where} ({document['case']})"
            yield _Reading(f"{path.stem}/{number}", document).case()
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            why = str(error) if isinstance(error, Misspelt) else f"is not a case: {error!r}"
            raise CaseError(str(path), where, why) from error


class _Reading:
    """One document."""

    def __init__(self, identity: str, document: object) -> None:
        self._id = identity
        self._document = checked("the case", document, CASE_WORDS)
        self._world = World()
        self._namespaces: set[str] = set()

    def case(self) -> Case:
        document = self._document
        first = {key: value for key, value in document.items() if key in STEP_WORDS}
        steps = [self._step("at first", first)]
        for index, step in enumerate(document.get("steps") or (), 2):
            words = checked(f"step {index}", step, STEP_WORDS)
            steps.append(self._step(words.get("name") or f"step {index}", words))
        rule = f"{document['rule']}: " if "rule" in document else ""
        return Case(id=self._id, name=f"{rule}{document['case']}", initial=(), steps=tuple(steps))

    def _step(self, name: str, words: Object) -> Step:
        actions = [*self._deletions(words.get("delete") or ()), *self._changes(words)]
        cells = [cell for line in words.get("allow") or () for cell in read_line(line, allowed=True)]
        cells += [cell for line in words.get("deny") or () for cell in read_line(line, allowed=False)]
        return Step(name, tuple(actions), tuple(cells))

    def _changes(self, words: Object) -> Iterator[Action]:
        """Everything that a step says is, in the order in which a cluster gets it."""
        world = self._world
        for name, labels in (words.get("namespaces") or {}).items():
            self._namespaces.add(name)
            yield Action("update", world.namespace(name, labels))
        for kind in ("pods", "services", "policies"):
            for ref in words.get(kind) or ():
                name = split(ref)[0]
                if name not in self._namespaces:
                    self._namespaces.add(name)
                    yield Action("create", world.namespace(name, None))
        for name, found in (words.get("nodes") or {}).items():
            yield Action("update", world.node(name, found))
        for ref, said in (words.get("pods") or {}).items():
            yield Action("update", world.pod(ref, said))
        for ref, said in (words.get("services") or {}).items():
            objects, gone = world.service(ref, said)
            yield from self._slices_gone(ref, gone)
            yield from (Action("update", item) for item in objects)
        for ref, spec in (words.get("policies") or {}).items():
            yield Action("update", world.policy(ref, spec))
        yield from (Action("update", item) for item in words.get("objects") or ())

    def _deletions(self, keys: object) -> Iterator[Action]:
        for key in keys if isinstance(keys, list) else ():
            kind, namespace, name = key.split("/")
            ref = f"{namespace}/{name}"
            meta = {"name": name} if namespace == "-" else {"namespace": namespace, "name": name}
            if kind == "Pod":
                self._world.forget_pod(ref)
            if kind == "Service":
                yield from self._slices_gone(ref, self._world.forget_service(ref))
            yield Action("delete", {"kind": kind, "metadata": meta})

    def _slices_gone(self, ref: str, gone: list[str]) -> Iterator[Action]:
        namespace = split(ref)[0]
        for name in gone:
            yield Action("delete", {"kind": "EndpointSlice", "metadata": {"namespace": namespace, "name": name}})


def read_line(line: str, *, allowed: bool) -> Iterator[Cell]:
    """The cells that a line of ``allow`` or ``deny`` says. Raises `Misspelt`."""
    source, arrow, rest = (part.strip() for part in str(line).partition("->"))
    destination, _, ports = rest.partition(" ")
    if not (source and arrow and ports):
        raise Misspelt(f"{line!r} is not SOURCE -> DESTINATION PORT[/PROTOCOL], …")
    for item in ports.split(","):
        if item.strip() == "echo":
            yield Cell(source, destination, ICMP, ECHO[ICMP], allowed)
            continue
        port, _, protocol = item.strip().partition("/")
        if not port.isdecimal() or (protocol or "TCP") not in PROTOCOLS:
            raise Misspelt(f"{line!r}: {item.strip()!r} is not PORT[/PROTOCOL] or echo")
        yield Cell(source, destination, PROTOCOLS[protocol or "TCP"], int(port), allowed)
