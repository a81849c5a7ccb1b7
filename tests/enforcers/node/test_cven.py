"""A node's C-VEN with its three sources: what is told, which Pods there are, the node's own addresses."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from enforcers.enforcer import Enforcer, keep_snapshots
from enforcers.node.snapshot import Kept, SnapshotUnreadable, load, save
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from enforcers.settings import EnforcerSettings
from schemas import sets as packing
from schemas.policy import Mark, NodeUpdate, SetChange
from schemas.programs import Program
from schemas.status import Order, PodState
from streams.nats.nats_bus import NatsBus
from streams.telemetry import Health
from tests.enforcers.cven_world import NEIGHBOUR_DENY, Told, neighbour, realized, running, slow_tool, told, until
from tests.enforcers.pod_world import ALLOW, CLIENTS, DENY, both, isolated, packed, program

pytestmark = pytest.mark.netns


async def test_programs_become_rules_and_the_revision_is_realized(world):
    world.listen("web", 80)
    reader = Told(told(7, ALLOW, clients=both("a")))

    async with running(world, reader) as cven:
        await realized(cven, 7)

        assert world.reaches("a", "web", 80)
        assert not world.reaches("b", "web", 80)
        assert world.reaches("node", "web", 80)
        assert (cven.exceptions, cven.state_of("uid-web")) == ((), PodState.ENFORCED)


async def test_rules_stand_while_it_is_down_and_a_restart_writes_nothing(world):
    world.listen("web", 80)
    update = told(7, ALLOW, clients=both("a"))
    async with running(world, Told(update)) as cven:
        await realized(cven, 7)
    before = world.handles()
    assert world.reaches("a", "web", 80)
    assert not world.reaches("b", "web", 80)

    async with running(world, Told(update)) as again:
        await realized(again, 7)

        assert again.writes == 0
    assert world.handles() == before


async def test_nothing_is_written_before_everything_is_known(world):
    incomplete = told(1, DENY, clients=set(), complete=False)
    reader = Told(incomplete)
    async with running(world, reader) as cven:
        await until(
            "the Pod to be known", lambda: "uid-web" in cven.node.pods and "uid-web" in cven.node.policy.programs
        )
        assert cven.writes == 0

        reader.tell(told(2, DENY, clients=set()))
        await realized(cven, 2)
        assert cven.writes == 1


async def test_a_broken_pod_stops_no_neighbour_and_is_named_beside_the_revision(world):
    broken = Sandbox(
        uid="uid-gone", namespace="shop", name="gone", netns=world.path("never-made"), addresses=(packed("b"),)
    )
    lost = Program(uid="uid-gone", namespace="shop", name="gone", node="node-1", ingress=isolated())
    world.listen("web", 80)

    async with running(world, Told(told(3, DENY, lost, clients=set())), broken, world.sandbox()) as cven:
        await realized(cven, 3)

        assert not world.reaches("a", "web", 80)
        assert [(each.uid, each.name) for each in cven.exceptions] == [("uid-gone", "gone")]
        assert "does not exist" in cven.exceptions[0].reason
        assert cven.state_of("uid-gone") is PodState.ERROR


async def test_a_tightening_cuts_when_the_state_is_complete(world):
    listener = world.listen("web", 80)
    reader = Told(told(1, ALLOW, clients=both("a", "b")))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        client = world.connect("a", "web", 80)
        server = world.accept(listener)

        gone = SetChange(id=CLIENTS, removed=frozenset(both("a")))
        reader.tell(NodeUpdate(sets=(gone,)), NodeUpdate(mark=Mark(revision=2)))
        await realized(cven, 2)

        client.sendall(b"still there?")
        with pytest.raises(TimeoutError):
            server.recv(64)


async def test_a_pod_that_no_program_names_any_more_keeps_its_rules_until_one_asks_for_none(world):
    reader = Told(told(1, ALLOW, clients=both("a")))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        before = world.handles()

        reader.tell(NodeUpdate(gone=("uid-web",), mark=Mark(revision=2)))
        await realized(cven, 2)
        assert world.handles() == before
        assert cven.state_of("uid-web") is PodState.ENFORCED

    reader = Told(told(3, clients=set()))
    async with running(world, reader) as cven:  # who starts then knows nothing of it
        await realized(cven, 3)
        assert world.handles() == before
        assert cven.state_of("uid-web") is PodState.PENDING

        reader.tell(NodeUpdate(programs=(program(),), mark=Mark(revision=4)))
        await realized(cven, 4)
        assert "EW-" not in world.rules()
        assert "ew-" not in world.command("web", "ipset", "list", "-n")
        assert cven.state_of("uid-web") is PodState.OPEN


async def test_a_pod_that_no_program_names_loses_its_rules_by_order(world):
    reader = Told(told(1, DENY, clients=set()))
    async with running(world, reader) as cven:
        await realized(cven, 1)
        reader.tell(NodeUpdate(gone=("uid-web",), mark=Mark(revision=2)))
        await realized(cven, 2)

        cven.node.order(Order(release="*", by="test"))

        await until("its rules to go", lambda: "EW-" not in world.rules())


async def test_a_pod_that_comes_back_in_another_namespace_is_programmed_there(world):
    reader = Told(told(1, DENY, clients=set()))
    runtime = GivenRuntime([world.sandbox()])
    async with running(world, reader, runtime=runtime) as cven:
        await realized(cven, 1)
        restarted = Sandbox(
            uid="uid-web", id="sandbox-2", namespace="shop", name="web", netns=world.path("b"), addresses=(packed("b"),)
        )

        runtime.tell([restarted])

        await until("rules in the new namespace", lambda: "default-" in world.rules("b"))
        runtime.tell([])
        await until("the Pod to be let go of", lambda: not cven.node.pods)


@pytest.mark.parametrize("order", ["pause", "observe"])
async def test_by_order_nothing_is_written(world, order):
    async with running(world, Told(told(1, DENY, clients=set())), **{order: True}) as cven:
        await until(
            "the Pod and its program to be known", lambda: cven.node.policy.complete and "uid-web" in cven.node.pods
        )
        await until("a round to pass", cven.node.changed.is_set)

        assert cven.writes == 0
        assert "EW-" not in world.rules()


async def test_a_pause_holds_back_whoever_waits_for_his_turn_by_then(world, tmp_path: Path, monkeypatch):
    go = slow_tool(tmp_path, monkeypatch, "iptables-nft-restore")
    reader, pods = Told(told(1, DENY, NEIGHBOUR_DENY, clients=set())), (neighbour(world), world.sandbox())
    async with running(world, reader, *pods, parallel=1, chain_backend="restore") as cven:
        await until("the first Pod to be begun", lambda: any(pod._turn.locked() for pod in cven.node.pods.values()))
        cven.node.order(Order(by="test"))
        go.touch()
        await until("what was begun to end", lambda: not cven._programming._newest)

        assert (cven.node.pods["uid-b"].writes, cven.node.pods["uid-web"].writes) == (1, 0)
        assert "EW-" not in world.rules()
        cven.node.undo()
        await until("the other's rules", lambda: cven.state_of("uid-web") is PodState.ENFORCED)


async def test_a_new_address_of_the_node_is_admitted(world):
    world.listen("web", 80)
    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await realized(cven, 1)
        world.command("a", "ip", "address", "del", "10.77.1.3/24", "dev", "eth0")
        world.command("node", "ip", "address", "add", "10.77.1.3/24", "dev", "br0")

        def admitted() -> bool:
            return "10.77.1.3" in world.command("web", "ipset", "list", "ew-node-4")

        await until("the node's set to have its new address", admitted)


async def test_how_long_a_new_pod_was_open_is_measured_and_of_an_older_one_nothing_is_said(world):
    runtime = GivenRuntime([])
    async with running(world, Told(told(1, DENY, clients=set())), runtime=runtime) as cven:
        await realized(cven, 1)
        measured = partial(cven.node.metrics.registry.get_sample_value, "eastwest_sandbox_to_enforced_seconds_count")

        runtime.tell([world.sandbox()])
        await until("the rules", lambda: cven.state_of("uid-web") is PodState.ENFORCED)
        assert measured() == 0

        runtime.tell([])
        await until("the Pod to be gone", lambda: not cven.node.pods)
        world.command("web", "iptables-nft", "-t", "mangle", "-F")
        runtime.tell([msgspec.structs.replace(world.sandbox(), created_at=time.time())])
        await until("the rules of the new one", lambda: measured() == 1)


def kept_deny() -> Kept:
    return Kept(revision=5, programs=(ALLOW,), sets={CLIENTS: (packing.pack_members(both("a"), 4), b"")})


async def test_a_node_that_hears_nobody_enforces_what_it_kept_and_says_so(world, tmp_path: Path):
    world.listen("web", 80)
    path = tmp_path / "node.snapshot"
    save(path, kept_deny())

    async with running(world, Told(), kept=load(path), disk_after_seconds=0.05) as cven:
        await until("the rules from disk", lambda: not world.reaches("b", "web", 80))

        assert world.reaches("a", "web", 80)
        assert cven.node.from_disk


@pytest.mark.parametrize("unknown", ["open", "isolate"])
async def test_a_pod_that_the_snapshot_does_not_know_is_open_or_admits_its_own_node_alone_as_set(
    world, tmp_path: Path, unknown: str
):
    world.listen("web", 80)
    path = tmp_path / "node.snapshot"
    save(path, kept_deny())
    stranger = msgspec.structs.replace(world.sandbox(), uid="uid-stranger")

    async with running(world, Told(), stranger, kept=load(path), disk_after_seconds=0.05, unknown_pods=unknown) as cven:
        wanted = PodState.ENFORCED if unknown == "isolate" else PodState.OPEN
        await until("what was kept to be enforced", lambda: cven.state_of("uid-stranger") is wanted)

        assert world.reaches("a", "web", 80) == (unknown == "open")
        assert world.reaches("node", "web", 80)


@pytest.mark.parametrize("programs", [(), (program(),)])
async def test_the_word_of_a_snapshot_takes_no_rule_away(world, programs: tuple[Program, ...]):
    async with running(world, Told(told(7, DENY, clients=set()))) as cven:
        await realized(cven, 7)
    before = world.handles()

    reader = Told()
    async with running(
        world, reader, kept=Kept(revision=5, programs=programs, sets={}), disk_after_seconds=0.05
    ) as cven:
        await until("the Pod to be looked at", lambda: cven.node.from_disk and not cven.node._dirty)
        await cven.node.pods["uid-web"].inspect()  # has its turn after whoever looks
        assert world.handles() == before
        assert cven.state_of("uid-web") is PodState.PENDING

        reader.tell(told(8, program(), clients=set()))
        await realized(cven, 8)
        assert "EW-" not in world.rules()
        assert cven.state_of("uid-web") is PodState.OPEN


def test_a_damaged_snapshot_is_refused_whole(tmp_path: Path):
    path = tmp_path / "node.snapshot"
    save(path, kept_deny())
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)

    with pytest.raises(SnapshotUnreadable, match="checksum"):
        load(path)


async def test_an_enforcer_that_never_reached_nats_enforces_what_it_kept(world, tmp_path: Path):
    world.listen("web", 80)
    path = tmp_path / "node.snapshot"
    save(path, kept_deny())

    @asynccontextmanager
    async def never_connected() -> AsyncIterator[NatsBus]:
        await asyncio.Event().wait()
        raise AssertionError("unreachable")
        yield

    service = Enforcer(
        EnforcerSettings(node="node-1", disk_after_seconds=0.05),
        never_connected(),
        GivenRuntime([world.sandbox()]),
        node_netns=world.path("node"),
        snapshot=path,
        health=Health(),
        registry=CollectorRegistry(),
    )
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(service.run(stop), name="enforcer")
        await until("the rules from disk", lambda: not world.reaches("b", "web", 80))
        assert world.reaches("a", "web", 80)
        stop.set()


async def test_a_snapshot_that_cannot_be_written_ends_nothing_and_comes_when_it_can(world, tmp_path: Path):
    folder = tmp_path / "folder"
    folder.write_text("in the way")
    path = folder / "node.snapshot"

    with capture_logs() as logged:
        async with running(world, Told(told(7, ALLOW, clients=both("a")))) as cven:
            await realized(cven, 7)
            keeping = asyncio.create_task(keep_snapshots(cven, path), name="keep snapshots")
            await until("the trouble to be told", lambda: any("no snapshot" in line["event"] for line in logged))
            folder.unlink()
            await until("the snapshot", path.exists)
            keeping.cancel()

    assert load(path) is not None


async def test_sets_are_packed_for_the_snapshot_where_nobody_waits_for_it(world, tmp_path: Path, monkeypatch):
    pack, packing_threads = packing.pack_members, set[threading.Thread]()

    def watched(members: Iterable[bytes], family: int) -> bytes:
        packing_threads.add(threading.current_thread())
        return pack(members, family)

    monkeypatch.setattr(packing, "pack_members", watched)
    path = tmp_path / "node.snapshot"
    async with running(world, Told(told(7, ALLOW, clients=both("a")))) as cven:
        await realized(cven, 7)
        keeping = asyncio.create_task(keep_snapshots(cven, path), name="keep snapshots")
        await until("the snapshot", path.exists)
        keeping.cancel()

    kept = load(path)
    assert kept is not None
    assert kept.sets == {CLIENTS: (pack(both("a"), 4), pack(both("a"), 6))}
    assert packing_threads
    assert threading.main_thread() not in packing_threads
