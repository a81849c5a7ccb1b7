"""What can go wrong between the API server and the log."""

from typing import ClassVar


class ProducerError(Exception):
    """Base of everything that this room raises on purpose."""

    retriable: ClassVar[bool] = False


class AccessInvalid(ProducerError):
    """How to reach the API server is not known: no kubeconfig, no such context, an unreadable CA or token file."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"cannot tell how to reach the API server: {reason}")
        self.reason = reason


class ApiUnreachable(ProducerError):
    """No connection, a broken one, or a silent one."""

    retriable = True

    def __init__(self, url: str, reason: str, *, silent: bool) -> None:
        super().__init__(f"{url}: {reason}")
        self.url = url
        self.reason = reason
        self.silent = silent
        """It was open, and said nothing for longer than it may."""


class Replaced(ProducerError):
    """Another writer began a newer epoch: nothing that this one writes is read any more."""

    def __init__(self, topic: str, epoch: int, newer: int) -> None:
        super().__init__(f"another Kubelink writes to {topic} since offset {newer}; this one began at {epoch}")
        self.topic = topic
        self.epoch = epoch
        self.newer = newer


class EpochLost(ProducerError):
    """The own ``Epoch`` record cannot be read, or is no longer the newest of its key: begin a new one."""

    retriable = True

    def __init__(self, topic: str, epoch: int) -> None:
        super().__init__(f"the epoch that began at offset {epoch} of {topic} cannot be read back")
        self.topic = topic
        self.epoch = epoch


class SourceUnready(ProducerError):
    """The source can tell nothing at the moment: to begin an epoch would only end another writer's."""

    retriable = True

    def __init__(self, problems: dict[str, str]) -> None:
        super().__init__("; ".join(f"{subject}: {reason}" for subject, reason in problems.items()))
        self.problems = problems
        """Reason by kind or file."""


class SourceInvalid(ProducerError):
    """A file or folder that should be read does not exist, or is not what it was said to be."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason
