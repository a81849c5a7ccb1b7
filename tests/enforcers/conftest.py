"""What tests of the enforcer need: the right to make namespaces, and namespaces."""

from collections.abc import Iterator

import pytest

from compose.lab.capability import obstacles
from tests.components.presence import missing
from tests.enforcers.pod_world import World, made_world


@pytest.fixture(scope="session")
def capable() -> None:
    """Namespaces can be made here and now."""
    found = obstacles()
    if found:
        missing("; ".join(item.what for item in found), "; ".join(item.remedy for item in found))


@pytest.fixture
def world(capable: None) -> Iterator[World]:
    """A Pod with two peers and their node; gone after the test."""
    with made_world() as world:
        yield world
