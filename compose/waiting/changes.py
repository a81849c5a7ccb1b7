"""An object's event in the log, the newest or a certain one: the revision to wait for, and what it was before."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final

import click
import msgspec
from click.shell_completion import CompletionItem

from processors.core.reading import Fact, Reader
from schemas import names
from schemas.events import EPOCH, KINDS, SYNC, ClusterInfo, decode_event
from schemas.objects import KubernetesObject
from streams.log import ReadableLog, Record

CLUSTER_SCOPED: Final = ("Namespace", "Node")


class ObjectKey(click.ParamType[str]):
    """``KIND/NAMESPACE/NAME``, or ``KIND/NAME`` for what is in no namespace; as the log's keys."""

    name = "object"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        kind, *rest = value.split("/")
        found = next((known for known in KINDS if known.lower() == kind.lower()), None)
        if found is None:
            self.fail(f"{kind!r} is no kind in the log; there are {', '.join(KINDS)}", param, ctx)
        if found in CLUSTER_SCOPED and rest[:-1] in ([], [""], [names.NO_NAMESPACE]):
            rest = ["", *rest[-1:]]
        if len(rest) != 2 or not rest[1] or bool(rest[0]) is (found in CLUSTER_SCOPED):
            form = f"{found}/NAME" if found in CLUSTER_SCOPED else f"{found}/NAMESPACE/NAME"
            self.fail(f"{value!r} names no object: write {form}", param, ctx)
        return names.key(found, *rest)

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        return [CompletionItem(f"{kind}/") for kind in KINDS if kind.lower().startswith(incomplete.lower())]


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """An object, as of one of its events."""

    key: str
    revision: int
    object: KubernetesObject | ClusterInfo | None
    """``None``: it is gone."""
    before: tuple[KubernetesObject | ClusterInfo | None, ...] = ()
    """What it was at earlier events that the log still has."""
    superseded: bool = False
    """Whether there are later ones: what is published may be of these."""


class NoSuchVersion(Exception):
    """The log has no event with this resource version; *newest* is the newest one of the object that it has."""

    def __init__(self, newest: tuple[int, str] | None) -> None:
        super().__init__()
        self.newest = newest
        """Its revision and resource version."""


async def newest_change(log: ReadableLog, key: str) -> Changed | None:
    """The newest event of the object *key* that counts; ``None``: there is none in the log.

    Reads the log once, and of it only what can say something about *key*.
    """
    said = _Said(key)
    async with aclosing(log.read(0)) as batches:
        async for records in batches:
            said.hear(records)
    return said.newest()


async def change_of_version(log: ReadableLog, key: str, version: str, within_seconds: float) -> Changed:
    """The newest event of *key* with the resource version *version*, which is compared for equality only.

    Waits for it. Raises `NoSuchVersion` where it is not there after so many seconds: Kubelink did not write it yet, or
    never does, since an object that is as it was in all that eastwest reads has no new event.
    """
    said, after = _Said(key), 0
    async with aclosing(log.read(0)) as batches:  # whole, so that what came later is known as well
        async for records in batches:
            said.hear(records)
            after = records[-1].offset + 1
    try:
        async with asyncio.timeout(within_seconds), aclosing(log.read(after, follow=True)) as batches:
            while (found := said.of_version(version)) is None:
                said.hear(await anext(batches))
    except TimeoutError:
        raise NoSuchVersion(said.newest_version()) from None
    return found


class _Said:
    """What the log says of the object *key*."""

    def __init__(self, key: str) -> None:
        self._key = key
        self._reader = Reader()
        self._facts: list[Fact] = []
        self._versions: dict[int, str] = {}  # by revision

    def hear(self, records: Sequence[Record]) -> None:
        control = (f"{EPOCH}/", f"{SYNC}/")
        concerning = [each for each in records if each.key == self._key or each.key.startswith(control)]
        facts = [fact for fact in self._reader.read(concerning).facts if fact.key == self._key]
        values = {each.offset: each.value for each in concerning}
        for fact in facts:
            if value := values[fact.offset]:  # a tombstone has none
                self._versions[fact.offset] = decode_event(value).resource_version
        self._facts += facts

    def newest(self) -> Changed | None:
        return self._changed(len(self._facts) - 1) if self._facts else None

    def of_version(self, version: str) -> Changed | None:
        places = [at for at, fact in enumerate(self._facts) if self._versions.get(fact.offset) == version]
        return self._changed(places[-1]) if places else None

    def newest_version(self) -> tuple[int, str] | None:
        return max(self._versions.items(), default=None)

    def _changed(self, at: int) -> Changed:
        fact = self._facts[at]
        return Changed(
            key=self._key,
            revision=fact.offset,
            object=fact.object,
            before=tuple(earlier.object for earlier in self._facts[:at]),
            superseded=at < len(self._facts) - 1,
        )
