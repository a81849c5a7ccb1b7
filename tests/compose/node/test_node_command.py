"""`eastwest node` as whoever stands on a node types it: a process, a unix socket, an enforcer without NATS."""

import asyncio
import socket
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from enforcers.answering.local_socket import EnforcerAtWork
from enforcers.cven import Cven
from enforcers.enforcer import describe
from enforcers.runtimes.given_runtime import GivenRuntime
from schemas.programs import Denial, denial_id
from schemas.status import CvenStatus, PodState
from streams.lifecycle import leaves
from tests.components.waiting import until
from tests.compose.commands import eastwest
from tests.compose.node.standing import Standing, standing
from tests.enforcers.pod_world import ALLOW, CLIENTS

pytestmark = pytest.mark.netns


def said(cven: Cven) -> CvenStatus:
    own, _ = describe(cven, GivenRuntime())
    assert isinstance(own, CvenStatus)
    return own


async def test_it_tells_of_pods_programs_sets_patches_and_counters_while_nats_is_away(world, tmp_path: Path):
    world.listen("web", 80)
    async with standing(world, tmp_path) as here:
        assert world.reaches("a", "web", 80)
        assert not world.reaches("b", "web", 80)

        (pod,) = await here.ask_json("pods")
        assert (pod["namespace"], pod["name"], pod["state"], pod["rules"]) == ("shop", "web", "enforced", 1)
        assert "enforced" in (await here.ask("pods")).splitlines()[1]
        text = await here.ask("program", "shop/web")
        assert "NetworkPolicy/shop/web" in text
        assert "10.77.1.3" in text
        assert (await here.ask_json("sets"))[0] == {"id": CLIENTS, "members": 1, "pods": 1}
        (patch,) = await here.ask_json("patches")
        assert "sets made" in patch["what"]
        assert patch["milliseconds"] > 0
        (counted,) = await here.ask_json("counters")
        by_rule = {(each["family"], each["rule"]): each for each in counted["counters"]}
        allowed = by_rule[4, ALLOW.ingress.rules[0].id]
        assert allowed["packets"] >= 1
        assert allowed["policies"] == ["NetworkPolicy/shop/web"]
        lines = (await here.ask("counters")).splitlines()
        packets = lines[0].split().index("PACKETS")
        assert "0" not in {line.split()[packets] for line in lines[1:-1]}
        assert lines[-1].endswith("rules that no packet has met: --zeroes")
        assert max(map(len, lines)) <= 120
        assert len((await here.ask("counters", "--zeroes")).splitlines()) > len(lines)
        denied = by_rule[4, denial_id(Denial.DEFAULT, ALLOW.ingress.isolating)]
        assert (denied["packets"] >= 1, denied["policies"]) == (True, ["NetworkPolicy/shop/web"])
        state = await here.ask_json("status")
        assert (state["node"], state["from_disk"], state["orders"]) == ("node-1", True, [])
        here.service.cven.node.problems["sets"] = "slower than they should be"
        told = await here.ask("status")
        assert "snapshot on disk" in told
        assert "enforced 1" in told
        assert "slower than they should be" in told


async def test_verify_tells_exactly_what_differs_and_writes_nothing(world, tmp_path: Path):
    async with standing(world, tmp_path) as here:
        await until("the rules from disk", lambda: here.ruled)
        assert "1 of 1 Pods hold exactly" in await here.ask("verify")

        world.command("web", "ipset", "add", f"ew-{CLIENTS}-4", "10.77.1.4")
        before = here.service.cven.writes
        (found,) = await here.ask_json("verify", "shop/web", code=1)
        assert found["differences"]
        assert "shop/web: " in await here.ask("verify", code=1)
        assert here.service.cven.writes == before


async def test_a_released_pod_has_no_rules_stays_so_over_a_restart_is_reported_and_comes_back_when_resumed(
    world, tmp_path: Path
):
    world.listen("web", 80)
    async with standing(world, tmp_path) as here:
        assert "1 Pod here now" in await here.ask("release", "shop/web", "--reason", "INC-7")
        await until("the rules to go", lambda: not here.ruled)
        await until("the sets to go", lambda: "ew-" not in world.command("web", "ipset", "list", "-n"))
        assert world.reaches("b", "web", 80)
        await until("what is said to follow", lambda: said(here.service.cven).pods == {PodState.RELEASED: 1})
        own = said(here.service.cven)
        assert [(each.name, "INC-7" in each.reason) for each in own.exceptions] == [("web", True)]
        assert [(each.release, each.reason) for each in own.orders] == [("shop/web", "INC-7")]

    async with standing(world, tmp_path, expected_rules=False) as again:
        await until("the snapshot to be enforced", lambda: again.service.cven.node.known)
        assert "released" in await again.ask("pods")
        assert not again.ruled
        assert world.reaches("b", "web", 80)

        assert "ended: released: shop/web" in await again.ask("resume")
        await until("the rules to be back", lambda: again.ruled)
        assert not world.reaches("b", "web", 80)
        assert (await again.ask_json("status"))["orders"] == []

    async with standing(world, tmp_path) as third:
        assert (await third.ask_json("status"))["orders"] == []


@pytest.mark.parametrize("what", [["shop"], ["--all"]])
async def test_a_namespace_or_the_whole_node_is_released_likewise(world, tmp_path: Path, what):
    async with standing(world, tmp_path) as here:
        await here.ask("release", *what)
        await until("the rules to go", lambda: not here.ruled)
        await here.ask("resume", what[0] if what != ["--all"] else "*")
        await until("the rules to be back", lambda: here.ruled)


async def test_a_pause_keeps_rules_writes_nothing_and_outlives_a_restart_but_a_release_still_opens(
    world, tmp_path: Path
):
    async with standing(world, tmp_path) as here:
        await here.ask("pause", "--reason", "looking")
        before = here.service.cven.writes
        here.service.cven.node.mark_dirty(["uid-web"])
        world.command("web", "ipset", "add", f"ew-{CLIENTS}-4", "10.77.1.4")
        here.service.cven.node.pods["uid-web"].doubt()
        await here.ask("verify", code=1)
        assert here.service.cven.writes == before

    async with standing(world, tmp_path, expected_rules=False) as again:
        await until("the snapshot to be known", lambda: again.service.cven.node.known)
        assert "looking" in await again.ask("status")
        assert "10.77.1.4" in world.command("web", "ipset", "list", f"ew-{CLIENTS}-4")

        await again.ask("release", "shop/web")
        await until("the rules to go", lambda: not again.ruled)
        await again.ask("resume")
        await until("the rules to be back", lambda: again.ruled)
        assert "10.77.1.4" not in world.command("web", "ipset", "list", f"ew-{CLIENTS}-4")


async def test_who_ended_an_order_and_why_is_logged(world, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async with standing(world, tmp_path) as here:
        monkeypatch.setenv("SUDO_USER", "ann")
        await here.ask("pause", "--reason", "looking")
        monkeypatch.setenv("SUDO_USER", "bob")
        with capture_logs() as logged:
            await here.ask("resume", "--reason", "seen & done")

        (ended,) = [each for each in logged if each["event"] == "order undone"]
        assert (ended["by"], ended["reason"]) == ("bob", "seen & done")
        assert "paused, by ann" in ended["order"]


async def test_rules_can_be_released_also_by_an_enforcer_that_knows_nothing_yet(world, tmp_path: Path):
    async with standing(world, tmp_path) as here:
        assert here.ruled
    (tmp_path / "snapshot").unlink()
    made = Standing(world, tmp_path)
    (tmp_path / "snapshot").unlink()
    made.service.cven._kept = None
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(made.service.run(stop), name="enforcer")
        await until("the Pod to be known", lambda: "uid-web" in made.service.cven.node.pods)
        assert "nothing yet" in await made.ask("status")
        assert "not known yet" in await made.ask("verify", code=1)
        await made.ask("release", "--all")
        await until("the rules to go", lambda: not made.ruled)
        stop.set()


async def test_mistakes_are_told_with_the_way_out(world, tmp_path: Path):
    status, said = await eastwest("node", "--socket", tmp_path / "nobody.sock", "pods")
    assert (status, "no enforcer answers" in said, "kubectl" in said) == (1, True, True)
    async with standing(world, tmp_path) as here:
        assert here.socket.stat().st_mode & 0o777 == 0o600
        assert "no Pod shop/nobody on node-1" in await here.ask("program", "shop/nobody", code=1)
        assert "no Pod shop/nobody" in await here.ask("release", "shop/nobody", code=1)
        assert "name the Pod as shop/web" in await here.ask("release", "web", code=1)
        assert "is the name right?" in await here.ask("release", "shpo")
        assert "ended: released: shpo" in await here.ask("resume")
        assert "no such Pod here" in await here.ask("verify", "-n", "shpo")
        assert "name a Pod" in await here.ask("release", code=2)
        assert "is not released" in await here.ask("resume", "shop/web", code=1)
        assert "nothing was ordered" in await here.ask("resume")

        second = Standing(world, tmp_path)
        with pytest.raises(BaseExceptionGroup) as caught:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(second.service.run(asyncio.Event()), name="a second one")
        assert [type(each) for each in leaves(caught.value)] == [EnforcerAtWork]
        assert here.socket.exists()
    assert not here.socket.exists()


async def test_what_a_killed_enforcer_left_is_replaced(world, tmp_path: Path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "enforcer.sock"))
    async with standing(world, tmp_path) as here:
        assert (await here.ask_json("status"))["node"] == "node-1"


async def test_where_no_socket_can_be_made_enforcement_goes_on(world, tmp_path: Path):
    (tmp_path / "enforcer.sock").write_text("somebody's")
    async with standing(world, tmp_path) as here:
        assert here.ruled
    assert (tmp_path / "enforcer.sock").read_text() == "somebody's"
