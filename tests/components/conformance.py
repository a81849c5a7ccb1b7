"""Third-party policy suites as data. They lie beside the checkout, or where ``EASTWEST_CONFORMANCE`` says."""

import os
from pathlib import Path

from tests.components.presence import require

SUITES = ("app", "cyclonus", "k8s_netpol", "knp", "npa", "npguard")


def conformance_file(name: str) -> Path:
    """The file *name* of the suites; ends the test where there are none."""
    beside = Path(__file__).parents[2].parent / "shared" / "conformance"
    path = Path(os.environ.get("EASTWEST_CONFORMANCE", beside)) / name
    require(path.exists(), f"no {name} in {path.parent}", "set EASTWEST_CONFORMANCE to the folder of the suites")
    return path
