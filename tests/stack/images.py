"""The stack's images without a registry: a Debian base from its own archive, and on it what each image must hold.

Kafka's and NATS's images are stand-ins with the same entry (arguments, environment) as the published ones, around the
same jars and the same server binary that the broker tests use.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from compose.image.building import CHECKOUT, wheels
from compose.image.debian import PACKAGES, debian_base
from streams.nats.nats_child import nats_server_binary
from tests.components.kafka.kafka_jars import kafka_jars

BASE = "eastwest-test-base"
KAFKA = "eastwest-test-kafka"
NATS = "eastwest-test-nats"


def docker(environment: Mapping[str, str], *arguments: str | Path, stdin: Path | None = None) -> str:
    """Run ``docker``; raises AssertionError with its own words where it fails."""
    with (stdin or Path(os.devnull)).open("rb") as source:
        done = subprocess.run(
            ["docker", *map(str, arguments)],
            env={**os.environ, **environment, "DOCKER_BUILDKIT": "0"},
            stdin=source,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, f"docker {' '.join(map(str, arguments))}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}"
    return done.stdout


def import_base(environment: Mapping[str, str]) -> None:
    """Make `BASE` (a minute, then kept) and import it."""
    docker(environment, "import", "-", BASE, stdin=debian_base([*PACKAGES, "default-jre-headless"]))


def build_brokers(environment: Mapping[str, str], work: Path) -> None:
    """`KAFKA` and `NATS` on the base."""
    kafka = work / "kafka"
    shutil.copytree(Path(__file__).parent / "kafka", kafka)
    shutil.copytree(kafka_jars(), kafka / "jars")
    docker(environment, "build", "-t", KAFKA, "--build-arg", f"BASE={BASE}", kafka)

    nats = work / "nats"
    nats.mkdir()
    shutil.copy(nats_server_binary(), nats / "nats-server")
    (nats / "Dockerfile").write_text(
        f'FROM {BASE}\nCOPY nats-server /usr/bin/nats-server\nENTRYPOINT ["/usr/bin/nats-server"]\n'
    )
    docker(environment, "build", "-t", NATS, nats)


def build_eastwest(environment: Mapping[str, str], tag: str) -> None:
    """The project's own Dockerfile on the base, from wheels made here: a build has no way out of its namespace."""
    with wheels():
        docker(
            environment, "build", "-t", tag, "--build-arg", f"BASE={BASE}", "-f", "compose/stack/Dockerfile", CHECKOUT
        )
