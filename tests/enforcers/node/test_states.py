"""What is said of a Pod is what is true of it: never *enforced* for less."""

from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from enforcers.cven import Cven
from enforcers.enforcer import describe
from enforcers.measuring import Measures
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from schemas.programs import Mode
from schemas.status import CvenStatus, Order, PodDetail, PodState, RuntimeStatus
from tests.enforcers.cven_world import Told, realized, running, told, until
from tests.enforcers.pod_world import ALLOW, DENY, program

pytestmark = pytest.mark.netns

OPEN = program()


def said(cven: Cven) -> tuple[CvenStatus, PodDetail]:
    own, pods = describe(cven, GivenRuntime())
    assert isinstance(own, CvenStatus)
    assert isinstance(pods, RuntimeStatus)
    return own, pods.pods[0]


@pytest.mark.parametrize(
    ("wanted", "state", "bypassable"),
    [
        (ALLOW, PodState.ENFORCED, False),
        (msgspec.structs.replace(ALLOW, bypassable=True), PodState.ENFORCED, True),
        (msgspec.structs.replace(ALLOW, bypassable=True, advisory=True), PodState.ADVISORY, False),
        (msgspec.structs.replace(OPEN, bypassable=True, advisory=True), PodState.OPEN, False),
        (msgspec.structs.replace(OPEN, mode=Mode.IDLE), PodState.IDLE, False),
    ],
)
async def test_a_pod_with_rules_is_enforced_unless_it_may_edit_them_and_bypassable_where_it_sends_raw_packets(
    world, wanted, state, bypassable
):
    async with running(world, Told(told(1, wanted, clients=set()))) as cven:
        await realized(cven, 1)

        own, pod = said(cven)
        assert (pod.state, pod.bypassable) == (state, bypassable)
        assert (own.pods, own.bypassable, own.exceptions) == ({state: 1}, int(bypassable), ())


@pytest.mark.parametrize(
    ("setting", "wanted", "state"),
    [
        ("observe", ALLOW, PodState.OBSERVED),
        ("observe", OPEN, PodState.OPEN),
        ("observe", msgspec.structs.replace(ALLOW, mode=Mode.IDLE), PodState.IDLE),
        ("pause", ALLOW, PodState.PAUSED),
        ("pause", msgspec.structs.replace(OPEN, mode=Mode.IDLE), PodState.PAUSED),
    ],
)
async def test_a_node_that_writes_nothing_says_whether_it_observes_or_was_told_to_pause(world, setting, wanted, state):
    async with running(world, Told(told(1, wanted, clients=set())), **{setting: True}) as cven:
        await until("the Pod and its program", lambda: {"uid-web"} == cven.node.pods.keys() & cven.node.policy.programs)

        own, pod = said(cven)
        assert (pod.state, own.pods) == (state, {state: 1})


async def test_a_pod_that_keeps_its_rules_in_a_pause_is_not_called_idle_because_its_namespace_is_now(world):
    reader = Told(told(1, ALLOW, clients=set()))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        cven.node.order(Order(by="test"))
        reader.tell(told(2, msgspec.structs.replace(OPEN, mode=Mode.IDLE), clients=set()))
        await until("the mode", lambda: cven.node.policy.programs["uid-web"].mode is Mode.IDLE)
        assert cven.state_of("uid-web") is PodState.ENFORCED

        cven.node.undo()
        await until("the rules to go", lambda: cven.state_of("uid-web") is PodState.IDLE)
        assert "EW-" not in world.rules()


async def test_a_release_that_ends_while_nothing_is_written_leaves_no_pod_that_is_said_to_have_no_policy(world):
    async with running(world, Told(told(1, DENY, clients=set())), observe=True) as cven:
        await until("the Pod to be known", lambda: "uid-web" in cven.node.pods)
        cven.node.order(Order(release="*", by="test"))
        await until("the release", lambda: cven.state_of("uid-web") is PodState.RELEASED)

        cven.node.undo()
        assert cven.state_of("uid-web") is PodState.OBSERVED


def counted(registry: CollectorRegistry, state: PodState) -> float | None:
    return registry.get_sample_value("eastwest_pods", {"state": state})


async def test_metrics_count_pods_by_state_and_go_back_to_zero(world):
    reader = Told(told(1, ALLOW, clients=set()))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        registry = CollectorRegistry()
        registry.register(Measures(cven))
        assert counted(registry, PodState.ENFORCED) == 1

        reader.tell(told(2, OPEN, clients=set()))
        await realized(cven, 2)
        assert (counted(registry, PodState.ENFORCED), counted(registry, PodState.OPEN)) == (0, 1)


def in_the_hands_of(handler: str, world) -> Sandbox:
    return msgspec.structs.replace(world.sandbox(), handler=handler)


@pytest.mark.parametrize("handler", ["runsc", "kata-qemu"])
async def test_of_a_pod_with_a_network_stack_of_its_own_nothing_is_claimed_and_nothing_written(world, handler):
    async with running(world, Told(told(1, DENY, clients=set())), in_the_hands_of(handler, world)) as cven:
        await realized(cven, 1)

        own, pod = said(cven)
        assert pod.state is PodState.UNENFORCEABLE
        assert [(each.name, handler in each.reason) for each in own.exceptions] == [("web", True)]
        assert (cven.writes, "EW-" in world.rules()) == (0, False)


async def test_such_a_pod_that_nothing_isolates_lacks_nothing(world):
    async with running(world, Told(told(1, OPEN, clients=set())), in_the_hands_of("kata", world)) as cven:
        await realized(cven, 1)

        own, pod = said(cven)
        assert (pod.state, own.exceptions) == (PodState.OPEN, ())


async def test_which_handlers_these_are_is_a_setting(world):
    sandbox = in_the_hands_of("my-vm", world)
    async with running(world, Told(told(1, DENY, clients=set())), sandbox, foreign_handlers=("my-*",)) as cven:
        await realized(cven, 1)
        assert cven.state_of("uid-web") is PodState.UNENFORCEABLE


async def test_a_pod_whose_address_is_not_in_its_namespace_is_unenforceable_until_it_is(world):
    world.command("web", "ip", "address", "flush", "dev", "eth0")
    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await realized(cven, 1)
        own, pod = said(cven)
        assert pod.state is PodState.UNENFORCEABLE
        assert "carries an address of the Pod" in own.exceptions[0].reason

        world.command("web", "ip", "address", "add", "10.77.1.2/24", "dev", "eth0")
        await until("the Pod to be enforced", lambda: cven.state_of("uid-web") is PodState.ENFORCED)
        assert cven.exceptions == ()


async def test_an_error_names_its_reason(world):
    broken = msgspec.structs.replace(world.sandbox(), netns=Path("/run/netns/never-made"))
    async with running(world, Told(told(1, DENY, clients=set())), broken) as cven:
        await realized(cven, 1)

        own, pod = said(cven)
        assert pod.state is PodState.ERROR
        assert "does not exist" in own.exceptions[0].reason


async def test_a_static_pod_is_told_by_the_uid_that_the_api_knows(world):
    static = msgspec.structs.replace(DENY, uid="uid-of-its-mirror", mirror="uid-web")
    broken = msgspec.structs.replace(world.sandbox(), netns=Path("/run/netns/never-made"))
    async with running(world, Told(told(1, static, clients=set())), broken) as cven:
        await realized(cven, 1)

        own, pod = said(cven)
        assert pod.uid == own.exceptions[0].uid == "uid-of-its-mirror"
