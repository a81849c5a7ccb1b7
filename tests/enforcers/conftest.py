"""What tests of the enforcer need: namespaces."""

from collections.abc import Iterator

import pytest

from tests.enforcers.pod_world import World, made_world


@pytest.fixture
def world(capable: None) -> Iterator[World]:
    """A Pod with two peers and their node; gone after the test."""
    with made_world() as world:
        yield world
