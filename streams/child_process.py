"""A server run as a child: it lives no longer than its parent, and its end can be awaited without a thread."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self


class ChildEnded(Exception):
    """A child that should be running is not; not retriable by itself: the reason stands in its log."""

    def __init__(self, name: str, returncode: int, log_tail: str) -> None:
        super().__init__(f"{name} ended with {returncode}; its last words:\n{log_tail}")
        self.name = name
        self.returncode = returncode
        self.log_tail = log_tail
        self.retriable = False


class ChildProcess:
    """One process that the kernel kills should its parent die first, whatever the parent dies of.

    Spawn it from a thread that lasts as long as it should (the loop's own): ``PR_SET_PDEATHSIG`` follows the
    thread that forked. It gets a session of its own, so that Ctrl-C reaches the parent alone, which then drains.
    """

    def __init__(self, name: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.name = name
        self.log = log
        self._process = process

    @classmethod
    def spawn(
        cls,
        name: str,
        command: Sequence[str | Path],
        *,
        log: Path,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Self:
        """Start *command* with its output appended to *log*, in *folder*; *environment* replaces the own one.

        Raises FileNotFoundError where the command, or ``setpriv`` of util-linux, does not exist.
        """
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise FileNotFoundError("setpriv (Debian package util-linux) is needed to start children safely")
        # setpriv replaces itself by the command: no Python runs between fork and exec, the pid is the server's own.
        arguments = [setpriv, "--pdeathsig", "KILL", "--", *map(str, command)]
        with log.open("ab") as output:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=folder,
                env=None if environment is None else dict(environment),
                start_new_session=True,
            )
        return cls(name, process, log)

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self._process.returncode}"
        return f"<{self.name}, pid {self.pid}, {state}>"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def ensure_running(self) -> None:
        """Raises ChildEnded, with the end of the log, where it is not."""
        returncode = self._process.poll()
        if returncode is not None:
            raise ChildEnded(self.name, returncode, self.log_tail())

    def log_tail(self, lines: int = 15) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def signal(self, number: signal.Signals) -> None:
        """Send *number*; nothing where the process ended already."""
        if self.running:
            self._process.send_signal(number)

    async def exited(self) -> int:
        """Wait for its end, however it comes, and return its code (negative: the signal)."""
        if self.running:
            loop = asyncio.get_running_loop()
            ended = asyncio.Event()
            handle = os.pidfd_open(self.pid)
            loop.add_reader(handle, ended.set)
            try:
                await ended.wait()
            finally:
                loop.remove_reader(handle)
                os.close(handle)
        return self._process.wait()

    async def kill(self) -> int:
        """SIGKILL, and wait."""
        self.signal(signal.SIGKILL)
        return await self.exited()

    async def end(self, within_seconds: float = 10.0) -> int:
        """SIGTERM, wait; SIGKILL where it takes longer. Safe to repeat."""
        self.signal(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            return await asyncio.wait_for(self.exited(), within_seconds)
        return await self.kill()
