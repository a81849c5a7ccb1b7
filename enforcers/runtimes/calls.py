"""Asking a container runtime by gRPC, and what can come of it."""

from collections.abc import Mapping
from typing import Any, Final

from grpclib.client import Channel, UnaryStreamMethod, UnaryUnaryMethod
from grpclib.exceptions import GRPCError, ProtocolError, StreamTerminatedError

from enforcers.runtimes.messages import message_type

ANSWER_SECONDS: Final = 10.0
AWAY: Final = (GRPCError, StreamTerminatedError, ProtocolError, OSError, TimeoutError)
"""What a call raises where the runtime refuses, goes, or does not come."""


class RuntimeUnavailable(Exception):
    """The runtime at *socket* cannot be asked now; what was known of its Pods stands.

    *refused*: it answered, and knows nothing of what it was asked about.
    """

    def __init__(self, socket: str, reason: str, *, refused: bool = False) -> None:
        super().__init__(f"container runtime at {socket} does not answer: {reason}")
        self.socket = socket
        self.reason = reason
        self.refused = refused
        self.retriable = True


class Calls:
    """Calls over one connection to *socket*, which is made when it is needed, again and again."""

    def __init__(self, socket: str, *, metadata: Mapping[str, str] | None = None) -> None:
        self.socket = socket
        self._metadata = metadata or {}
        self._channel = Channel(path=socket)

    def close(self) -> None:
        self._channel.close()

    async def ask(self, path: str, request: Any, answer: str) -> Any:
        """The *answer*, a message of that name, to *request*. Raises `RuntimeUnavailable`."""
        call = UnaryUnaryMethod(self._channel, path, type(request), message_type(answer))
        try:
            return await call(request, timeout=ANSWER_SECONDS, metadata=self._metadata)
        except AWAY as error:
            reason = f"{path.rpartition('/')[2]}: {error}"
            raise RuntimeUnavailable(self.socket, reason, refused=isinstance(error, GRPCError)) from error

    def stream(self, path: str, request: Any, answer: str) -> Any:
        """An async context manager of a stream of *answer*; what it raises is in `AWAY`."""
        return UnaryStreamMethod(self._channel, path, type(request), message_type(answer)).open(metadata=self._metadata)
