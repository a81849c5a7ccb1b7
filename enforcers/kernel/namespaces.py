"""Entering network namespaces: by a thread that does not come back for quick work, by ``nsenter`` for commands.

A thread has its own namespace, and a socket belongs for life to the one it was made in. So sockets are made by a thread
that entered, and used by anyone. The thread ends with its work: no other work ever runs in the wrong namespace.
"""

import asyncio
import ctypes
import errno
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

HERE: Final = Path("/proc/self/ns/net")
"""The process's own network namespace."""
CLONE_NEWNET: Final = 0x40000000

_libc = ctypes.CDLL(None, use_errno=True)


class NoNamespace(Exception):
    """The file *path* names no network namespace (any more)."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"network namespace {path} does not exist")
        self.path = path
        self.retriable = False


class CommandFailed(Exception):
    """A command in a namespace failed; *line* is the line of its input that it named, if it named one."""

    def __init__(self, path: Path, command: Sequence[str], status: int, message: str, line: str = "") -> None:
        where = f" at {line!r}" if line else ""
        super().__init__(f"{' '.join(command)} in {path} ended with {status}{where}: {message}")
        self.path = path
        self.command = tuple(command)
        self.status = status
        self.message = message
        self.line = line
        self.retriable = True


def enter(path: Path) -> None:
    """Move the calling thread into the namespace. Raises `NoNamespace`, or OSError where that is not permitted."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise NoNamespace(path) from None
    try:
        if _libc.setns(handle, CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            if number == errno.EINVAL:  # a plain file, left when its namespace went
                raise NoNamespace(path)
            raise OSError(number, f"cannot enter {path}: {os.strerror(number)}")
    finally:
        os.close(handle)


def inside_each(work: Iterable[tuple[Path, Callable[[], T]]]) -> list[T]:
    """Do short *work* (namespace, function) in its namespaces, by one thread; return the results in order.

    Blocks the caller: ~10 µs per namespace and whatever the functions take. The first error ends it and is raised here.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def tour() -> None:
        current: Path | None = None
        try:
            for path, function in work:
                if path != current:
                    enter(path)
                    current = path
                results.append(function())
        except BaseException as error:  # noqa: BLE001  carried to the caller, not swallowed
            errors.append(error)

    thread = threading.Thread(target=tour, name="inside-namespaces", daemon=True)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results


def inside(path: Path, function: Callable[[], T]) -> T:
    """`inside_each` for one."""
    return inside_each([(path, function)])[0]


async def run(path: Path, command: Sequence[str], text: str = "") -> str:
    """Run *command* in the namespace with *text* as input; return its output.

    Raises `NoNamespace`, `CommandFailed`; FileNotFoundError where ``nsenter`` is not installed.
    """
    full = command if path == HERE else ["nsenter", f"--net={path}", *command]
    # A file and no pipe: whoever ends without reading all of a pipe makes uvloop's write to it fail as a closed handle.
    with os.fdopen(os.memfd_create("input"), "w+b") as given:
        given.write(text.encode())
        given.seek(0)
        process = await asyncio.create_subprocess_exec(
            *full, stdin=given, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
    try:
        output, errors = await process.communicate()
    except asyncio.CancelledError:
        if process.returncode is None:
            process.kill()
            await process.wait()
        raise
    if process.returncode:
        message = errors.decode(errors="replace").strip()
        if full is not command and message.startswith("nsenter:"):
            raise NoNamespace(path)
        raise CommandFailed(path, command, process.returncode, message, _named_line(message, text))
    return output.decode()


def _named_line(message: str, text: str) -> str:
    """``ip`` and the restore tools name the line they failed at, as ``-:3``, ``line 3`` or ``line: 3``."""
    lines = text.splitlines()
    for mark in ("-:", "line "):
        _, found, rest = message.partition(mark)
        number = rest.split()[0].rstrip(":") if rest.split() else ""
        if found and number.isdigit() and 0 < int(number) <= len(lines):
            return lines[int(number) - 1]
    return ""
