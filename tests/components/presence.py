"""What a test needs and a machine may not have: skipped with a reason and a remedy. (In CI a failure: `tiers`.)"""

import shutil
from collections.abc import Iterable
from typing import NoReturn

import pytest


def missing(what: str, remedy: str) -> NoReturn:
    """End the test: *what* it lacks and the *remedy*."""
    pytest.skip(f"{what}; {remedy}")


def require(present: object, what: str, remedy: str) -> None:
    """Go on where *present* is true; see `missing`."""
    if not present:
        missing(what, remedy)


def require_programs(names: Iterable[str], remedy: str) -> None:
    """Every one of *names* must be on the PATH; those that are not are all named at once."""
    absent = [name for name in names if shutil.which(name) is None]
    require(not absent, f"not installed: {', '.join(absent)}", remedy)
