"""The conversation with the API server about one kind: what to ask next, and what its answers mean.

    list (streamed) ──▶ watch from the version it ended at ──▶ watch from the newest version seen ──▶ …
         │ refused           │ 410                                 │ 410
         ▼                   ▼                                     ▼
    list (paged) ──▶ …      list                                  list

Pure: the shell sends the requests, feeds the answers, and waits as long as it is told.
"""

from enum import Enum, auto
from typing import Final

import msgspec

from producers.core.decoding import Bookmark, Failure, Page, decode_line, decode_page
from producers.core.observations import ListBegun, ListComplete, Observation, Observed, Trouble
from producers.core.resources import RESOURCES
from schemas import names
from schemas.events import EventType

PAGE_ITEMS: Final = 500
LARGE_OBJECT_BYTES: Final = 2 * 1024 * 1024
"""Above what an API server stores (etcd takes 1.5 MiB): worth a word."""
RELIST_AFTER: Final = 3
"""A version that was refused this often for no clear reason is given up: a restored etcd may never reach it again."""

Query = tuple[tuple[str, str], ...]


class Request(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A GET to send."""

    path: str
    query: Query
    streaming: bool
    """The answer is a stream of lines rather than one body."""
    listing: bool
    """Data should come at once: silence is suspicious earlier than in a watch."""


class Pause(Enum):
    """How long to wait before the next request."""

    NONE = auto()
    BACKOFF = auto()
    AS_TOLD = auto()
    """`Watch.told_seconds`."""
    QUIET = auto()
    """The cluster does not have the kind, or does not let us: ask again now and then."""
    REFUSED = auto()
    """Who we are is not accepted (401): renew the credentials, then back off."""


class Watch:
    """Where the conversation about *kind* stands."""

    def __init__(self, kind: str, *, streaming_lists: bool = True) -> None:
        self.kind = kind
        self.version = ""
        """Where to watch from; empty: list first."""
        self.streaming_lists = streaming_lists
        self.told_seconds = 0.0
        self.expired = 0
        """How often the server no longer had the version asked for (410)."""
        self._token = ""
        self._paging = False
        self._one_page = False
        self._open = False
        self._lines = 0
        self._failure: Failure | None = None
        self._refusals = 0
        self._troubled = False

    def __repr__(self) -> str:
        return f"Watch({self.kind!r}, version={self.version!r}, refusals={self._refusals}, expired={self.expired})"

    @property
    def refused(self) -> bool:
        """Whether the stream has said ``ERROR``: nothing of worth follows."""
        return self._failure is not None

    def request(self, timeout_seconds: int) -> Request:
        """The next request; a stream ends by itself after *timeout_seconds*."""
        self._failure = None
        self._open = False
        self._lines = 0
        path = RESOURCES[self.kind].path
        watching: Query = (("watch", "1"), ("allowWatchBookmarks", "true"), ("timeoutSeconds", str(timeout_seconds)))
        if self.version:
            query = (*watching, ("resourceVersion", self.version))
            return Request(path=path, query=query, streaming=True, listing=False)
        if self.streaming_lists:
            query = (*watching, ("sendInitialEvents", "true"), ("resourceVersionMatch", "NotOlderThan"))
            return Request(path=path, query=query, streaming=True, listing=True)
        query = () if self._one_page else (("limit", str(PAGE_ITEMS)),)
        if self._token:
            query = (*query, ("continue", self._token))
        return Request(path=path, query=query, streaming=False, listing=True)

    def opened(self) -> list[Observation]:
        """A stream was accepted (status 200)."""
        self._open = True
        return self._over() if self.version else [ListBegun(self.kind), *self._over()]

    def lines(self, lines: list[bytes]) -> list[Observation]:
        """Lines of the stream. After an ``ERROR`` line the rest of the stream is not listened to."""
        seen: list[Observation] = []
        for line in lines:
            if self._failure is not None:
                break
            self._lines += 1
            item = decode_line(self.kind, line, self._place())
            if isinstance(item, Observed):
                self._advance(item.object.metadata.resource_version)
                seen.append(item)
                if len(line) > LARGE_OBJECT_BYTES:
                    meta = item.object.metadata
                    seen.append(_large(names.key(self.kind, meta.namespace, meta.name), len(line)))
            elif isinstance(item, Bookmark):
                if item.list_complete and not self.version:
                    self.version = item.resource_version
                    seen.append(ListComplete(self.kind))
                self._advance(item.resource_version)
            elif isinstance(item, Failure):
                self._failure = item
            else:
                self._advance(item.resource_version)
                seen.append(item)
        if self._failure is None and self.version:
            self._refusals = 0
        return seen

    def cut(self, rest: bytes) -> list[Observation]:
        """The stream ended within a line: it says nothing, and is asked for again from the version before it."""
        if not rest:
            return []
        self._lines += 1
        return [
            Trouble(self._place(), f"cut off after {len(rest)} bytes at the end of the stream; dropped, asked again")
        ]

    def page(self, body: bytes) -> list[Observation]:
        """One page of a list. Raises `UNREADABLE` for a body that is none."""
        page: Page = decode_page(self.kind, body)
        seen: list[Observation] = [] if self._paging else [ListBegun(self.kind), *self._over()]
        self._paging = True
        seen.extend(Observed(EventType.ADDED, item) for item in page.items)
        seen.extend(page.unreadable)
        self._token = page.next_token
        if not self._token:
            self._forget_list()
            self.version = page.resource_version
            seen.append(ListComplete(self.kind))
        return seen

    def ended(self) -> tuple[list[Observation], Pause]:
        """The stream ended in good order, or with an ``ERROR`` line."""
        if self._failure is not None:
            return self.failed(self._failure)
        if not self.version:
            # An API server before KEP-3157 takes it for a plain watch, which never says that the list is complete.
            self.streaming_lists = False
            return [], Pause.NONE
        if self._lines == 0:
            return [], Pause.BACKOFF  # a server that hangs up at once must not be asked in a tight loop
        return [], Pause.NONE

    def broken(self, reason: str, *, silent: bool) -> tuple[list[Observation], Pause]:
        """The connection could not be made, broke, or (*silent*) said nothing for too long."""
        self._forget_list()
        if silent and self._open and self.version:
            return [], Pause.NONE  # a quiet kind between two bookmarks, or a half-open connection: just ask again
        if silent and self._open and self.streaming_lists:
            self.streaming_lists = False
            return [], Pause.NONE
        return self._trouble(f"no answer from the API server: {reason}"), Pause.BACKOFF

    def failed(self, failure: Failure) -> tuple[list[Observation], Pause]:
        """An error, as the status of an answer or as an ``ERROR`` line."""
        listing = not self.version
        self._refusals += 1
        if failure.code == 410:
            self.expired += 1
            if listing and not self.streaming_lists:
                # The list outlived its snapshot between two pages: take it in one piece.
                self._forget_list()
                self._one_page = True
            self.version = ""
            return [], Pause.BACKOFF  # lists are dear: one that is at once too old again must not become a loop
        if failure.code == 429:
            return self._wait_as_told(failure)
        if failure.code in (400, 422, 500) and listing and self.streaming_lists:
            self.streaming_lists = False
            return [], Pause.NONE
        self._forget_list()
        if failure.code == 401:
            return self._trouble(
                f"401: the API server does not accept the credentials ({failure.message})"
            ), Pause.REFUSED
        if failure.code == 403:
            rule = RESOURCES[self.kind].missing_rule
            return self._trouble(f"403: not allowed to list and watch; the ClusterRole needs {{{rule}}}"), Pause.QUIET
        if failure.code == 404:
            return self._trouble("404: the cluster does not have this kind"), Pause.QUIET
        if self._refusals >= RELIST_AFTER:
            self.version = ""
        described = " ".join(filter(None, (str(failure.code), failure.reason, failure.message)))
        told = self._wait_as_told(failure) if failure.retry_after_seconds else ([], Pause.BACKOFF)
        return [*self._trouble(described), *told[0]], told[1]

    def absent(self) -> list[Observation]:
        """The cluster has no such kind, as a healthy API server says: its list is complete, and empty."""
        return [ListBegun(self.kind), ListComplete(self.kind)]

    def _wait_as_told(self, failure: Failure) -> tuple[list[Observation], Pause]:
        self.told_seconds = failure.retry_after_seconds
        return [], Pause.AS_TOLD if self.told_seconds else Pause.BACKOFF

    def _advance(self, version: str) -> None:
        # While a list is streamed the versions are those of the objects, in no order.
        if self.version and version:
            self.version = version

    def _forget_list(self) -> None:
        self._token = ""
        self._paging = False
        self._one_page = False

    def _trouble(self, reason: str) -> list[Observation]:
        self._troubled = True
        return [Trouble(self.kind, reason)]

    def _over(self) -> list[Observation]:
        if not self._troubled:
            return []
        self._troubled = False
        return [Trouble(self.kind)]

    def _place(self) -> str:
        where = f"from version {self.version}" if self.version else "of the list"
        return f"watch of {self.kind}, line {self._lines} {where}"


def _large(key: str, size: int) -> Trouble:
    return Trouble(key, f"{size} bytes as the API server sends it; only its projection is kept")
