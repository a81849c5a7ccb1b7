"""Manifests as a source: files and folders of YAML and JSON, read again when they change."""

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

import msgspec
import yaml

from producers.core.manifests import DEEPEST, BadDocument, Ignored, Read, nesting, read_document
from producers.core.observations import ListBegun, ListComplete, Observation, Observed, Trouble, Unreadable
from producers.errors import SourceInvalid
from producers.source import Deliver
from schemas import names
from schemas.events import KINDS, EventType
from schemas.objects import KubernetesObject

SUFFIXES: Final = frozenset({".yaml", ".yml", ".json"})
POLL_SECONDS: Final = 0.5

_LOADER: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Objects = dict[str, KubernetesObject]
"""By log key."""

Stamp = tuple[tuple[str, int, int], ...]
"""Path, modification time (ns) and size of every file: whether anything has changed."""


class ManifestSource:
    """Everything in *paths*, files or folders (with what is below them), is a complete description of the cluster.

    An object that is in no file any more is gone. One that two files describe is as the last of them, by path, says.
    """

    def __init__(
        self,
        paths: Sequence[Path],
        *,
        kinds: tuple[str, ...] = KINDS,
        follow: bool = True,
        poll_seconds: float = POLL_SECONDS,
    ) -> None:
        self._paths = tuple(paths)
        self._kinds = kinds
        self._follow = follow
        self._poll_seconds = poll_seconds
        self._troubles: set[str] = set()
        self._good: dict[Path, Objects] = {}
        """What each file described when all of it could be read."""

    @property
    def kinds(self) -> tuple[str, ...]:
        return self._kinds

    async def check(self) -> Sequence[Trouble]:
        """See `Source.check`. Raises `SourceInvalid` for a path that does not exist."""
        for path in self._paths:
            if not path.exists():
                raise SourceInvalid(str(path), "does not exist")
        return ()

    async def observing(self, deliver: Deliver) -> None:
        """See `Source.observing`. Returns after the first reading unless it follows.

        Raises `SourceInvalid` for a path that does not exist when it begins; later that means: nothing there.
        """
        await self.check()
        self._troubles = set()
        stamp: Stamp | None = None
        while True:
            if (now := await asyncio.to_thread(self._stamp)) != stamp:
                stamp = now
                await deliver(await asyncio.to_thread(self._read))
            if not self._follow:
                return
            await asyncio.sleep(self._poll_seconds)

    def _stamp(self) -> Stamp:
        found = []
        for path in _files(self._paths):
            try:
                status = path.stat()
            except OSError:
                continue  # went between listing and looking
            found.append((str(path), status.st_mtime_ns, status.st_size))
        return tuple(found)

    def _read(self) -> list[Observation]:
        """One complete list of every kind."""
        objects: Objects = {}
        seen: list[Observation] = [ListBegun(kind) for kind in self._kinds]
        troubles: dict[str, str] = {}
        good: dict[Path, Objects] = {}
        for path in _files(self._paths):
            described: Objects = {}
            mistakes: dict[str, str] = {}
            for place, item in read_file(path):
                if isinstance(item, BadDocument):
                    mistakes[place] = item.reason
                elif isinstance(item, Ignored):
                    troubles[place] = f"{item.kind} {item.name} is ignored: not one of {', '.join(self._kinds)}"
                elif isinstance(item, Unreadable):
                    seen.append(msgspec.structs.replace(item, place=place))
                else:
                    described[names.key(type(item).__name__, item.metadata.namespace, item.metadata.name)] = item
            if mistakes:
                troubles.update(mistakes)
                described = self._as_before(path, described, seen)
            good[path] = described
            objects.update(described)
        self._good = good
        seen.extend(Observed(EventType.ADDED, item) for item in objects.values())
        seen.extend(Trouble(place, reason) for place, reason in troubles.items())
        seen.extend(Trouble(place) for place in sorted(self._troubles - troubles.keys()))
        self._troubles = set(troubles)
        seen.extend(ListComplete(kind) for kind in self._kinds)
        return seen

    def _as_before(self, path: Path, described: Objects, seen: list[Observation]) -> Objects:
        """What to take for the content of a file with a mistake in it.

        What the mistake hides must not count as deleted, or a slip of the pen would take a policy away: the file's
        last content stands beside what can be read of it. Where that is not known nothing at all counts as deleted.
        """
        if path in self._good:
            return {**self._good[path], **described}
        reason = f"{path} has a mistake; nothing is taken for deleted until it is mended"
        seen.extend(Unreadable(kind=kind, place=str(path), reason=reason) for kind in self._kinds)
        return described


def read_file(path: Path) -> Iterator[tuple[str, Read]]:
    """Every object in *path* with its place: file and number of the document."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        yield str(path), BadDocument(f"cannot be read: {error}")
        return
    if nesting(text) > DEEPEST:
        yield str(path), BadDocument(f"it is nested more than {DEEPEST} deep")
        return
    number = 0
    try:
        for document in yaml.load_all(text, Loader=_LOADER):  # a safe loader; JSON is YAML
            number += 1
            for item in read_document(document):
                yield f"{path}, document {number}", item
    except yaml.YAMLError as error:
        yield f"{path}, document {number + 1}", BadDocument(" ".join(f"not YAML: {error}".split()))


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    """The files to read, in a fixed order; hidden ones and foreign suffixes only where they are named themselves."""
    for path in paths:
        if path.is_dir():
            yield from sorted(
                each
                for each in path.rglob("*")
                if each.suffix in SUFFIXES
                and each.is_file()
                and not any(part.startswith(".") for part in each.relative_to(path).parts)
            )
        elif path.exists():
            yield path
