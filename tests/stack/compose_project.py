"""One compose project on a Docker engine: the file that users have, with the images that tests can build."""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.components.waiting import until
from tests.stack.images import CHECKOUT, KAFKA, NATS

COMPOSE_FILE = CHECKOUT / "compose/stack/compose.yaml"
TAG = "0.0.0-test"


class ComposeProject:
    """``docker-compose`` on `COMPOSE_FILE`; *settings* are what a user would put into ``.env``."""

    def __init__(self, engine: Mapping[str, str], folder: Path, settings: Mapping[str, str]) -> None:
        self.name = "ewtstack"
        self.engine = engine
        env_file = folder / "test.env"
        images = {"EASTWEST_VERSION": TAG, "EASTWEST_KAFKA_IMAGE": KAFKA, "EASTWEST_NATS_IMAGE": NATS}
        env_file.write_text("".join(f"{name}={value}\n" for name, value in {**images, **settings}.items()))
        self.command = ["docker-compose", "-p", self.name, "--env-file", str(env_file), "-f", str(COMPOSE_FILE)]

    def run(self, *arguments: str, check: bool = True) -> str:
        """Run one command of compose; raises AssertionError with its words where it fails."""
        done = subprocess.run(
            [*self.command, *arguments],
            env={**os.environ, **self.engine},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert not check or done.returncode == 0, f"{' '.join(arguments)}:\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        return done.stdout

    def docker(self, *arguments: str) -> str:
        done = subprocess.run(
            ["docker", *arguments], env={**os.environ, **self.engine}, capture_output=True, text=True, check=False
        )
        return done.stdout

    def containers(self) -> dict[str, dict[str, Any]]:
        """What Docker says of each service's container, by service."""
        ids = self.run("ps", "-q").split()
        found = json.loads(self.docker("inspect", *ids)) if ids else []
        return {each["Config"]["Labels"]["com.docker.compose.service"]: each for each in found}

    async def until_healthy(self, services: set[str]) -> None:
        """Wait for *services* to be healthy; raises AssertionError with the last words of those that are not."""

        def healthy() -> set[str]:
            states = {service: each["State"] for service, each in self.containers().items()}
            return {service for service, state in states.items() if state.get("Health", {}).get("Status") == "healthy"}

        try:
            await until("services to be healthy", lambda: healthy() >= services, within_seconds=120, poll_seconds=1)
        except AssertionError as error:
            ill = sorted(services - healthy())
            raise AssertionError(f"{', '.join(ill)}:\n{self.run('logs', '--tail=15', *ill, check=False)}") from error

    def eastwest(self, *arguments: str) -> str:
        """The command, as a user runs it in the stack."""
        return self.run("exec", "-T", "processor", "eastwest", *arguments)
