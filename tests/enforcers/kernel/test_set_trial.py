"""The trial at the start: netlink where it works, the tool where it does not, and the reason where people look."""

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from enforcers.enforcer import SLOW_SETS, Enforcer, describe
from enforcers.kernel.sets.set_trial import choose_backend, trial
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.settings import EnforcerSettings
from schemas.status import CvenStatus
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health
from tests.enforcers.cven_world import until

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]


def use_other_tool(monkeypatch: pytest.MonkeyPatch, folder: Path, change: str) -> None:
    """An ``ipset`` whose output goes through *change*."""
    tool = folder / "ipset"
    tool.write_text(f'#!/bin/sh\nPATH="{os.environ["PATH"]}"\nipset "$@" | {change}\n')
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


async def test_netlink_passes_here_and_the_trial_leaves_nothing():
    def left() -> tuple[int, bool]:
        files = len(list(Path("/proc/self/fd").iterdir()))
        return files, "scratch-namespace" in {thread.name for thread in threading.enumerate()}

    before = left()

    assert await trial() == ""

    assert left() == before


@pytest.mark.parametrize(
    ("change", "wrong"),
    [("grep -v 8443", "ew-t"), ("sed 's/ nomatch//'", "ew-b"), ("sed 's/inet6/inet/'", "-6"), ("head -3000", "ew-a")],
)
async def test_a_word_of_the_tool_against_netlinks_is_enough_to_use_the_tool(monkeypatch, tmp_path, change, wrong):
    use_other_tool(monkeypatch, tmp_path, change)

    backend, trouble = await choose_backend("auto")

    assert backend == "restore"
    assert "ipset save tells of something else" in trouble
    assert wrong in trouble


async def test_without_the_tool_netlinks_own_word_is_taken(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert await choose_backend("auto") == ("netlink", "")


@pytest.mark.parametrize("setting", ["netlink", "restore"])
async def test_what_is_asked_for_by_name_is_not_tried(monkeypatch, tmp_path, setting):
    use_other_tool(monkeypatch, tmp_path, "false")

    assert await choose_backend(setting) == (setting, "")


async def test_an_enforcer_that_falls_back_says_so_once_in_its_log_and_in_its_status(monkeypatch, tmp_path):
    use_other_tool(monkeypatch, tmp_path, "false")

    @asynccontextmanager
    async def never_connected() -> AsyncIterator[NatsBus]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")
        yield

    runtime, stop = GivenRuntime(), asyncio.Event()
    service = Enforcer(
        EnforcerSettings(node="node-1"), never_connected(), runtime, health=Health(), registry=CollectorRegistry()
    )
    with capture_logs() as logged:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(service.run(stop), name="enforcer")
            await until("the problem", lambda: service.cven.node.problems)
            stop.set()

    status, _ = describe(service.cven, runtime)
    assert isinstance(status, CvenStatus)
    (problem,) = status.problems
    assert problem.startswith(SLOW_SETS)
    assert [line["event"] for line in logged].count(SLOW_SETS) == 1
    assert service.cven.node.set_backend == "restore"
