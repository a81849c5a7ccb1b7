"""From a service's settings to its log and its bus: the only place where a transport is chosen."""

import os
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import structlog

from streams.backoff import Backoff
from streams.errors import BusUnavailable, LogUnavailable
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.log import Logs
from streams.nats.nats_bus import NatsBus
from streams.settings import Settings
from streams.sqlite.sqlite_log import CLEAN_SECONDS, SqliteLogs

LOG_FILE: Final = "log.db"
"""The embedded log, in the folder of whoever writes it."""

_log = structlog.get_logger("connections")


def data_folder(settings: Settings) -> Path:
    """Where this machine's data is: as set, else ``/var/lib/eastwest`` for root, else the user's state folder."""
    if settings.data:
        return Path(settings.data)
    if os.geteuid() == 0:
        return Path("/var/lib/eastwest")
    state = os.environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "eastwest"


@asynccontextmanager
async def logs_of(settings: Settings) -> AsyncGenerator[Logs]:
    """Kafka where it is named, waited for while it is away; otherwise the embedded log."""
    async with AsyncExitStack() as stack:
        if not settings.kafka:
            folder = data_folder(settings)
            folder.mkdir(parents=True, exist_ok=True, mode=0o750)
            yield await stack.enter_async_context(SqliteLogs(folder / LOG_FILE, clean_every_seconds=CLEAN_SECONDS))
            return
        backoff = Backoff()
        while True:
            try:
                kafka = await stack.enter_async_context(KafkaLogs(KafkaSettings(bootstrap=settings.kafka)))
                break
            except LogUnavailable as error:
                _log.warning("waiting for Kafka", reason=str(error))
                await backoff.wait()
        yield kafka


@asynccontextmanager
async def bus_of(settings: Settings, name: str) -> AsyncGenerator[NatsBus]:
    """The connection to NATS, waited for while it is away; *name* says there who this is."""
    async with AsyncExitStack() as stack:
        backoff = Backoff()
        while True:
            try:
                bus = await stack.enter_async_context(NatsBus(settings.nats, name=name))
                break
            except BusUnavailable as error:
                _log.warning("waiting for NATS", reason=str(error))
                await backoff.wait()
        yield bus
