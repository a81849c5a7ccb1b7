"""What a crash leaves, and who may clean it up."""

import asyncio
import os
import signal
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from compose.demo.story import SHOP
from compose.lab import state
from compose.lab.network import Lab
from compose.lab.plan import LabPod, Layout, Plan
from compose.lab.wires.removing import existing, sweep
from tests.components.waiting import until
from tests.compose.commands import EASTWEST

HOLD_A_LAB = """
import asyncio, sys
from pathlib import Path
from compose.lab.network import Lab
from compose.lab.plan import LabPod, Layout

async def hold():
    pods = (LabPod(namespace="x", name="a", addresses=("10.244.1.10",)),)
    async with Lab(Layout(pods=pods), root=Path(sys.argv[1])) as lab:
        print(lab.name, flush=True)
        await asyncio.Event().wait()

asyncio.run(hold())
"""


@asynccontextmanager
async def another_process(root: Path):
    """A process that holds a lab, and the lab's name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOLD_A_LAB, str(root), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        assert process.stdout is not None
        name = (await process.stdout.readline()).decode().strip()
        yield process, name
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        sweep(root)


@pytest.mark.netns
@pytest.mark.usefixtures("capable")
async def test_the_next_start_removes_what_a_killed_owner_left(lab_root: Path) -> None:
    async with another_process(lab_root) as (process, name):
        assert len(existing(name)) == 5
        process.kill()
        await process.wait()
        assert len(existing(name)) == 5

        async with Lab(Layout(), root=lab_root) as lab:
            assert existing(name) == []
            assert set(state.labs(lab_root)) == {lab.name}


@pytest.mark.netns
@pytest.mark.usefixtures("capable")
async def test_a_running_lab_of_another_process_is_left_alone(lab_root: Path) -> None:
    async with another_process(lab_root) as (_, name):
        async with Lab(Layout(), root=lab_root):
            assert len(existing(name)) == 5
        assert sweep(lab_root) == []
        with pytest.raises(ValueError, match="already running"):
            async with Lab(Layout(), name=name, root=lab_root):
                pass
        assert len(existing(name)) == 5


@pytest.mark.netns
@pytest.mark.usefixtures("capable")
@pytest.mark.parametrize("number", [signal.SIGINT])
async def test_ctrl_c_leaves_nothing(lab_root: Path, number: signal.Signals) -> None:
    async with another_process(lab_root) as (process, name):
        process.send_signal(number)
        await process.wait()

        assert existing(name) == []
        assert state.labs(lab_root) == {}


@pytest.mark.netns
@pytest.mark.usefixtures("capable")
async def test_an_error_while_building_leaves_nothing(lab_root: Path) -> None:
    lab = Lab(Layout(pods=(LabPod(namespace="x", name="a", addresses=("not an address",)),)), root=lab_root)
    with pytest.raises(ValueError, match="not an address"):
        async with lab:
            pass

    assert existing(lab.name) == []
    assert state.labs(lab_root) == {}


@pytest.mark.nats
@pytest.mark.netns
@pytest.mark.usefixtures("capable")
async def test_a_killed_lab_up_leaves_nothing_that_the_next_start_does_not_remove(
    lab_root: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    process = await asyncio.create_subprocess_exec(
        EASTWEST, "lab", "up", "-f", str(SHOP), "--name", "killed",
        env={**os.environ, state.RUN_DIRECTORY: str(lab_root), "TMPDIR": str(temporary)},
        stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        ports = lab_root / "lab-killed" / "nats"
        await until("its nats-server to listen", lambda: list(ports.glob("nats-server_*.ports")))
        server = int(next(ports.glob("nats-server_*.ports")).stem.rpartition("_")[2])
    finally:
        process.kill()
        await process.wait()

    await until("its nats-server to end with it", lambda: state.start_time(server) is None)
    assert sweep(lab_root) == ["killed"]
    assert existing("killed") == []
    assert not any(temporary.iterdir())
    assert state.labs(lab_root) == {}


def test_a_pid_that_was_given_again_is_not_the_owner(tmp_path: Path) -> None:
    this = state.this_process()
    assert state.alive(this)
    assert not state.alive(state.Owner(pid=this.pid, started=this.started - 1))


async def test_an_ended_process_is_not_alive_even_before_it_is_waited_for() -> None:
    process = await asyncio.create_subprocess_exec("sleep", "60")
    owner = state.Owner(pid=process.pid, started=state.start_time(process.pid) or 0)
    assert state.alive(owner)
    process.kill()
    await until("the process to end", lambda: not state.alive(owner))
    await process.wait()


def test_state_that_cannot_be_read_belongs_to_nobody(tmp_path: Path) -> None:
    state.write(state.State(owner=state.this_process(), plan=Plan(lab="a1")), tmp_path)
    (tmp_path / "lab-b2").mkdir()
    (tmp_path / "lab-b2" / state.FILE).write_text("half a")

    assert state.labs(tmp_path)["b2"] is None
    assert sweep(tmp_path) == ["b2"]
    assert set(state.labs(tmp_path)) == {"a1"}


def test_a_directory_of_someone_else_is_not_used(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a directory away")
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    os.chown(foreign, 12345, 12345)
    with pytest.raises(PermissionError, match="belongs to someone else"):
        state.write(state.State(owner=state.this_process(), plan=Plan(lab="a1")), foreign)
