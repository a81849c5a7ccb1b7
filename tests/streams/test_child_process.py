"""A child is ended, killed and awaited without threads, and says why it ended when it should not have."""

import os
import signal
from pathlib import Path

import pytest

from streams.child_process import ChildEnded, ChildProcess
from tests.components.waiting import until

STUBBORN = "trap '' TERM; echo ready; while :; do sleep 0.05; done"


def shell(script: str, folder: Path) -> ChildProcess:
    return ChildProcess.spawn("script", ["sh", "-c", script], log=folder / "script.log")


async def test_a_child_that_obeys_ends_by_the_signal_it_was_sent(tmp_path: Path):
    child = shell("exec sleep 60", tmp_path)
    assert await child.end() == -signal.SIGTERM
    assert not child.running


async def test_a_child_that_ignores_its_end_is_killed_after_the_limit(tmp_path: Path):
    child = shell(STUBBORN, tmp_path)
    await until("the child to ignore SIGTERM", lambda: "ready" in child.log_tail())
    assert await child.end(within_seconds=0.1) == -signal.SIGKILL


async def test_ending_twice_is_ending_once(tmp_path: Path):
    child = shell("exit 3", tmp_path)
    assert await child.exited() == 3
    assert await child.end() == 3
    assert await child.kill() == 3


async def test_a_child_that_ended_by_itself_is_told_with_its_last_words(tmp_path: Path):
    child = shell("echo no such disk >&2; exit 4", tmp_path)
    await child.exited()
    with pytest.raises(ChildEnded, match=r"script ended with 4(.|\n)*no such disk") as ended:
        child.ensure_running()
    assert ended.value.returncode == 4


async def test_ctrl_c_in_the_terminal_reaches_the_parent_only(tmp_path: Path):
    child = shell("exec sleep 60", tmp_path)
    assert os.getpgid(child.pid) == child.pid, "process group of its own"
    await child.kill()
