"""The options by which every reading command says which stack it means, and the connections that follow from them."""

import os
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click
import msgspec

from compose import contexts
from schemas.names import InvalidClusterName, checked_cluster
from streams import topics

if TYPE_CHECKING:
    from streams.log import ReadableLog
    from streams.nats.nats_bus import NatsBus


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """Which stack. The parts that a command does not need may be empty."""

    cluster: str = ""
    """Empty: not said; the only one in the embedded log."""
    kafka: str = ""
    log: str = ""
    nats: str = ""

    @asynccontextmanager
    async def events(self, topic: Callable[[str], topics.Topic] = topics.events) -> AsyncGenerator["EventLog"]:
        """The cluster's name and its event log, or its log of another *topic*, to be read.

        Raises `click.UsageError` where it cannot be said which that is, `NoSuchTopic`.
        """
        if self.kafka:
            from streams.kafka.kafka_log import KafkaLogs, KafkaSettings

            cluster = self.cluster or contexts.Context().cluster
            async with KafkaLogs(KafkaSettings(bootstrap=self.kafka, connect_seconds=10.0)) as logs:
                yield EventLog(cluster, await logs.find(topic(cluster)))
        elif self.log:
            from streams.sqlite.sqlite_log import SqliteLogs

            path = _existing(self.log)
            closed = not (os.access(path, os.W_OK) and os.access(path.parent, os.W_OK))
            async with SqliteLogs(path, read_only=closed) as embedded:
                cluster = _only_cluster(self.log, [topic.name for topic in await embedded.topics()], self.cluster)
                yield EventLog(cluster, await embedded.find(topic(cluster)))
        else:
            raise click.UsageError("where is the event log? name it by --kafka or --log")

    @asynccontextmanager
    async def bus(self) -> AsyncGenerator["NatsBus"]:
        """The connection to NATS. Raises `click.UsageError` where none is named."""
        if not self.nats:
            raise click.UsageError("where is NATS? name it by --nats")
        from streams.nats.nats_bus import NatsBus

        async with NatsBus(self.nats, name="eastwest-command") as bus:
            yield bus


class EventLog(NamedTuple):
    cluster: str
    log: "ReadableLog"


def _existing(file: str) -> Path:
    try:
        if (path := Path(file)).is_file():
            return path
    except PermissionError as error:
        raise click.UsageError(str(error)) from None
    raise click.UsageError(f"there is no log {file}")


def _only_cluster(file: str, found: list[str], wanted: str) -> str:
    """The cluster whose events are in *file*, among topics *found*; the one *wanted* where it is there."""
    clusters = [name.split(".")[1] for name in found if name.count(".") == 3 and name.split(".")[2] == "events"]
    if wanted in clusters:
        return wanted
    if not wanted and len(clusters) == 1:
        return clusters[0]
    holds = f"holds the events of {', '.join(clusters)}" if clusters else "holds no events"
    raise click.UsageError(f"{file} {holds}; " + (f"not of {wanted}" if wanted else "choose one by --cluster"))


def resolve(
    *, context: str | None, cluster: str | None, kafka: str | None, log: str | None, nats: str | None
) -> Target:
    """What was named wins; the rest comes from the runtime file. Without any name there has to be one."""
    try:
        base = contexts.Context(cluster="")
        if context or not (kafka or log or nats):
            base = contexts.find(context)
        return Target(
            cluster=checked_cluster(name) if (name := cluster or base.cluster) else "",
            kafka=kafka or ("" if log else base.kafka),
            log=log or ("" if kafka else base.log),
            nats=nats or base.nats,
        )
    except (contexts.NoContext, InvalidClusterName) as error:
        raise click.UsageError(str(error)) from None


def with_target(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give *command* the options that choose a stack, and the `Target` as its first argument."""

    @wraps(command)
    def choose(
        context: str | None, cluster: str | None, kafka: str | None, log: str | None, nats: str | None, **rest: Any
    ) -> Any:
        return command(resolve(context=context, cluster=cluster, kafka=kafka, log=log, nats=nats), **rest)

    for option in (
        click.option("--nats", envvar="EASTWEST_NATS", metavar="URL", help="NATS server."),
        click.option("--log", metavar="FILE", help="File of an embedded log, or an export."),
        click.option("--kafka", envvar="EASTWEST_KAFKA", metavar="HOST:PORT", help="Kafka's bootstrap servers."),
        click.option("--cluster", envvar="EASTWEST_CLUSTER", help="Name of the cluster."),
        click.option("--context", help="Which of the stacks that run here (see `eastwest up --context`)."),
    ):
        choose = option(choose)
    return choose
