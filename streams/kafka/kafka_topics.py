"""Creating topics with the settings eastwest relies on, and verifying what the broker made of them."""

import asyncio
from typing import Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    KafkaError,
    NoError,
    TopicAlreadyExistsError,
    for_code,
)

from streams.backoff import Backoff
from streams.errors import NoSuchTopic, TopicMismatch
from streams.kafka.kafka_border import translating
from streams.topics import Topic

_SETTLING_SECONDS: Final = 15.0
"""How long a topic may take from its creation until every request knows it."""


def topic_settings(topic: Topic) -> dict[str, str]:
    """What *topic* must have in Kafka's words (Apache Kafka, topic configuration)."""
    settings = {
        "cleanup.policy": topic.cleanup,
        # The broker's clock, so that `offset_at` and the compaction lag do not hang on a writer's.
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(topic.max_message_bytes),
    }
    if topic.cleanup == "compact":
        settings["min.compaction.lag.ms"] = str(topic.min_compaction_lag_ms)
    else:
        settings["retention.ms"] = str(topic.retention_ms)
        settings["retention.bytes"] = "-1"
    return settings


async def ensure_topic(bootstrap: str, topic: Topic, *, replication: int) -> None:
    """Create *topic* where it does not exist; verify what exists.

    Raises `TopicMismatch` naming every setting that differs, `LogRefused`, `AccessDenied`, `ServerTooOld`,
    `LogUnavailable`.
    """
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    with translating(bootstrap):
        try:
            await admin.start()
            # Asking for the topic by its name could create it, with the broker's settings.
            existing = await admin.list_topics()
            if topic.name not in existing:
                await _create(admin, topic, replication)
            found = await _described(admin, topic)
        finally:
            await admin.close()
    wanted = {"partitions": "1", **topic_settings(topic)}
    differences = {name: (value, found.get(name, "")) for name, value in wanted.items() if found.get(name) != value}
    if differences:
        raise TopicMismatch(topic.name, differences)


async def require_topic(bootstrap: str, topic: Topic) -> None:
    """Raise `NoSuchTopic` where *topic* does not exist, or may not be seen; `LogUnavailable`, `AccessDenied`."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap, request_timeout_ms=10_000)
    with translating(bootstrap):
        try:
            await admin.start()
            existing = await admin.list_topics()
        finally:
            await admin.close()
    if topic.name not in existing:
        raise NoSuchTopic(bootstrap, topic.name)


async def _create(admin: AIOKafkaAdminClient, topic: Topic, replication: int) -> None:
    response = await admin.create_topics([NewTopic(topic.name, 1, replication, topic_configs=topic_settings(topic))])
    for _, code, *message in response.topic_errors:
        error = for_code(code)
        if error not in (NoError, TopicAlreadyExistsError):  # another client may have been quicker
            raise error(f"creating topic {topic.name}: {message[0] if message else ''}")


async def _described(admin: AIOKafkaAdminClient, topic: Topic) -> dict[str, str]:
    """The settings that *topic* has, with its number of ``partitions``; waits until the broker knows it."""
    backoff = Backoff(first_seconds=0.02, limit_seconds=0.5)
    deadline = asyncio.get_running_loop().time() + _SETTLING_SECONDS
    while True:
        try:
            return await _description(admin, topic)
        except KafkaError as error:
            if not error.retriable or asyncio.get_running_loop().time() >= deadline:
                raise
            await backoff.wait()


async def _description(admin: AIOKafkaAdminClient, topic: Topic) -> dict[str, str]:
    [described] = await admin.describe_topics([topic.name])
    _raise_for(described["error_code"], topic)
    wanted = dict.fromkeys(topic_settings(topic))
    [response] = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic.name, wanted)])
    [(code, _message, _kind, _name, entries)] = response.resources
    _raise_for(code, topic)
    found = {entry[0]: str(entry[1]) for entry in entries}
    return {"partitions": str(len(described["partitions"])), **found}


def _raise_for(code: int, topic: Topic) -> None:
    error = for_code(code)
    if error is not NoError:
        raise error(topic.name)
