"""A node that is drained, rebooted or scaled up: hundreds of Pods appear at once beside one that lives on."""

import asyncio
import time

import msgspec
import pytest

from enforcers.cven import Cven
from enforcers.runtimes.given_runtime import GivenRuntime
from schemas import addresses
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.status import PodState
from tests.components.waiting import until
from tests.enforcers.cven_world import Told, running_on
from tests.enforcers.node.crowd import Crowd, made_crowd, members
from tests.enforcers.pod_world import CLIENTS, PORT_80, isolated, rule

pytestmark = pytest.mark.netns

PODS = 500
NEIGHBOUR = "uid-0"
WITHIN_SECONDS = 60.0


@pytest.mark.timeout(180)
async def test_hundreds_of_pods_that_appear_at_once_all_get_rules_and_keep_no_neighbour_waiting(capable, capsys):
    with made_crowd(1 + PODS) as crowd:
        runtime = GivenRuntime([crowd.sandbox(0)])
        told = Told(everything(crowd))
        async with running_on(crowd.node, told, runtime) as cven, asyncio.TaskGroup() as tasks:
            async with asyncio.timeout(WITHIN_SECONDS):
                await cven.realized(1)

            began = time.perf_counter()
            runtime.tell(map(crowd.sandbox, range(1 + PODS)))
            await until("the first of them to be enforced", lambda: enforced(cven) > 1, poll_seconds=0.001)
            checking = tasks.create_task(honest_for_ever(cven))
            waits: list[float] = []
            while enforced(cven) <= PODS:
                waits.append(await change_neighbour(cven, told, number=len(waits)))
                assert time.perf_counter() - began < WITHIN_SECONDS
            seconds = time.perf_counter() - began

            waits.sort()
            median = waits[len(waits) // 2]
            with capsys.disabled():
                print(f"\n{PODS} Pods: {seconds:.2f} s; a neighbour's {len(waits)} changes: {median:.4f} s each")
            assert len(waits) >= 10, "the neighbour waited for the crowd"
            async with asyncio.timeout(WITHIN_SECONDS):
                await cven.realized(1 + len(waits))
            await until("no exception to be left", lambda: not cven.exceptions)
            checking.cancel()
        for number in (1, PODS // 2, PODS):
            assert "EW-IN-NEW" in crowd.command(crowd.path(number), "iptables-nft-save", "-t", "mangle")


def everything(crowd: Crowd) -> NodeUpdate:
    """The neighbour has a set of its own, whose members change."""
    own = isolated(rule(PORT_80, peers=(CLIENTS,)))
    neighbour = msgspec.structs.replace(crowd.program(0), ingress=own)
    return NodeUpdate(
        programs=(neighbour, *(crowd.program(number) for number in range(1, 1 + PODS))),
        sets=(
            SetChange(id=CLIENTS, added=frozenset()),
            *(SetChange(id=identity, added=found) for identity, found in members().items()),
        ),
        mark=Mark(revision=1),
        complete=True,
    )


async def change_neighbour(cven: Cven, told: Told, number: int) -> float:
    """Seconds until its set has a new member."""
    pod = cven.node.pods[NEIGHBOUR]
    writes, began = pod.writes, time.perf_counter()
    member = addresses.pack(f"10.99.{number // 250}.{number % 250 + 1}")
    told.tell(NodeUpdate(sets=(SetChange(id=CLIENTS, added=frozenset({member})),), mark=Mark(revision=2 + number)))
    await until("the neighbour's new member", lambda: pod.writes > writes, poll_seconds=0.001)
    return time.perf_counter() - began


async def honest_for_ever(cven: Cven) -> None:
    """Whenever a revision is realized, who does not hold its rules is named."""
    while True:
        await cven.realized(cven.revision + 1)
        unheld = {uid for uid in cven.node.pods if cven.state_of(uid) is not PodState.ENFORCED}
        assert unheld <= {each.uid for each in cven.exceptions}


def enforced(cven: Cven) -> int:
    return sum(cven.state_of(uid) is PodState.ENFORCED for uid in cven.node.pods)
