"""Manifests as people write them: YAML or JSON, many documents to a file, Lists, and Pods hidden in templates.

A Deployment or its like becomes the Pods it would make, by fixed names, so that a lab needs no controllers.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import msgspec
import yaml

from schemas.objects import TYPES, KubernetesObject

SUFFIXES: Final = (".yaml", ".yml", ".json")
TEMPLATES: Final = ("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController", "DaemonSet", "Job")
NAMESPACED: Final = frozenset(TYPES) - {"Namespace", "Node"}


class InvalidManifest(Exception):
    """A manifest that cannot be read: the file, the document in it (from 1) and why."""

    def __init__(self, file: Path, document: int, why: str) -> None:
        super().__init__(f"{file}, document {document}: {why}")
        self.file = file
        self.document = document
        self.why = why


class _Loader(yaml.CSafeLoader):
    """As the API server reads YAML: like JSON, so a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}


def read_manifests(paths: Iterable[Path]) -> list[KubernetesObject]:
    """Every object of the kinds that eastwest knows in *paths*: files, or folders with all their manifest files.

    Of several with the same name the last stands. Raises `InvalidManifest`, and `FileNotFoundError` naming a path.
    """
    found: dict[tuple[str, str, str], KubernetesObject] = {}
    for file in _files(paths):
        for number, document in _documents(file):
            for kind, value in _objects(document):
                item = _convert(kind, value, file, number)
                found[(kind, item.metadata.namespace, item.metadata.name)] = item
    return list(found.values())


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        inside = sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]
        yield from inside


def _documents(file: Path) -> Iterator[tuple[int, Any]]:
    number = 1
    try:
        for number, document in enumerate(yaml.load_all(file.read_text(), Loader=_Loader), start=1):
            yield number, document
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidManifest(file, number, str(error)) from error


def _objects(document: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """(kind, object) of a document: itself, a List's items, or a template's Pods; nothing for other kinds."""
    if not isinstance(document, dict):
        return
    kind = document.get("kind", "")
    if kind in TYPES:
        yield kind, document
    elif kind in TEMPLATES:
        yield from (("Pod", pod) for pod in _templated(kind, document))
    elif kind.endswith("List"):
        for item in document.get("items") or ():
            yield from _objects({"kind": kind.removesuffix("List"), **item} if isinstance(item, dict) else item)


def _templated(kind: str, document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    meta, spec = document.get("metadata") or {}, document.get("spec") or {}
    template = spec.get("template") or {}
    replicas = spec.get("replicas", 1) if kind not in ("DaemonSet", "Job") else 1
    owner = {"kind": kind, "name": meta.get("name", ""), "controller": True}
    for number in range(replicas):
        yield {
            "metadata": {
                "labels": (template.get("metadata") or {}).get("labels"),
                "name": f"{meta.get('name', '')}-{number}",
                "namespace": meta.get("namespace", ""),
                "ownerReferences": [owner],
            },
            "spec": template.get("spec") or {},
        }


def _convert(kind: str, value: dict[str, Any], file: Path, number: int) -> KubernetesObject:
    try:
        # By JSON: the way every other object comes, and the only one that keeps a raw part as it is.
        item: KubernetesObject = msgspec.json.decode(msgspec.json.encode(value), type=TYPES[kind])
    except (msgspec.MsgspecError, TypeError) as error:
        name = (value.get("metadata") or {}).get("name", "without a name")
        raise InvalidManifest(file, number, f"{kind} {name}: {error}") from error
    if kind in NAMESPACED and not item.metadata.namespace:
        item = msgspec.structs.replace(item, metadata=msgspec.structs.replace(item.metadata, namespace="default"))
    return item
