"""An object's newest event in the log: the revision to wait for, and what the object was before."""

from contextlib import aclosing
from typing import Any, Final

import click
import msgspec
from click.shell_completion import CompletionItem

from processors.core.reading import Reader
from schemas import names
from schemas.events import EPOCH, KINDS, SYNC, ClusterInfo
from schemas.objects import KubernetesObject
from streams.log import ReadableLog

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
    """An object, as of its newest event."""

    key: str
    revision: int
    object: KubernetesObject | ClusterInfo | None
    """``None``: it is gone."""
    before: tuple[KubernetesObject | ClusterInfo | None, ...] = ()
    """What it was at earlier events that the log still has."""


async def newest_change(log: ReadableLog, key: str) -> Changed | None:
    """The newest event of the object *key* that counts; ``None``: there is none in the log.

    Reads the log once, and of it only what can say something about *key*.
    """
    reader = Reader()
    control = (f"{EPOCH}/", f"{SYNC}/")
    said: list[tuple[int, Any]] = []
    async with aclosing(log.read(0)) as batches:
        async for records in batches:
            concerning = [each for each in records if each.key == key or each.key.startswith(control)]
            said += [(fact.offset, fact.object) for fact in reader.read(concerning).facts]
    if not said:
        return None
    revision, newest = said[-1]
    return Changed(key=key, revision=revision, object=newest, before=tuple(earlier for _, earlier in said[:-1]))
