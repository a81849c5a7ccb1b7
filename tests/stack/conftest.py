"""One stack per run: images, engine and project are dear to make."""

import asyncio
import os
import shutil
from collections.abc import Iterator

import pytest

from tests.components.docker_engine import DockerEngine
from tests.components.presence import require, require_programs
from tests.stack.compose_project import TAG, ComposeProject
from tests.stack.images import build_brokers, build_eastwest, import_base


@pytest.fixture(scope="session")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEngine]:
    """dockerd in a closed namespace, with every image of the stack."""
    require_programs(["docker", "dockerd", "docker-compose", "debootstrap"], "make test-stack sets them up")
    folder = tmp_path_factory.mktemp("docker")
    require(os.geteuid() == 0, "dockerd needs root", "run as root")
    made = DockerEngine(folder)
    asyncio.run(made.__aenter__())
    try:
        work = tmp_path_factory.mktemp("images")
        import_base(made.environment)
        build_brokers(made.environment, work)
        build_eastwest(made.environment, f"eastwest:{TAG}")
        shutil.rmtree(work)
        yield made
    finally:
        asyncio.run(made.__aexit__(None, None, None))


@pytest.fixture(scope="session")
def stack(engine: DockerEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeProject]:
    """The compose file, up with its profile ``demo``: a capture instead of a cluster."""
    project = ComposeProject(engine.environment, tmp_path_factory.mktemp("stack"), {"EASTWEST_CLUSTER": "shop"})
    services = ["kafka", "nats", "capture", "processor", "enforcer"]
    project.run("--profile", "demo", "up", "-d", *services)
    try:
        yield project
    finally:
        project.run("--profile", "demo", "down", "-v", "--timeout", "10")
