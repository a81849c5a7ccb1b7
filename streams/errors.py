"""What can go wrong in transport. Every error carries fields, and says whether trying again may help."""

from typing import ClassVar


class StreamError(Exception):
    """Base of everything that this room raises on purpose; foreign errors are translated where they enter."""

    retriable: ClassVar[bool] = False
    """Whether the same call may succeed later without anyone changing anything."""


class LogUnavailable(StreamError):
    """The log cannot be reached now, and nothing of this call was written."""

    retriable = True

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"log at {where} is not available: {reason}")
        self.where = where
        self.reason = reason


class OutcomeUnknown(StreamError):
    """It is not known whether an append was written, wholly, in part or not at all.

    What was sent may even appear later, behind records that are appended afterwards. The writer must read the log
    again, in a new epoch, before it decides what to write; repeating the append blindly is wrong.
    """

    def __init__(self, topic: str, entries: int, reason: str) -> None:
        super().__init__(f"it is not known whether {entries} entries for {topic} were written: {reason}")
        self.topic = topic
        self.entries = entries
        self.reason = reason


class EntryTooLarge(StreamError):
    """One entry is larger than the topic takes. Nothing of the call was written; drop the entry and call again."""

    def __init__(self, topic: str, key: str, size: int, limit: int) -> None:
        super().__init__(f"{key} is {size} bytes, and {topic} takes at most {limit} per entry")
        self.topic = topic
        self.key = key
        self.size = size
        """Bytes of key, value and headers, with what the log adds to them."""
        self.limit = limit


class OffsetOutOfRange(StreamError):
    """A position past the end of the log: it belongs to another log, or the log has lost its tail."""

    def __init__(self, topic: str, offset: int, start: int, end: int) -> None:
        super().__init__(f"{topic} has offsets {start} to {end} (exclusive), and {offset} was asked for")
        self.topic = topic
        self.offset = offset
        self.start = start
        self.end = end


class LogCorrupt(StreamError):
    """What is stored cannot be read back as it was written."""

    def __init__(self, topic: str, offset: int, reason: str) -> None:
        super().__init__(f"{topic} cannot be read at offset {offset}: {reason}")
        self.topic = topic
        self.offset = offset
        self.reason = reason


class NotALog(StreamError):
    """A file that is not an eastwest log, or one of a newer format."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path} is not an eastwest log: {reason}")
        self.path = path
        self.reason = reason


class TopicMismatch(StreamError):
    """A topic exists with other settings than eastwest relies on; someone must decide which are meant."""

    def __init__(self, topic: str, differences: dict[str, tuple[str, str]]) -> None:
        parts = (f"{name} is {found!r} and must be {wanted!r}" for name, (wanted, found) in differences.items())
        super().__init__(f"topic {topic}: {'; '.join(parts)}")
        self.topic = topic
        self.differences = differences
        """Setting → (wanted, found)."""


class ServerTooOld(StreamError):
    """A server that lacks something eastwest relies on."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"server at {where} is too old: {reason}")
        self.where = where
        self.reason = reason


class AccessDenied(StreamError):
    """The server knows us and refuses."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where} refuses: {reason}")
        self.where = where
        self.reason = reason
