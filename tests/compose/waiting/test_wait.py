"""`eastwest wait`, as a process: on a real log, nats-server and processor; and with enforcers in a lab."""

import asyncio
import json
import signal
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from compose.embedded.lab_cluster import lab_cluster
from compose.lab.cluster.manifests import read_manifests
from enforcers.runtimes.runtime import Sandbox
from schemas.addresses import pack
from schemas.status import CvenStatus, PodException
from streams import topics
from streams.channels.status import create_status_stream, publish_status
from streams.nats.nats_bus import NatsBus
from streams.sqlite.sqlite_log import SqliteLogs
from tests.compose.commands import EASTWEST, eastwest
from tests.compose.waiting.test_exposure import SERVERS
from tests.processors.histories import allow, pod
from tests.processors.live_cluster import World, running

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]

POLICY = allow("web", {"app": "web"}, {"app": "client"})


@pytest.fixture
async def world(nats, tmp_path: Path) -> AsyncIterator[World]:
    cluster = f"c{uuid.uuid4().hex[:10]}"
    async with SqliteLogs(tmp_path / "log.db") as logs, NatsBus(nats.url) as bus:
        await create_status_stream(bus, cluster)
        yield World(cluster, logs, await logs.open(topics.events(cluster)), bus, nats.url)


def where(world: World, folder: Path) -> tuple[str, ...]:
    return ("--nats", world.url, "--cluster", world.cluster, "--log", str(folder / "log.db"))


async def say(world: World, node: str, realized: int, **more: object) -> None:
    status = CvenStatus(node=node, heartbeat="", realized=realized, **more)  # type: ignore[arg-type]
    await publish_status(world.bus, world.cluster, status)
    await world.bus.client.flush()


async def test_it_waits_for_the_nodes_that_an_object_concerns_and_names_who_has_not(world, tmp_path: Path):
    await world.begin()  # web and client on n1, a policy on web
    revision = await world.writer.put(pod("far", "10.0.0.7", on="n2", app="else"), POLICY)
    async with running(world, "one"):
        await world.marked(revision)
        await say(world, "n1", revision - 2)
        await say(world, "n2", 0)

        wait = ("wait", "--object", "NetworkPolicy/shop/web", "--timeout", "0.5", *where(world, tmp_path))
        code, said = await eastwest(*wait)
        assert code == 1
        assert f"NetworkPolicy/shop/web is revision {revision}" in said
        assert "n1    " in said
        assert "lags by 2 revisions" in said
        assert "n2" not in said, "none of its Pods has rules by this policy"
        assert "not realized within 0.5 s" in said

        await say(world, "n1", revision)
        code, said = await eastwest(*wait)
        assert code == 0, said
        code, said = await eastwest("wait", "--revision", str(revision), "--timeout", "0.5", *where(world, tmp_path))
        assert code == 1, "a revision is everybody's"
        assert "n2" in said


async def test_it_ends_as_soon_as_the_last_node_says_so_and_tells_on_the_way(world, tmp_path: Path):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        await say(world, "n1", 0)
        process = await start("--revision", str(revision), "-o", "json", *where(world, tmp_path))
        assert process.stderr is not None
        while b"0 of 1 nodes have realized it, not n1" not in await process.stderr.readline():
            pass
        await say(world, "n1", revision)
        output, _ = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0
        found = json.loads(output)
        assert (found["revision"], found["realized"], [each["holds"] for each in found["nodes"]]) == (
            revision, True, [True],
        )  # fmt: skip


async def test_a_pod_that_could_not_be_programmed_is_not_realized_for_whom_it_is_about(world, tmp_path: Path):
    revision = await world.begin()
    unable = PodException(uid="uid-pod-shop-client", namespace="shop", name="client", reason="no interface there")
    async with running(world, "one"):
        await world.marked(revision)
        await say(world, "n1", revision + 99, exceptions=(unable,))
        short = ("--timeout", "0.5", *where(world, tmp_path))
        assert (await eastwest("wait", "--object", "NetworkPolicy/shop/web", *short))[0] == 0
        code, said = await eastwest("wait", "--object", "pod/shop/client", *short)
        assert code == 1
        assert "not shop/client: no interface there" in said
        assert (await eastwest("wait", "--revision", "0", *short))[0] == 1


async def test_what_is_not_published_yet_is_said(world, tmp_path: Path):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        code, said = await eastwest("wait", "--revision", "9999", "--timeout", "0", *where(world, tmp_path))
        assert code == 1
        assert "revision 9999 is not published yet: the newest is" in said


async def test_a_deleted_object_and_one_that_was_another_before_are_waited_for_everywhere(world, tmp_path: Path):
    await world.begin()
    relabelled = await world.writer.put(pod("client", "10.0.0.2", app="stranger"))
    deleted = await world.writer.delete(POLICY)
    async with running(world, "one"):
        await world.marked(deleted)
        await say(world, "n1", deleted)
        await say(world, "n7", relabelled - 1)
        for key in ("Pod/shop/client", "NetworkPolicy/shop/web"):
            code, said = await eastwest("wait", "--object", key, "--timeout", "0.3", *where(world, tmp_path))
            assert code == 1
            assert "n7" in said
            assert "must forget it" in said


def applied(version: str, peer: str = "client") -> dict[str, Any]:
    made = allow("web", {"app": "web"}, {"app": peer})
    made["metadata"]["resourceVersion"] = version
    return made


async def test_an_event_of_the_resource_version_is_waited_for_before_its_revision_is(world, tmp_path: Path):
    await world.begin()
    older = await world.writer.put(applied("7"))
    async with running(world, "one"):
        await world.marked(older)
        await say(world, "n1", older + 99)  # so it is not the nodes that are waited for
        target = ("--object", "NetworkPolicy/shop/web", "-o", "json", *where(world, tmp_path))
        assert (await eastwest("wait", *target))[0] == 0, "the older event is realized everywhere"

        process = await start(*target, "--resource-version", "8")
        assert process.stderr is not None
        assert b"looking for the event of NetworkPolicy/shop/web" in await process.stderr.readline()
        await world.writer.put(applied("80"))  # compared as a whole
        newer = await world.writer.put(applied("8", peer="stranger"))
        output, _ = await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0
        assert json.loads(output)["revision"] == newer


async def test_an_event_that_was_followed_by_another_is_waited_for_on_every_node(world, tmp_path: Path):
    await world.begin()
    meant = await world.writer.put(applied("7"))
    latest = await world.writer.put(applied("8"))
    async with running(world, "one"):
        await world.marked(latest)
        await say(world, "n1", meant)
        await say(world, "n7", meant - 1)
        options = ("--object", "NetworkPolicy/shop/web", "--resource-version", "7", "--timeout", "0.5")
        code, said = await eastwest("wait", *options, *where(world, tmp_path))
        assert code == 1
        assert f"Revision {meant} on every node: the object has changed since" in said
        assert "n7" in said


async def test_a_resource_version_that_never_comes_is_told_with_the_newest_one_that_did(world, tmp_path: Path):
    await world.begin()
    revision = await world.writer.put(applied("7"))
    options = ("--object", "NetworkPolicy/shop/web", "--resource-version", "70", "--timeout", "0.2")
    code, said = await eastwest("wait", *options, *where(world, tmp_path))
    assert code == 1
    assert f"the newest has 7, at revision {revision}" in said
    code, said = await eastwest("wait", "--revision", "1", "--resource-version", "7", *where(world, tmp_path))
    assert (code, "name that by --object" in said) == (2, True)


async def test_mistakes_are_told_as_such(world, tmp_path: Path):
    await world.begin()
    for arguments, wanted in (
        ((), "name either --revision or --object"),
        (("--revision", "1", "--object", "Pod/shop/web"), "name either --revision or --object"),
        (("--object", "Pod/web"), "write Pod/NAMESPACE/NAME"),
        (("--object", "Node/shop/n1"), "write Node/NAME"),
        (("--object", "Deployment/shop/web"), "is no kind in the log"),
        (("--object", "Pod/shop/wbe"), "Pod/shop/wbe is not in the log"),
    ):
        code, said = await eastwest("wait", *arguments, *where(world, tmp_path))
        assert (code, wanted in said) == (2, True), said
    code, said = await eastwest("wait", "--revision", "1", "--nats", world.url, "--cluster", "mistyped")
    assert code == 1
    assert "of cluster mistyped; choose another by --cluster" in said


async def test_a_cluster_whose_first_policy_is_still_to_come_is_waited_for(world, tmp_path: Path):
    revision = await world.begin()
    process = await start("--object", "NetworkPolicy/shop/web", *where(world, tmp_path))
    assert process.stderr is not None
    assert b"is revision" in await process.stderr.readline()
    await asyncio.sleep(0.5)  # long enough to give up, if it did
    assert process.returncode is None

    async with running(world, "one"):
        await world.marked(revision)
        await say(world, "n1", revision)
        await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0


async def test_it_goes_on_through_an_outage_of_nats_and_ctrl_c_is_not_success(world, tmp_path: Path, nats):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        await say(world, "n1", 0)
        process = await start("--revision", str(revision), *where(world, tmp_path))
        other = await start("--revision", str(revision), *where(world, tmp_path))
        for each in (process, other):
            assert each.stderr is not None
            while b"not n1" not in await each.stderr.readline():
                pass
        other.send_signal(signal.SIGINT)
        _, errors = await asyncio.wait_for(other.communicate(), 10)
        assert (other.returncode, errors.strip()) == (130, b"")

        await nats.stop()
        await nats.start()
        await say(world, "n1", revision)
        await asyncio.wait_for(process.communicate(), 20)
        assert process.returncode == 0


async def start(*arguments: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        EASTWEST, "wait", *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


@pytest.mark.netns
@pytest.mark.usefixtures("capable")
async def test_enforcers_that_really_enforce_are_waited_for_and_a_pod_without_its_namespace_is_named(tmp_path: Path):
    manifest = tmp_path / "servers.yaml"
    manifest.write_text(SERVERS)
    async with lab_cluster(tmp_path) as cluster:
        revision = await cluster.change(read_manifests([manifest]))
        target = ("--nats", cluster.world.nats_url, "--cluster", "lab", "--log", str(cluster.world.log_file))
        key = "NetworkPolicy/shop/db-from-clients-only"
        code, said = await eastwest("wait", "--object", key, "--timeout", "20", *target)
        assert code == 0, said
        assert "node-2" in said
        assert "node-1" not in said
        code, said = await eastwest("wait", "--revision", str(revision), "--timeout", "20", *target)
        assert code == 0, said

        db = cluster.lab.pod("shop/db").pod
        addresses = tuple(map(pack, db.addresses))
        lost = Sandbox(uid=db.uid, id="2", namespace="shop", name="db", netns=tmp_path / "gone", addresses=addresses)
        cluster.enforcers["node-2"].cven.node.take_sandboxes({db.uid: lost})
        code, said = await eastwest("wait", "--object", key, "--timeout", "1", *target)
        assert code == 1
        assert "not shop/db: NoNamespace" in said
