"""A world of namespaces for each test."""

from typing import Any

import pytest

from tests.enforcers.pod_world import made_world


@pytest.fixture
def world(capable: None) -> Any:
    with made_world() as world:
        yield world
