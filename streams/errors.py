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


class LogRefused(StreamError):
    """The log understood a request and refused it; it will do so again until someone changes something."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"log at {where} refuses: {reason}")
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


class NoSuchTopic(StreamError):
    """A topic that was to be read does not exist."""

    def __init__(self, where: str, topic: str) -> None:
        super().__init__(f"{where} has no topic {topic}")
        self.where = where
        self.topic = topic


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


class BusUnavailable(StreamError):
    """NATS, or its JetStream, cannot be reached or does not answer now."""

    retriable = True

    def __init__(self, what: str, reason: str) -> None:
        super().__init__(f"NATS is not available for {what}: {reason}")
        self.what = what
        self.reason = reason


class ReadFailed(StreamError):
    """A read of a stream did not come to its end. It says nothing about what the stream holds, least of all that it
    is empty."""

    retriable = True

    def __init__(self, stream: str, subject: str, reason: str) -> None:
        super().__init__(f"reading {subject} of {stream} failed: {reason}")
        self.stream = stream
        self.subject = subject
        self.reason = reason


class Refused(StreamError):
    """JetStream understood a request and refused it."""

    def __init__(self, request: str, code: int, error_code: int, description: str) -> None:
        super().__init__(f"JetStream refuses {request}: {description} ({code}, {error_code})")
        self.request = request
        self.code = code
        """As in HTTP; 404: no such stream, consumer or message."""
        self.error_code = error_code
        """JetStream's own number."""
        self.description = description


class Fenced(StreamError):
    """Another one owns the stream now: nothing more of this owner is written, and nothing of it was since then."""

    def __init__(self, stream: str, name: str) -> None:
        super().__init__(f"{name} does not own {stream} any more: another took it over")
        self.stream = stream
        self.name = name


class MarkWouldGoBack(StreamError):
    """The stream is complete at a newer revision than the one to be published: a log that lost its tail, or was
    made anew under the same cluster name."""

    def __init__(self, stream: str, published: int, wanted: int) -> None:
        super().__init__(
            f"{stream} is complete at revision {published}, and revision {wanted} is older; if the event log was made "
            "anew, delete the stream, and enforcers keep their rules until it is written again"
        )
        self.stream = stream
        self.published = published
        self.wanted = wanted


class ProgramTooLarge(StreamError):
    """A program does not fit into a message. Nothing of the change was published."""

    def __init__(self, node: str, uid: str, size: int, limit: int) -> None:
        super().__init__(f"the program of Pod {uid} on {node} is {size} bytes, and NATS takes at most {limit}")
        self.node = node
        self.uid = uid
        self.size = size
        self.limit = limit
