"""Manifests as people write them, with the Pods that hide in templates.

A Deployment or its like becomes the Pods it would make, under fixed names, so that a lab needs no controllers.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import yaml

from producers.core.manifests import BadDocument, Ignored, read_document
from producers.core.observations import Unreadable
from schemas.objects import KubernetesObject

SUFFIXES: Final = (".yaml", ".yml", ".json")
TEMPLATES: Final = ("Deployment", "ReplicaSet", "StatefulSet", "ReplicationController", "DaemonSet", "Job")


class InvalidManifest(Exception):
    """A manifest that cannot be read: the file, the document in it (from 1) and why."""

    def __init__(self, file: Path, document: int, why: str) -> None:
        super().__init__(f"{file}, document {document}: {why}")
        self.file = file
        self.document = document
        self.why = why


def read_manifests(paths: Iterable[Path]) -> list[KubernetesObject]:
    """Every object of the kinds that eastwest knows in *paths*: files, or folders with all their manifest files.

    Of several with the same name the last stands. Raises `InvalidManifest`, and `FileNotFoundError` naming a path.
    """
    found: dict[tuple[str, str, str], KubernetesObject] = {}
    for file in _files(paths):
        for number, document in _documents(file):
            for item in (item for each in expand(document) for item in read_document(each)):
                match item:
                    case Ignored():
                        continue
                    case BadDocument():
                        raise InvalidManifest(file, number, item.reason)
                    case Unreadable():
                        name = "/".join(filter(None, (item.namespace, item.name)))
                        raise InvalidManifest(file, number, f"{item.kind} {name}: {item.reason}")
                    case _:
                        found[(type(item).__name__, item.metadata.namespace, item.metadata.name)] = item
    return list(found.values())


def expand(document: Any) -> Iterator[Any]:
    """*document*, or the Pods of its template; in a List each item for itself."""
    kind = document.get("kind", "") if isinstance(document, dict) else ""
    if kind == "List" and isinstance(document.get("items"), list):
        for item in document["items"]:
            yield from expand(item)
    elif kind in TEMPLATES and isinstance(document.get("spec"), dict) and isinstance(document.get("metadata"), dict):
        yield from _pods(kind, document["metadata"], document["spec"])
    else:
        yield document


def _pods(kind: str, meta: dict[str, Any], spec: dict[str, Any]) -> Iterator[dict[str, Any]]:
    template = spec.get("template") or {}
    replicas = 1 if kind in ("DaemonSet", "Job") else spec.get("replicas", 1)
    for number in range(replicas):
        yield {
            "kind": "Pod",
            "metadata": {
                "labels": (template.get("metadata") or {}).get("labels"),
                "name": f"{meta.get('name', '')}-{number}",
                "namespace": meta.get("namespace"),
                "ownerReferences": [{"kind": kind, "name": meta.get("name", ""), "controller": True}],
            },
            "spec": template.get("spec") or {},
        }


def _files(paths: Iterable[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.exists():
            raise FileNotFoundError(f"there is no file or folder {path}")
        yield from sorted(file for file in path.rglob("*") if file.suffix in SUFFIXES) if path.is_dir() else [path]


def _documents(file: Path) -> Iterator[tuple[int, Any]]:
    number = 0
    try:
        for document in yaml.load_all(file.read_text(encoding="utf-8"), Loader=yaml.CSafeLoader):
            number += 1
            yield number, document
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InvalidManifest(file, number + 1, " ".join(str(error).split())) from error
