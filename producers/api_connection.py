"""One API server over HTTP: who we are, how long silence may last, and what comes back, undecoded.

`kubernetes_asyncio` reads kubeconfigs, runs their exec plugins and makes the TLS session; its models, its watch and
its leader election are not used.
"""

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
import msgspec
from kubernetes_asyncio import config
from kubernetes_asyncio.client import Configuration
from kubernetes_asyncio.client.rest import RESTClientObject
from kubernetes_asyncio.config.config_exception import ConfigException

from producers.core.watching import Query
from producers.errors import AccessInvalid, ApiUnreachable

CONNECT_SECONDS: Final = 5.0
CALL_SECONDS: Final = 30.0
"""Limit of a call that is answered at once."""
_HEADERS: Final = {
    "Accept": "application/json",
    # Unpacking costs more than the bytes do on any network that has an API server.
    "Accept-Encoding": "identity",
    "User-Agent": "eastwest-kubelink",
}


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """How to reach an API server: a URL, or a kubeconfig, or the Pod's own service account, in this order."""

    url: str = ""
    token: str = ""
    token_file: str = ""
    """Read again for every request, since mounted tokens are rotated."""
    ca_file: str = ""
    kubeconfig: str = ""
    context: str = ""

    def __repr__(self) -> str:
        return f"Access(url={self.url!r}, kubeconfig={self.kubeconfig!r}, context={self.context!r})"  # never the token


class _Session:
    """A client and who is using it: one that was replaced is closed by its last user, not under him."""

    def __init__(self, client: RESTClientObject) -> None:
        self.client = client
        self._users = 0
        self._retired = False

    async def __aenter__(self) -> RESTClientObject:
        self._users += 1
        return self.client

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._users -= 1
        if self._retired and not self._users:
            await self.client.close()

    async def retire(self) -> None:
        self._retired = True
        if not self._users:
            await self.client.close()


class ApiConnection:
    """A session with the API server, renewed when its credentials are refused. Entered as an async context manager."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._configuration: Configuration
        self._session: _Session
        self._renewing = asyncio.Lock()
        self.generation = 0
        """How often the session was made."""

    def __repr__(self) -> str:
        return f"ApiConnection({self._access!r}, generation={self.generation})"

    async def __aenter__(self) -> Self:
        """Read the credentials; connects to nothing yet. Raises `AccessInvalid`."""
        await self._make()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.retire()

    @property
    def url(self) -> str:
        return str(self._configuration.host)

    async def renew(self, generation: int) -> None:
        """Read the credentials again, unless somebody has since *generation*.

        Raises `AccessInvalid`; the old session goes on then.
        """
        async with self._renewing:
            if generation == self.generation:
                await self._make()

    @asynccontextmanager
    async def get(
        self, path: str, query: Query = (), *, silence_seconds: float = CALL_SECONDS, total_seconds: float | None = None
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """A GET whose answer is read by the caller, whatever its status. Raises `ApiUnreachable`."""
        limits = aiohttp.ClientTimeout(total=total_seconds, sock_connect=CONNECT_SECONDS, sock_read=silence_seconds)
        async with self._answer("GET", path, query, None, limits) as response:
            yield response

    async def call(
        self, method: str, path: str, body: object = None, *, within_seconds: float = CALL_SECONDS
    ) -> tuple[int, bytes]:
        """Status and body of one call. Raises `ApiUnreachable`: for a write its outcome is unknown then."""
        limits = aiohttp.ClientTimeout(total=within_seconds, sock_connect=CONNECT_SECONDS)
        async with self._answer(method, path, (), body, limits) as response:
            return response.status, await response.read()

    @asynccontextmanager
    async def _answer(
        self, method: str, path: str, query: Query, body: object, limits: aiohttp.ClientTimeout
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        try:
            async with self._session as client:
                response = await client.request(
                    method,
                    self.url + path,
                    query_params=dict(query),
                    headers=await self._headers(),
                    body=body,
                    _preload_content=False,
                    _request_timeout=limits,
                )
                async with response:
                    yield response
        except (aiohttp.ServerTimeoutError, TimeoutError) as error:
            raise ApiUnreachable(self.url, str(error) or "timed out", silent=True) from error
        except (aiohttp.ClientError, OSError) as error:
            raise ApiUnreachable(self.url, f"{type(error).__name__}: {error}", silent=False) from error

    async def _headers(self) -> dict[str, str]:
        headers = dict(_HEADERS)
        for setting in (await self._configuration.auth_settings()).values():
            headers["Authorization"] = setting["value"]
        if self._configuration.username:
            headers["Authorization"] = self._configuration.get_basic_auth_token()
        return headers

    async def _make(self) -> None:
        configuration = await configure(self._access)
        try:
            client = RESTClientObject(configuration)
        except (OSError, ssl.SSLError) as error:
            raise AccessInvalid(f"certificates: {error}") from error
        before = self._session if self.generation else None
        self._session, self._configuration = _Session(client), configuration
        self.generation += 1
        if before is not None:
            await before.retire()


async def configure(access: Access) -> Configuration:
    """The client configuration that *access* describes. Raises `AccessInvalid`."""
    configuration = Configuration()
    try:
        if access.url:
            _by_url(access, configuration)
        elif access.kubeconfig or not _in_cluster():
            await config.load_kube_config(
                config_file=access.kubeconfig or None,
                context=access.context or None,
                client_configuration=configuration,
                persist_config=False,
            )
        else:
            # The library states no types for this one function.
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
    except (ConfigException, OSError, ValueError) as error:
        raise AccessInvalid(f"{access.kubeconfig}: {error}" if access.kubeconfig else str(error)) from error
    configuration.host = (configuration.host or "").rstrip("/")
    return configuration


def _by_url(access: Access, configuration: Configuration) -> None:
    configuration.host = access.url
    if access.ca_file:
        Path(access.ca_file).read_bytes()  # fails here, with its name, rather than inside TLS
        configuration.ssl_ca_cert = access.ca_file
    if access.token_file:

        def read_token(settings: Configuration) -> None:
            settings.api_key["BearerToken"] = f"Bearer {Path(access.token_file).read_text().strip()}"

        read_token(configuration)
        configuration.refresh_api_key_hook = read_token
    elif access.token:
        configuration.api_key["BearerToken"] = f"Bearer {access.token}"


def _in_cluster() -> bool:
    return Path(config.incluster_config.SERVICE_TOKEN_FILENAME).exists()
