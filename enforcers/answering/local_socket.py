"""The unix socket of this node's enforcer: one enforcer at a time, opened by its owner alone."""

import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

OTHERS_NOTHING: Final = 0o177


class EnforcerAtWork(OSError):
    """Another enforcer serves the socket *path*: two of them would fight over the same Pods."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"another enforcer of this node answers at {path}: end it, or name another --socket")
        self.path = path
        self.retriable = False


@contextmanager
def claimed(path: Path) -> Iterator[socket.socket]:
    """A listening socket at *path*, which goes when left. What a killed enforcer left there is replaced.

    Raises `EnforcerAtWork` where somebody answers, FileExistsError where no socket is in the way, OSError where it
    cannot be made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.exists():
        if not stat.S_ISSOCK(path.stat().st_mode):
            raise FileExistsError(f"{path} is in the way, and no socket")
        if _answers(path):
            raise EnforcerAtWork(path)
        path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as made:
        before = os.umask(OTHERS_NOTHING)  # from its first moment: to change its mode afterwards would come too late
        try:
            made.bind(str(path))
        finally:
            os.umask(before)
        made.listen()
        own = path.stat().st_ino
        try:
            yield made
        finally:
            if path.exists() and path.stat().st_ino == own:
                path.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        try:
            asking.connect(str(path))
        except OSError:
            return False
    return True
