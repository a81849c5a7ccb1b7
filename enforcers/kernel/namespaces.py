"""Entering network namespaces, by threads that come home again.

A thread has its own namespace; a socket belongs for life to the one it was made in, a process begins in the one of the
thread that spawns it. So sockets and processes are made by a thread that entered, and used by anyone. It goes home at
once: a thread that stayed would keep the namespace, and a deleted Pod's network, alive.

Going there and back takes 4 µs; to start a thread and await that it runs takes 100, and many times that where all cores
are busy.
"""

import asyncio
import ctypes
import errno
import fcntl
import os
import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeVar

T = TypeVar("T")

HERE: Final = Path("/proc/self/ns/net")
"""The process's own network namespace."""
RUN_NETNS: Final = Path("/run/netns")
"""Where iproute2 and most container runtimes keep their namespaces' files."""
OWN: Final = Path("/proc/thread-self/ns/net")
"""The calling thread's."""
CLONE_NEWNET: Final = 0x40000000
_LINE: Final = re.compile(r"(?:-:|\bline:? )(\d+)")

OUTPUT_BYTES: Final = 32 << 20
"""What a command may say: a tool that lists tells what a Pod has, and a Pod may have as much as it likes."""
MESSAGE_CHARACTERS: Final = 500
"""The last so many of a failure are told: they travel in the node's status, which has a largest size."""
COMMANDS: Final = 64
"""How many commands run at a time at most; who wants fewer has a limit of his own."""

_libc = ctypes.CDLL(None, use_errno=True)
_quick = ThreadPoolExecutor(4, thread_name_prefix="inside-namespaces")
_patient = ThreadPoolExecutor(COMMANDS, thread_name_prefix="run-commands")


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


def identity(path: Path) -> int:
    """Tells the namespace that *path* names from every other that exists; 0: there is no such file."""
    try:
        return path.stat().st_ino
    except OSError:
        return 0


@contextmanager
def _visiting() -> Iterator[Callable[[Path], None]]:
    """Gives what moves the calling thread into a namespace; brings it home at the end.

    To go raises `NoNamespace`, or OSError where that is not permitted.
    """
    home = os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)
    away = False

    def go(path: Path) -> None:
        nonlocal away
        try:
            handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NoNamespace(path) from None
        try:
            _enter(handle, path)
            away = True
        finally:
            os.close(handle)

    try:
        yield go
    finally:
        if away:
            _enter(home, OWN)
        os.close(home)


def _enter(handle: int, path: Path) -> None:
    if _libc.setns(handle, CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        if number == errno.EINVAL:  # a plain file, left when its namespace went
            raise NoNamespace(path)
        raise OSError(number, f"cannot enter {path}: {os.strerror(number)}")


def inside_each(work: Iterable[tuple[Path, Callable[[], T]]]) -> list[T]:
    """Do short *work* (namespace, function) in its namespaces, by one thread; return the results in order.

    Blocks the caller for whatever the functions take. The first error ends it and is raised here. The thread is the
    caller's own, but for the main one, which must not leave: `HERE` is where that is.
    """

    def tour() -> list[T]:
        results: list[T] = []
        with _visiting() as go:
            current: Path | None = None
            for path, function in work:
                if path != current:
                    go(path)
                    current = path
                results.append(function())
        return results

    if threading.current_thread() is threading.main_thread():
        return _quick.submit(tour).result()
    return tour()


def inside(path: Path, function: Callable[[], T]) -> T:
    """`inside_each` for one."""
    return inside_each([(path, function)])[0]


async def run(path: Path, command: Sequence[str], text: str = "") -> str:
    """Run *command* in the namespace with *text* as input; return its output.

    Raises `NoNamespace`, `CommandFailed`; FileNotFoundError where the command is not installed. Cancelled, it kills the
    process and awaits its end.
    """
    visit = _Visit(path, command, text)
    ended = asyncio.wrap_future(visit.ended)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        visit.give_up()
        await asyncio.wait([ended])
        if not ended.cancelled():
            ended.exception()  # looked at, and of no interest to who gave up
        raise


class _Visit:
    """One process in a namespace, spawned, waited for and reaped by a thread that went there.

    No ``nsenter`` stands between: that, and asyncio's own subprocesses, made a restore a third dearer (5.2 ms of
    processor time, 3.5 ms so). Python's vfork costs no more than posix_spawn, a visit per process no more than one for
    several.
    """

    def __init__(self, path: Path, command: Sequence[str], text: str) -> None:
        self._path = path
        self._command = command
        self._text = text
        self._turn = threading.Lock()
        self._given_up = False
        self._process: subprocess.Popen[bytes] | None = None
        self.ended = _patient.submit(self._visit)

    def give_up(self) -> None:
        """Kill the process, or do not begin it."""
        self.ended.cancel()
        with self._turn:
            self._given_up = True
            if self._process is not None:
                self._process.kill()

    def _visit(self) -> str:
        # Files and no pipes: nobody waits for who does not read, and nobody has to read while it runs.
        with _input(self._text) as given, _output("output") as output, _output("errors") as errors:
            status = self._run(given, output, errors)
            said, message = _said(output), _said(errors).strip()
        if len(said) >= OUTPUT_BYTES:  # it may not have noticed that nobody took the rest
            raise CommandFailed(self._path, self._command, status, f"it has more than {OUTPUT_BYTES} bytes to say")
        if status:
            told = message[-MESSAGE_CHARACTERS:]
            raise CommandFailed(self._path, self._command, status, told, _named_line(message, self._text))
        return said

    def _run(self, given: int, output: int, errors: int) -> int:
        with self._turn, _visiting() as go:
            if self._given_up:
                raise asyncio.CancelledError
            if self._path != HERE:
                go(self._path)
            process = self._process = subprocess.Popen(self._command, stdin=given, stdout=output, stderr=errors)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        with self._turn:  # its number is another's once it is reaped, and nobody may kill that
            self._process = None
            return process.wait()


# Files by their numbers: Python's own ask for four more system calls each, and let another thread go on at every one.


@contextmanager
def _in_memory(name: str, flags: int = 0) -> Iterator[int]:
    file = os.memfd_create(name, os.MFD_CLOEXEC | flags)
    try:
        yield file
    finally:
        os.close(file)


@contextmanager
def _input(text: str) -> Iterator[int]:
    """A file in memory that holds *text*, at its beginning."""
    with _in_memory("input") as file:
        os.pwrite(file, text.encode(), 0)
        yield file


@contextmanager
def _output(name: str) -> Iterator[int]:
    """A file in memory that takes `OUTPUT_BYTES` and refuses more."""
    with _in_memory(name, os.MFD_ALLOW_SEALING) as file:
        os.truncate(file, OUTPUT_BYTES)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW)
        yield file


def _said(file: int) -> str:
    """What was written to it. Names in a Pod are whatever bytes the Pod likes."""
    return os.pread(file, os.lseek(file, 0, os.SEEK_CUR), 0).decode(errors="backslashreplace")


def _named_line(message: str, text: str) -> str:
    """``ip`` and the restore tools name the line they failed at, as ``-:3``, ``line 3`` or ``line: 3``."""
    lines = text.splitlines()
    found = _LINE.search(message)
    number = int(found.group(1)) if found else 0
    return lines[number - 1] if 0 < number <= len(lines) else ""
