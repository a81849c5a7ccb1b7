"""Where aiokafka's errors become ours, and its noise becomes one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IncompatibleBrokerVersion,
    KafkaError,
    TopicAuthorizationFailedError,
    UnsupportedVersionError,
)

from streams.errors import AccessDenied, LogUnavailable, ServerTooOld, StreamError

DENIALS: Final = (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
TOO_OLD: Final = (IncompatibleBrokerVersion, UnsupportedVersionError)


def translated(bootstrap: str, error: Exception) -> StreamError:
    """Our error for one of aiokafka's, raised by a request that wrote nothing."""
    if isinstance(error, DENIALS):
        return AccessDenied(bootstrap, str(error))
    if isinstance(error, TOO_OLD):
        return ServerTooOld(bootstrap, f"{error}; Apache Kafka 2.1 or newer is needed")
    return LogUnavailable(bootstrap, str(error) or type(error).__name__)


@contextmanager
def translating(bootstrap: str) -> Iterator[None]:
    """Raise our errors for aiokafka's, around requests that write nothing."""
    try:
        yield
    except (KafkaError, TimeoutError, OSError) as error:
        raise translated(bootstrap, error) from error
