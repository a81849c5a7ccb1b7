"""The stack's images without a registry: a Debian base from its own archive, and on it what each image must hold.

Kafka's and NATS's images are stand-ins with the same entry (arguments, environment) as the published ones, around the
same jars and the same server binary that the broker tests use.
"""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from streams.nats_child import nats_server_binary
from tests.components.caches import cached
from tests.components.kafka.kafka_jars import kafka_jars

CHECKOUT = Path(__file__).parents[2]
BASE = "eastwest-test-base"
KAFKA = "eastwest-test-kafka"
NATS = "eastwest-test-nats"
BASE_PACKAGES = "ca-certificates,default-jre-headless,ipset,iptables,python3,python3-pip,python3-venv,wget"
BASE_RELEASE = "bookworm"
BASE_PYTHON = "3.11"


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


def import_base(environment: Mapping[str, str], work: Path) -> None:
    """Make `BASE` by debootstrap (a minute, then cached) and import it."""
    archive = cached("stack-base", Path(__file__)) / "base.tar"
    if not archive.exists():
        archive.parent.mkdir(parents=True, exist_ok=True)
        tree = work / "base"
        command = ["debootstrap", "--variant=minbase", f"--include={BASE_PACKAGES}", BASE_RELEASE, str(tree)]
        subprocess.run(command, check=True, capture_output=True)
        shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
        unfinished = archive.with_suffix(".part")
        subprocess.run(["tar", "-C", str(tree), "-cf", str(unfinished), "."], check=True)
        shutil.rmtree(tree)
        unfinished.rename(archive)
    docker(environment, "import", "-", BASE, stdin=archive)


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


def build_eastwest(environment: Mapping[str, str], tag: str, pip: str) -> None:
    """The project's own Dockerfile on the base, from wheels made here: a build has no way out of its namespace."""
    wheels = CHECKOUT / "dist"
    shutil.rmtree(wheels, ignore_errors=True)
    try:
        subprocess.run([pip, "wheel", "-q", "--no-deps", "-w", str(wheels), str(CHECKOUT)], check=True)
        (wheel,) = wheels.glob("eastwest-*.whl")
        choice = ["--only-binary=:all:", "--python-version", BASE_PYTHON]
        subprocess.run([pip, "download", "-q", *choice, "-d", str(wheels), str(wheel)], check=True)
        docker(
            environment, "build", "-t", tag, "--build-arg", f"BASE={BASE}", "-f", "compose/stack/Dockerfile", CHECKOUT
        )
    finally:
        shutil.rmtree(wheels, ignore_errors=True)
