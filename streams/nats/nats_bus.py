"""The connection to NATS that every client of this room shares: calls, answers, reconnects, streams.

    service ── call, publish, subscribe ──▶ NatsBus ──▶ nats-server ≥ 2.12

Errors of the client library end here: what leaves is `streams.errors`.
"""

import asyncio
import contextlib
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec
import nats.errors
import structlog
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from streams.errors import AccessDenied, BusUnavailable, ReadFailed, Refused, ServerTooOld

OLDEST_SERVER: Final = (2, 12)
"""Message TTLs, per-message schedules of rollups and the options asked for below are all there from here on."""
NO_RESPONDERS: Final = "503"
STREAM_NOT_FOUND: Final = 10059
STREAM_NAME_IN_USE: Final = 10058

_log = structlog.get_logger("streams.nats.nats_bus")


class NatsBus:
    """One connection; an async context manager. It reconnects for ever, and says so to whoever asked to be told."""

    def __init__(
        self,
        url: str,
        *,
        name: str = "eastwest",
        credentials: str | None = None,
        connect_within_seconds: float = 10.0,
        answer_within_seconds: float = 5.0,
    ) -> None:
        self._url = url
        self._name = name
        self._credentials = credentials
        self._connect_within = connect_within_seconds
        self._answer_within = answer_within_seconds
        self._listeners: list[Callable[[], None]] = []
        self._last_error = ""
        self._denied = ""
        self.client = Client()
        self.generation = 0
        """Grows with every reconnect: what was sent or subscribed before a change of it may have been lost."""
        self.slow = 0
        """How often the library dropped a message because it was not taken fast enough."""

    @property
    def where(self) -> str:
        """The server's address, without the secrets that a URL may carry."""
        return re.sub(r"//[^@/]*@", "//", self._url)

    @property
    def max_payload(self) -> int:
        """Largest payload in bytes, headers included, that the server takes now."""
        return self.client.max_payload

    @property
    def connected(self) -> bool:
        return self.client.is_connected

    async def __aenter__(self) -> Self:
        """Connect. Raises `BusUnavailable` if no server answers in time, `AccessDenied`, `ServerTooOld`."""
        try:
            async with asyncio.timeout(self._connect_within):
                await self.client.connect(
                    self._url,
                    name=self._name,
                    user_credentials=self._credentials,
                    max_reconnect_attempts=-1,
                    reconnect_time_wait=0.3,  # type: ignore[arg-type]  # used as a delay; the annotation is narrower
                    ping_interval=10,
                    max_outstanding_pings=2,
                    pending_size=16 * 1024 * 1024,
                    error_cb=self._on_error,
                    disconnected_cb=self._on_disconnect,
                    reconnected_cb=self._on_reconnect,
                )
        except TimeoutError:
            await self.client.close()
            if self._denied:
                raise AccessDenied(self.where, self._denied) from None
            raise BusUnavailable("connecting", f"{self.where} does not answer: {self._last_error}") from None
        except nats.errors.Error as error:
            await self.client.close()
            if "authorization" in str(error).lower():
                raise AccessDenied(self.where, str(error)) from error
            raise BusUnavailable("connecting", f"{self.where}: {error}") from error
        try:
            self._require_version()
        except ServerTooOld:
            await self.client.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(nats.errors.Error, OSError):  # gone already is as good
            if self.client.is_connected and kind is None:
                await self.client.flush(2)
            await self.client.close()

    def _require_version(self) -> None:
        version = self.client.connected_server_version
        if (version.major, version.minor) < OLDEST_SERVER:
            wanted = ".".join(map(str, OLDEST_SERVER))
            found = f"{version.major}.{version.minor}.{version.patch}"
            raise ServerTooOld(self.where, f"nats-server {found} is running, and {wanted} or newer is required")

    async def _on_error(self, error: Exception) -> None:
        self._last_error = str(error) or type(error).__name__
        if "authorization" in self._last_error.lower():  # often followed by a mere reset, which says less
            self._denied = self._last_error
        if isinstance(error, nats.errors.SlowConsumerError):
            self.slow += 1
            if self.slow & (self.slow - 1) == 0:  # 1, 2, 4, 8, …: a flood of losses is not a flood of log lines
                _log.warning("messages dropped, receiver too slow", subject=error.subject, dropped=self.slow)
        else:
            _log.info("nats", error=self._last_error)

    async def _on_disconnect(self) -> None:
        if not self.client.is_closed:  # closing it ourselves is told as well
            _log.warning("disconnected from NATS", server=self.where)

    async def _on_reconnect(self) -> None:
        self.generation += 1
        _log.info("reconnected to NATS", server=self.where, generation=self.generation)
        for listener in tuple(self._listeners):
            listener()

    def on_reconnect(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Call *listener* after every reconnect, until the function returned is called."""
        self._listeners.append(listener)
        return lambda: self._listeners.remove(listener)

    async def publish(
        self, subject: str, payload: bytes, *, reply: str = "", headers: Mapping[str, str] | None = None
    ) -> None:
        """Hand a message to the connection; returns before it is sent. Raises `BusUnavailable`."""
        with translated(subject):
            await self.client.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)

    async def subscribe(self, subject: str, callback: Callable[[Msg], Awaitable[None]]) -> Subscription:
        """Call *callback* for each message. The server knows of it before any request made after this returns."""
        with translated(subject):
            return await self.client.subscribe(subject, cb=callback, pending_bytes_limit=512 * 1024 * 1024)

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End *subscription*; nothing where the connection is closed already."""
        if not self.client.is_closed:
            with translated(subscription.subject):
                await subscription.unsubscribe()

    async def request(self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None) -> Msg:
        """Ask, and return the answer. Raises `BusUnavailable`, also where nobody listens."""
        given = dict(headers) if headers else None
        # The timeout is ours: the library's own, by wait_for, loses a cancellation that comes with the answer (3.11).
        with translated(subject):
            async with asyncio.timeout(self._answer_within):
                return await self.client.request(
                    subject,
                    payload,
                    timeout=None,  # type: ignore[arg-type]  # handed on to wait_for, which knows None
                    headers=given,
                )

    async def call(self, request: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """One request ``$JS.API.<request>`` to JetStream. Raises `Refused` and `BusUnavailable`."""
        answer = await self.request(f"$JS.API.{request}", msgspec.json.encode(body) if body else b"")
        found: dict[str, Any] = msgspec.json.decode(answer.data, type=dict[str, Any])
        if error := found.get("error"):
            raise Refused(request, error.get("code", 0), error.get("err_code", 0), error.get("description", ""))
        return found

    async def apply_stream(self, wanted: Mapping[str, Any]) -> dict[str, Any]:
        """Create or update the stream *wanted* (JetStream's JSON terms); return the options that it has now.

        Raises `ServerTooOld` if one asked for is not there: servers drop unknown ones silently. One that is there with
        another value is for the caller to see: someone else may have updated the stream at the same moment.
        """
        stream = wanted["name"]
        try:
            answer = await self.call(f"STREAM.UPDATE.{stream}", wanted)
        except Refused as refusal:
            if refusal.error_code != STREAM_NOT_FOUND:
                raise
            try:
                answer = await self.call(f"STREAM.CREATE.{stream}", wanted)
            except Refused as race:
                if race.error_code != STREAM_NAME_IN_USE:
                    raise
                answer = await self.call(f"STREAM.UPDATE.{stream}", wanted)  # someone created it just now
        found: dict[str, Any] = answer["config"]
        if missing := dropped_options(wanted, found):
            raise ServerTooOld(self.where, f"it made stream {stream} without {', '.join(missing)}")
        return found

    async def last_message(self, stream: str, subject: str) -> Msg | None:
        """The newest message of *subject*, or `None` where the stream says it has none. Raises `ReadFailed`."""
        try:
            answer = await self.request(f"$JS.API.DIRECT.GET.{stream}.{subject}", b"")
        except BusUnavailable as error:
            raise ReadFailed(stream, subject, error.reason) from error
        status = (answer.headers or {}).get("Status")
        if status == "404":
            return None
        if status or not (answer.headers or {}).get("Nats-Sequence"):
            raise ReadFailed(stream, subject, f"status {status}")
        return answer


def dropped_options(wanted: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """The options of *wanted* that *found* lacks or has without limit (-1), dotted."""
    missing: list[str] = []
    for name, value in wanted.items():
        has = found.get(name)
        if isinstance(value, Mapping):
            missing.extend(f"{name}.{inner}" for inner in dropped_options(value, has or {}))
        elif value and (not has or has == -1):
            missing.append(name)
    return missing


@contextlib.contextmanager
def translated(what: str) -> Iterator[None]:
    """Turn the client library's errors into ours."""
    try:
        yield
    except nats.errors.NoRespondersError as error:
        raise BusUnavailable(what, "nobody answers there (JetStream off, starting, or no such stream)") from error
    except (nats.errors.TimeoutError, TimeoutError) as error:
        raise BusUnavailable(what, "no answer in time") from error
    except (nats.errors.Error, OSError) as error:
        raise BusUnavailable(what, str(error) or type(error).__name__) from error
