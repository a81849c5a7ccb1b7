"""A Docker engine for tests where none answers: dockerd in a network namespace of its own, ended by its pid.

The namespace has no way out, so containers cannot reach a stranger, and what dockerd does to firewall and bridges is
gone with it. Its Unix socket can be used from anywhere.
"""

import asyncio
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from streams.child_process import ChildProcess
from tests.components.waiting import until

NAMESPACE = "ewt-docker"
BRIDGE_ADDRESS = "172.30.0.1"
"""The engine's end of its default bridge: containers of every network reach what listens there."""


class DockerEngine:
    """``async with DockerEngine(folder) as engine``: images, containers and networks live and die in *folder*."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "docker.sock"
        self._process: ChildProcess | None = None

    @property
    def environment(self) -> Mapping[str, str]:
        """For the ``docker`` and ``docker-compose`` commands and testcontainers."""
        return {"DOCKER_HOST": f"unix://{self.socket}", "TESTCONTAINERS_RYUK_DISABLED": "true"}

    async def __aenter__(self) -> Self:
        self._make_namespace()
        try:
            self._process = ChildProcess.spawn("dockerd", self._command(), log=self.folder / "dockerd.log")
            process = self._process
            await until("dockerd to answer", lambda: process.ensure_running() or self._answers(), within_seconds=60)
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            await self._process.end(within_seconds=30)
        await asyncio.to_thread(self._clear)

    def _command(self) -> list[str]:
        return [
            "nsenter",
            f"--net=/run/netns/{NAMESPACE}",
            "dockerd",
            f"--config-file={self._configuration()}",  # not the machine's own
            f"--data-root={self.folder / 'data'}",
            f"--exec-root={self.folder / 'exec'}",
            f"--pidfile={self.folder / 'docker.pid'}",
            f"--host=unix://{self.socket}",
            "--storage-driver=overlay2",
            f"--bip={BRIDGE_ADDRESS}/24",
        ]

    def _configuration(self) -> Path:
        path = self.folder / "daemon.json"
        path.write_text("{}")
        return path

    def _make_namespace(self) -> None:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
        subprocess.run(["ip", "-n", NAMESPACE, "link", "set", "lo", "up"], check=True)
        routes = subprocess.run(
            ["ip", "-j", "-n", NAMESPACE, "route", "show", "default"], check=True, capture_output=True, text=True
        ).stdout
        assert json.loads(routes or "[]") == [], f"{NAMESPACE} has a default route: containers could reach strangers"

    def _answers(self) -> bool:
        asked = subprocess.run(
            ["docker", "version"], env={**os.environ, **self.environment}, check=False, capture_output=True
        )
        return asked.returncode == 0

    def _clear(self) -> None:
        for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
            target = line.split()[1]
            if target.startswith(str(self.folder)):
                subprocess.run(["umount", "-l", target], check=False, capture_output=True)
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=False, capture_output=True)
        shutil.rmtree(self.folder / "data", ignore_errors=True)
