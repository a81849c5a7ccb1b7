"""What tests of the lab need: the right to make namespaces, and a state directory of their own."""

from pathlib import Path

import pytest

from compose.lab.capability import obstacles
from tests.components.presence import missing


@pytest.fixture(scope="session")
def capable() -> None:
    """Namespaces can be made here and now."""
    found = obstacles()
    if found:
        missing("; ".join(item.what for item in found), "; ".join(item.remedy for item in found))


@pytest.fixture
def lab_root(tmp_path: Path) -> Path:
    """Where a test's labs keep their state, so that they do not meet those of others."""
    return tmp_path / "eastwest"
