"""What tests of waiting need where they look at packets."""

import pytest

from compose.lab.capability import obstacles
from tests.components.presence import missing


@pytest.fixture(scope="session")
def capable() -> None:
    """Namespaces can be made here and now."""
    found = obstacles()
    if found:
        missing("; ".join(item.what for item in found), "; ".join(item.remedy for item in found))
