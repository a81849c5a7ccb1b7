"""What a service says of itself: log lines, metrics, and whether it is healthy and ready."""

import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, Literal

import msgspec
import structlog
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from streams.settings import host_and_port

Format = Literal["human", "json"]
Level = Literal["debug", "info", "warning", "error"]

LEVELS: Final = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def set_up_logging(format_: Format = "human", level: Level = "info") -> None:
    """Write log lines to standard error: coloured for people where it is a terminal, or one JSON object each.

    Libraries that use the standard library's logging are heard from *warning* up, in the same format.
    """
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    renderer: structlog.typing.Processor
    if format_ == "json":
        shared.append(structlog.processors.format_exc_info)
        renderer = structlog.processors.JSONRenderer()
    else:
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[*shared, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name, *shared],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(handlers=[handler], level=max(logging.WARNING, LEVELS[level]), force=True)
    # It reports every try to reach a broker that is away, ten per second; our own log clients say it once.
    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Condition(msgspec.Struct, frozen=True):
    """One thing that has to hold."""

    holds: bool
    reason: str = ""


class Health:
    """What must hold for a service to be alive, and to be ready; each by name, each with its reason.

    Alive fails only when nothing but a restart helps. Ready fails while the service cannot do its work *now*; a
    service that waits for a server that is away is alive and not ready, and restarting it would help nobody.
    """

    def __init__(self, *expected: str) -> None:
        self.alive: dict[str, Condition] = {}
        self.ready = {name: Condition(holds=False, reason="not yet") for name in expected}
        """*expected* conditions do not hold until they are said to."""

    def set_ready(self, name: str, holds: bool, reason: str = "") -> None:
        self.ready[name] = Condition(holds=holds, reason="" if holds else reason)

    def set_alive(self, name: str, holds: bool, reason: str = "") -> None:
        self.alive[name] = Condition(holds=holds, reason="" if holds else reason)

    @property
    def is_alive(self) -> bool:
        return all(condition.holds for condition in self.alive.values())

    @property
    def is_ready(self) -> bool:
        return self.is_alive and all(condition.holds for condition in self.ready.values())


@asynccontextmanager
async def serving(listen: str, health: Health, registry: CollectorRegistry) -> AsyncGenerator[str]:
    """Serve ``/healthz``, ``/readyz`` and ``/metrics`` on ``host:port``; yield the address with the port it got.

    An empty *listen* serves nothing and yields an empty address. Raises OSError where the address is taken, ValueError
    where it is none.
    """
    if not listen:
        yield ""
        return
    host, port = host_and_port(listen)

    async def healthz(_: web.Request) -> web.Response:
        return _conditions(health.is_alive, health.alive)

    async def readyz(_: web.Request) -> web.Response:
        return _conditions(health.is_ready, health.alive | health.ready)

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    application = web.Application()
    application.add_routes(
        [web.get("/healthz", healthz), web.get("/readyz", readyz), web.get("/metrics", metrics)],
    )
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host or None, port)
        await site.start()
        yield f"{listen.rpartition(':')[0]}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


def _conditions(holds: bool, conditions: dict[str, Condition]) -> web.Response:
    body = msgspec.json.encode({"ok": holds, "conditions": conditions})
    return web.Response(body=body, status=200 if holds else 503, content_type="application/json")
