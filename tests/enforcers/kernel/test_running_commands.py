"""Commands in a namespace: what they are given, what is told of their failures, and that none is left behind."""

import asyncio
from pathlib import Path

import pytest

from enforcers.kernel.namespaces import HERE, CommandFailed, NoNamespace, inside, run
from tests.enforcers.cven_world import until

pytestmark = pytest.mark.netns


async def test_a_command_runs_in_the_namespace_and_the_caller_stays_where_it_is(world):
    here = HERE.readlink()

    there = (await run(world.path("web"), ["readlink", str(HERE)])).strip()

    assert there == world.command("web", "readlink", str(HERE)).strip() != str(here)
    assert HERE.readlink() == here


async def test_no_thread_stays_in_a_namespace(world):
    """It would keep a deleted Pod's network alive."""
    await asyncio.gather(*(run(world.path(name), ["true"]) for name in ("web", "a", "b") for _ in range(20)))
    inside(world.path("web"), lambda: None)
    with pytest.raises(ZeroDivisionError):
        inside(world.path("web"), lambda: 1 / 0)

    assert namespaces_of_threads() == {HERE.readlink()}


async def test_more_input_and_output_than_any_pipe_holds_comes_through_whole(world):
    text = "0123456789abcdef" * (1 << 16)

    assert await run(world.path("web"), ["cat"], text) == text


async def test_of_a_failure_in_many_words_the_last_are_told(world):
    with pytest.raises(CommandFailed) as failed:
        await run(world.path("web"), ["sh", "-c", "yes warning | head -c 3000000 >&2; echo at last >&2; exit 1"])

    assert failed.value.message.endswith("at last")
    assert len(str(failed.value)) < 1000


async def test_input_that_nobody_reads_is_no_error(world):
    assert await run(world.path("web"), ["true"], "x" * (1 << 20)) == ""


@pytest.mark.parametrize(
    ("command", "text", "line"),
    [
        (
            ["iptables-nft-restore", "--noflush"],
            "*mangle\n-A PREROUTING --no-such\nCOMMIT\n",
            "-A PREROUTING --no-such",
        ),
        (["ipset", "restore"], "create one hash:ip\nadd two 1.2.3.4\n", "add two 1.2.3.4"),
        (["ip", "-batch", "-"], "link add br9 type bridge\nlink set nine up\n", "link set nine up"),
    ],
)
async def test_a_failure_names_the_command_its_status_and_the_line(world, command, text, line):
    with pytest.raises(CommandFailed) as failed:
        await run(world.path("web"), command, text)

    assert failed.value.line == line
    assert failed.value.status
    assert f"{' '.join(command)} in {world.path('web')}" in str(failed.value)


@pytest.mark.parametrize("left", [False, True], ids=["file gone", "plain file left"])
async def test_a_vanished_namespace_is_told_as_such(world, tmp_path, left):
    path = tmp_path / "gone"
    if left:
        path.touch()

    with pytest.raises(NoNamespace):
        await run(path, ["true"])


async def test_a_command_that_is_not_installed_is_not_taken_for_a_vanished_namespace(world):
    with pytest.raises(FileNotFoundError, match="no-such-tool"):
        await run(world.path("web"), ["no-such-tool"])


async def test_who_is_cancelled_leaves_no_process(world):
    task = asyncio.create_task(run(world.path("web"), ["sleep", "600"]))
    await until("the process to run", lambda: sleeping() != [])

    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)

    assert sleeping() == []


async def test_who_is_cancelled_at_once_leaves_nothing_either(world):
    tasks = [asyncio.create_task(run(world.path("web"), ["sleep", "600"])) for _ in range(50)]
    await asyncio.sleep(0)

    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=10)

    assert all(task.cancelled() for task in tasks)
    assert sleeping() == []


def namespaces_of_threads() -> set[Path]:
    return {path.readlink() for path in Path("/proc/self/task").glob("*/ns/net")}


def sleeping() -> list[str]:
    """Our own children that sleep, reaped or not."""
    found = []
    for path in Path("/proc/self/task").glob("*/children"):
        for pid in path.read_text().split():
            try:
                name = Path(f"/proc/{pid}/comm").read_text().strip()
            except OSError:
                continue
            found += [pid] if name == "sleep" else []
    return found
