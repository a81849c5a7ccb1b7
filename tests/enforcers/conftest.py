"""What tests of the enforcer need: namespaces."""

from collections.abc import Iterator

import pytest

from tests.enforcers.pod_world import World, made_world


@pytest.fixture(params=["restore", "netlink"])
def either_way(world: World, request: pytest.FixtureRequest) -> None:
    """The test runs with chains by the tool, and by netlink."""
    world.chains = request.param


@pytest.fixture
def world(capable: None) -> Iterator[World]:
    """A Pod with two peers and their node; gone after the test."""
    with made_world() as world:
        yield world
