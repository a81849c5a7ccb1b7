"""Third-party policy suites as data. They are not part of this project, and its own cases stand without them.

So tests of them carry the marker ``conformance`` and are left out, not skipped, where the data is not: `tiers`.
"""

import os
from pathlib import Path

SUITES = ("app", "cyclonus", "k8s_netpol", "knp", "npa", "npguard")

# No name of ours before it: what begins so is a setting of the product, and an unknown one is refused.
CONFORMANCE = Path(os.environ.get("CONFORMANCE", Path(__file__).parents[3] / "shared" / "conformance"))
"""The folder of the suites: beside the checkout, or where ``CONFORMANCE`` says; it may not exist."""


def conformance_file(name: str) -> Path:
    """The file *name* of the suites."""
    return CONFORMANCE / name
