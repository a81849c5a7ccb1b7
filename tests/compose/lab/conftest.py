"""What tests of the lab need: a state directory of their own."""

from pathlib import Path

import pytest


@pytest.fixture
def lab_root(tmp_path: Path) -> Path:
    """Where a test's labs keep their state, so that they do not meet those of others."""
    return tmp_path / "eastwest"
