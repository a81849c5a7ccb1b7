"""The API server as a source: one task per kind, each of which lists, watches, and never gives up.

GET …?sendInitialEvents ──▶ chunks ──▶ lines ──▶ Watch ──▶ observations ──▶ deliver
                                                   └──▶ how long to wait, what to ask next
"""

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Final

import aiohttp
import msgspec

from producers.api_connection import Access, ApiConnection
from producers.core.decoding import Failure, decode_failure
from producers.core.lines import LineSplitter
from producers.core.observations import ClusterSeen, Observation, Trouble
from producers.core.resources import RESOURCES
from producers.core.watching import Pause, Request, Watch
from producers.errors import AccessInvalid, ApiUnreachable
from producers.source import Deliver
from schemas.events import CLUSTER, KINDS, ClusterInfo
from schemas.unreadable import UNREADABLE
from streams.backoff import Backoff

INTRODUCTION_SECONDS: Final = 600.0
"""How often the server is asked for its version: it may be upgraded."""
CHUNK_BYTES: Final = 256 * 1024
"""Of a stream, taken at once. As many megabytes as may be waiting would leave the processor's cache before they are
read: a third fewer events per second."""
SERVICE_RANGES: Final = "/apis/networking.k8s.io/v1/servicecidrs"


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """How long to wait for what."""

    watch_seconds: tuple[float, float] = (240.0, 480.0)
    """A watch ends by itself after a random time in this range, so that not all come back at once."""
    silence_seconds: float = 120.0
    """A watch that says nothing for so long is asked for again: bookmarks come about every 60 s."""
    list_silence_seconds: float = 30.0
    quiet_seconds: float = 30.0
    """How often a kind is asked for that the cluster does not have, or does not let us see."""


class _Version(msgspec.Struct, rename="camel"):
    git_version: str
    platform: str = ""


class _RangeSpec(msgspec.Struct, frozen=True):
    cidrs: tuple[str, ...] = ()


class _Range(msgspec.Struct, frozen=True):
    spec: _RangeSpec = _RangeSpec()


class _Ranges(msgspec.Struct):
    items: tuple[_Range, ...] = ()


class ApiServerSource:
    """Lists and watches *kinds* of the whole cluster."""

    def __init__(
        self,
        access: Access,
        *,
        kinds: tuple[str, ...] = KINDS,
        patience: Patience | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
        streaming_lists: bool = True,
    ) -> None:
        self._access = access
        self._kinds = kinds
        self._patience = patience or Patience()
        self._uniform = uniform
        self._streaming_lists = streaming_lists
        self.watches: dict[str, Watch] = {}
        """Where each conversation stands, for people."""

    @property
    def kinds(self) -> tuple[str, ...]:
        return self._kinds

    async def check(self) -> Sequence[Trouble]:
        """See `Source.check`: ask for one object of each kind, as the lists will."""
        async with ApiConnection(self._access) as api, asyncio.TaskGroup() as tasks:
            tried = [tasks.create_task(_try_list(kind, api), name=f"trying to list: {kind}") for kind in self._kinds]
        return [seen for each in tried for seen in each.result() if isinstance(seen, Trouble) and seen.reason]

    async def observing(self, deliver: Deliver) -> None:
        """See `Source.observing`. Never returns."""
        async with ApiConnection(self._access) as api, asyncio.TaskGroup() as tasks:
            tasks.create_task(self._asking_version(api, deliver), name="watching: version")
            for kind in self._kinds:
                self.watches[kind] = watch = Watch(kind, streaming_lists=self._streaming_lists)
                tasks.create_task(self._watching(watch, api, deliver), name=f"watching: {kind}")

    async def _watching(self, watch: Watch, api: ApiConnection, deliver: Deliver) -> None:
        backoff = Backoff(limit_seconds=10.0)
        while True:
            request = watch.request(int(self._uniform(*self._patience.watch_seconds)))
            generation = api.generation
            seen, pause = await self._ask(watch, request, api, deliver)
            await deliver(seen)
            if pause is Pause.NONE:
                backoff.reset()
            elif pause is Pause.AS_TOLD:
                await asyncio.sleep(watch.told_seconds)
            elif pause is Pause.QUIET:
                await asyncio.sleep(self._patience.quiet_seconds)
            else:
                if pause is Pause.REFUSED:
                    await self._renew(watch, api, generation, deliver)
                await backoff.wait()

    async def _ask(
        self, watch: Watch, request: Request, api: ApiConnection, deliver: Deliver
    ) -> tuple[list[Observation], Pause]:
        """Send *request* and deliver what comes, until it ends; return the last words and how long to wait."""
        patience = self._patience
        silence = patience.list_silence_seconds if request.listing else patience.silence_seconds
        splitter = LineSplitter()
        try:
            async with api.get(request.path, request.query, silence_seconds=silence) as response:
                if response.status != 200:
                    return await self._refused(watch, response, api)
                if not request.streaming:
                    await deliver(watch.page(await response.read()))
                    return [], Pause.NONE
                await deliver(watch.opened())
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    if (lines := splitter.feed(chunk)) and (seen := watch.lines(lines)):
                        await deliver(seen)
                    if watch.refused:
                        break
                    if request.listing and watch.version:
                        # The list is complete. It goes on as a watch, whose silence is measured otherwise.
                        return watch.ended()
        except ApiUnreachable as error:
            cut = watch.cut(splitter.rest())
            last, pause = watch.broken(error.reason, silent=error.silent)
            return [*cut, *last], pause
        except UNREADABLE as error:
            return watch.broken(f"it does not look like a Kubernetes list: {error}", silent=False)
        cut = watch.cut(splitter.rest())
        last, pause = watch.ended()
        return [*cut, *last], pause

    async def _refused(
        self, watch: Watch, response: aiohttp.ClientResponse, api: ApiConnection
    ) -> tuple[list[Observation], Pause]:
        failure = decode_failure(await response.read(), response.status)
        after = response.headers.get("Retry-After", "")
        if after.isdigit() and not failure.retry_after_seconds:
            failure = msgspec.structs.replace(failure, retry_after_seconds=float(after))
        seen, pause = watch.failed(failure)
        if failure.code == 404 and await _is_api_server(api):
            seen = [*seen, *watch.absent()]
        return seen, pause

    async def _renew(self, watch: Watch, api: ApiConnection, generation: int, deliver: Deliver) -> None:
        try:
            await api.renew(generation)
        except AccessInvalid as error:
            await deliver([Trouble(watch.kind, str(error))])

    async def _asking_version(self, api: ApiConnection, deliver: Deliver) -> None:
        backoff = Backoff(limit_seconds=30.0)
        while True:
            try:
                info = await _introduce(api)
            except ApiUnreachable:  # the watches tell why
                await backoff.wait()
                continue
            if isinstance(info, Failure):
                await deliver([Trouble(CLUSTER, f"/version: {info.code} {info.message}")])
                await backoff.wait()
                continue
            backoff.reset()
            await deliver([Trouble(CLUSTER), ClusterSeen(info)])
            await asyncio.sleep(INTRODUCTION_SECONDS)


async def _try_list(kind: str, api: ApiConnection) -> list[Observation]:
    """What a watch would tell of the answer, if that is no list."""
    watch = Watch(kind, streaming_lists=False)
    try:
        status, body = await api.call("GET", f"{RESOURCES[kind].path}?limit=1")
        if status == 200:
            watch.page(body)
            return []
        seen, _ = watch.failed(decode_failure(body, status))
        return [] if status == 404 and await _is_api_server(api) else seen
    except ApiUnreachable as error:
        seen, _ = watch.broken(error.reason, silent=False)
    except UNREADABLE as error:
        seen, _ = watch.broken(f"it does not look like a Kubernetes list: {error}", silent=False)
    return seen


async def _introduce(api: ApiConnection) -> ClusterInfo | Failure:
    """What the server says of itself; its service ranges where it has such objects and lets us read them."""
    status, body = await api.call("GET", "/version")
    if status != 200:
        return decode_failure(body, status)
    try:
        version = msgspec.json.decode(body, type=_Version)
    except UNREADABLE as error:
        return Failure(code=status, message=f"not the answer of an API server: {error}")
    status, body = await api.call("GET", SERVICE_RANGES)
    ranges: tuple[str, ...] = ()
    if status == 200:
        try:
            ranges = tuple(cidr for item in msgspec.json.decode(body, type=_Ranges).items for cidr in item.spec.cidrs)
        except UNREADABLE:
            ranges = ()  # something else answers there; the version is worth having without
    return ClusterInfo(version=version.git_version, platform=version.platform, service_ranges=ranges)


async def _is_api_server(api: ApiConnection) -> bool:
    """Whether a healthy API server answers at all.

    A 404 of a proxy before it must never look like a cluster without policies.
    """
    try:
        return isinstance(await _introduce(api), ClusterInfo)
    except ApiUnreachable:
        return False
