"""A network namespace for a trial: it has no name, and nobody can forget to remove it."""

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enforcers.kernel.namespaces import CLONE_NEWNET

_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def scratch_namespace() -> Iterator[Path]:
    """The path of a new network namespace that lives as long as a thread of this process, which ends with the block.

    Raises OSError where that is not permitted. Blocks for some milliseconds.
    """
    path: list[Path] = []
    number: list[int] = []
    ready, done = threading.Event(), threading.Event()

    def live() -> None:
        if _libc.unshare(CLONE_NEWNET) == 0:
            path.append(Path(f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"))
        else:
            number.append(ctypes.get_errno())
        ready.set()
        done.wait()

    thread = threading.Thread(target=live, name="scratch-namespace", daemon=True)
    thread.start()
    try:
        ready.wait()
        if number:
            raise OSError(number[0], f"cannot make a network namespace: {os.strerror(number[0])}")
        yield path[0]
    finally:
        done.set()
        thread.join()
