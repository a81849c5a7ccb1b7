"""What is missing skips a test on a newcomer's machine and fails it in CI; waiting says what it waited for."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.presence import require_programs
from tests.components.waiting import until

ROOT = Path(__file__).parent.parent.parent


def test_what_is_missing_skips_with_a_remedy():
    with pytest.raises(pytest.skip.Exception, match="not installed: no-such-program, nor-this; apt install them"):
        require_programs(["sh", "no-such-program", "nor-this"], "apt install them")


@pytest.mark.parametrize(
    ("ci", "code", "said"),
    [("", 0, "1 test: no engine; start one"), ("true", 1, "in CI nothing may be skipped: no engine; start one")],
)
def test_a_run_says_what_it_skipped_and_in_ci_fails_for_it(tmp_path: Path, ci: str, code: int, said: str):
    (tmp_path / "test_one.py").write_text(
        "from tests.components.presence import require\ndef test_one():\n    require(False, 'no engine', 'start one')\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", "/dev/null", "-p", "tests.components.tiers", tmp_path]
    run = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "CI": ci}, capture_output=True, text=True, check=False, timeout=60
    )
    assert said in run.stdout
    assert run.returncode == code


async def test_a_wait_that_ends_in_vain_says_what_for_and_what_it_last_saw():
    with pytest.raises(AssertionError, match=r"waited 0\.05 s for: the moon; last: 0"):
        await until("the moon", lambda: 0, within_seconds=0.05)


async def test_a_wait_goes_on_over_the_errors_it_was_told_to_ignore():
    attempts = iter([OSError("not yet"), OSError("not yet"), "there"])

    async def look() -> str:
        found = next(attempts)
        if isinstance(found, OSError):
            raise found
        return found

    assert await until("the file", look, ignoring=(OSError,)) == "there"
