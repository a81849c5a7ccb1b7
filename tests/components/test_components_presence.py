"""What is missing skips a test on a newcomer's machine and fails it in CI; waiting says what it waited for."""

import pytest

from tests.components.presence import require, require_programs
from tests.components.waiting import until


def test_what_is_missing_skips_with_a_remedy(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="not installed: no-such-program, nor-this; apt install them"):
        require_programs(["sh", "no-such-program", "nor-this"], "apt install them")


def test_what_is_missing_in_ci_fails(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="in CI nothing may be missing: no engine; start one"):
        require(False, "no engine", "start one")


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
