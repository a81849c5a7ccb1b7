"""Where aiokafka's errors become ours, and a broker that is too old is recognized."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka import AIOKafkaConsumer
from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    InvalidTopicError,
    KafkaError,
    PolicyViolationError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)
from aiokafka.protocol.admin import ApiVersionRequest

from streams.errors import AccessDenied, LogRefused, LogUnavailable, ServerTooOld, StreamError

DENIALS: Final = (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
REFUSALS: Final = (
    InvalidConfigurationError,
    InvalidReplicationFactorError,
    InvalidRequestError,
    InvalidTopicError,
    PolicyViolationError,
)
TOO_OLD: Final = (IncompatibleBrokerVersion, UnsupportedVersionError, NotImplementedError)
"""The last is what aiokafka raises where it has no version of a request in common with the broker."""
OLDEST: Final = "Apache Kafka 2.1 or newer is needed"
NEEDED: Final = {
    0: ("Produce", 3),  # record headers
    1: ("Fetch", 4),
    2: ("ListOffsets", 1),  # offsets for times
    3: ("Metadata", 1),
    19: ("CreateTopics", 1),
    22: ("InitProducerId", 0),  # idempotent producers
    32: ("DescribeConfigs", 1),
}
"""Request → its name and the version that has what we use (Kafka protocol guide, API keys)."""


def translated(bootstrap: str, error: Exception) -> StreamError:
    """Our error for one of aiokafka's, raised by a request that wrote nothing."""
    if isinstance(error, DENIALS):
        return AccessDenied(bootstrap, str(error))
    if isinstance(error, REFUSALS):
        return LogRefused(bootstrap, str(error))
    if isinstance(error, TOO_OLD):
        return ServerTooOld(bootstrap, f"{error}; {OLDEST}")
    return LogUnavailable(bootstrap, str(error) or type(error).__name__)


@contextmanager
def translating(bootstrap: str) -> Iterator[None]:
    """Raise our errors for aiokafka's, around requests that write nothing."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError, NotImplementedError) as error:
        raise translated(bootstrap, error) from error


async def check_version(bootstrap: str, *, request_seconds: float) -> None:
    """Raise `ServerTooOld` naming what the broker lacks, `LogUnavailable` if none answers.

    aiokafka itself takes a request that the broker does not know for a broker that is away, and retries for ever.
    """
    reasons = []
    for host, port, _ in collect_hosts(bootstrap):
        try:
            connection = await create_conn(host, port, request_timeout_ms=int(request_seconds * 1000))
        except (KafkaError, TimeoutError, OSError) as error:
            reasons.append(f"{host}:{port}: {error}")
            continue
        try:
            with translating(bootstrap):
                versions = (await connection.send(ApiVersionRequest())).api_versions
        finally:
            await connection.close()
        known = {key: newest for key, _oldest, newest in versions}
        missing = [f"{name} v{version}" for key, (name, version) in NEEDED.items() if known.get(key, -1) < version]
        if missing:
            raise ServerTooOld(bootstrap, f"it does not know {', '.join(missing)}; {OLDEST}")
        return
    raise LogUnavailable(bootstrap, "; ".join(reasons))


async def stop_consumer(consumer: AIOKafkaConsumer) -> None:
    """Stop *consumer* wholly, whatever it is doing.

    While the broker is away aiokafka's ``stop`` cancels its own pending fetch, and lets that cancellation out as if the
    caller were meant; its connections then stay open.
    """
    stopping = asyncio.create_task(consumer.stop(), name="stop-consumer")
    await asyncio.wait([stopping])
    if stopping.cancelled():
        await consumer._client.close()
    else:
        stopping.result()
