"""§5.6: rules of iptables-legacy are evaluated beside ours, and said to be there."""

import shutil

import pytest
import structlog

from enforcers.core.legacy_rules import describe
from enforcers.kernel import namespaces, tables
from enforcers.kernel.sets.set_backends import RestoreSets
from schemas.status import PodState
from tests.components.presence import missing
from tests.enforcers.pod_world import ALLOW, World, both, enforced, pod_of, program, sets

pytestmark = pytest.mark.netns


@pytest.fixture(autouse=True)
def _legacy(world: World) -> None:
    if shutil.which("iptables-legacy") is None:
        missing("iptables-legacy is not installed", "apt install iptables")


async def problems(world: World) -> tuple[str, ...]:
    return (await tables.observe(world.path("web"), RestoreSets(world.path("web")))).problems


async def test_a_pod_without_them_has_no_such_problem_and_no_legacy_table_afterwards(world):
    await enforced(world, ALLOW, sets())

    assert await problems(world) == ()
    assert world.command("web", "cat", "/proc/self/net/ip_tables_names") == ""


async def test_looking_at_tables_that_are_empty_is_no_problem(world):
    world.command("web", "iptables-legacy", "-t", "filter", "-L")

    assert await problems(world) == ()


async def test_a_legacy_drop_wins_and_is_told_with_its_family_and_table(world):
    for family in (4, 6):
        world.listen("web", 80, family)
    await enforced(world, ALLOW, sets(clients=both("a")))
    world.command("web", "ip6tables-legacy", "-A", "INPUT", "-p", "tcp", "--dport", "80", "-j", "DROP")

    assert world.reaches("a", "web", 80)
    assert not world.reaches("a", "web", 80, 6)
    assert await problems(world) == ("iptables-legacy's table filter (IPv6) is evaluated as well: 1 rule",)


async def test_a_legacy_accept_opens_nothing(world):
    world.listen("web", 80)
    for table in ("raw", "mangle", "filter"):
        chain = "INPUT" if table == "filter" else "PREROUTING"
        world.command("web", "iptables-legacy", "-t", table, "-I", chain, "-j", "ACCEPT")

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert not world.reaches("b", "web", 80)
    assert len(await problems(world)) == 3


async def test_the_pod_remembers_what_was_found_and_the_log_says_it_once(world):
    world.command("web", "iptables-legacy", "-P", "FORWARD", "DROP")
    pod = pod_of(world)
    with structlog.testing.capture_logs() as logs:
        await pod.realize(ALLOW, sets())
        pod.doubt()
        await pod.realize(ALLOW, sets())

    assert pod.problems == ("iptables-legacy's table filter (IPv4) is evaluated as well: policy DROP of FORWARD",)
    assert [entry["pod"] for entry in logs if entry["event"] == "others' rules"] == ["shop/web"]

    world.command("web", "iptables-legacy", "-P", "FORWARD", "ACCEPT")
    pod.doubt()
    await pod.realize(ALLOW, sets())
    assert pod.problems == ()


async def test_beside_no_rules_of_ours_they_are_no_problem(world):
    world.command("web", "iptables-legacy", "-A", "INPUT", "-j", "DROP")
    pod = await enforced(world, ALLOW, sets(clients=both("a")))
    assert len(pod.problems) == 1

    await pod.realize(program(), sets())
    assert pod.problems == ()


async def test_more_than_the_tool_may_print_is_told_and_ours_are_written_all_the_same(world, monkeypatch):
    flood = "".join(f"-A INPUT -s 10.9.0.{number} -j ACCEPT\n" for number in range(256))
    world.command("web", "iptables-legacy-restore", text=f"*filter\n{flood}COMMIT\n")
    monkeypatch.setattr(namespaces, "OUTPUT_BYTES", 4096)  # a whole block of what a tool writes at a time

    pod = await enforced(world, ALLOW, sets(clients=both("a")))

    assert pod.problems == ("iptables-legacy's table filter (IPv4) exists; iptables-legacy-save cannot read it",)
    assert pod.state is PodState.ENFORCED


def test_rules_and_policies_of_a_table_are_told_in_one_line():
    saved = "*nat\n:A - [0:0]\nCOMMIT\n*filter\n:INPUT DROP [1:2]\n:MINE - [0:0]\n-A INPUT -j MINE\n-A MINE\nCOMMIT\n"
    assert list(describe(saved, 4)) == [
        "iptables-legacy's table filter (IPv4) is evaluated as well: 2 rules, policy DROP of INPUT"
    ]
