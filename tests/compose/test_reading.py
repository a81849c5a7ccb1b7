"""The reading commands, as processes, against a real log, a real nats-server and a running processor."""

import asyncio
import json
import os
import sys
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from compose.reading import policy_text, schema
from schemas.events import KINDS
from schemas.reports import PREFIXES
from schemas.status import (
    CvenStatus,
    Difference,
    DriftKind,
    PodDetail,
    PodException,
    PodState,
    RuntimeStatus,
    Tampering,
)
from streams import topics
from streams.channels.inventory_bucket import read_inventory
from streams.channels.status import publish_status
from streams.errors import ReadFailed
from streams.log import Entry
from streams.nats.nats_bus import NatsBus
from streams.settings import documentation
from streams.sqlite.sqlite_log import SqliteLogs
from tests.components.waiting import until
from tests.processors.histories import Writer, allow, namespace, node, pod
from tests.processors.live_cluster import World, running

pytestmark = [pytest.mark.timeout(60)]

EASTWEST = Path(sys.executable).with_name("eastwest")


async def eastwest(*arguments: object, code: int = 0, **environment: str) -> str:
    """Run the command and return what it printed; it has to end with *code*."""
    process = await asyncio.create_subprocess_exec(
        EASTWEST,
        *map(str, arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    out, errors = await process.communicate()
    assert process.returncode == code, errors.decode()
    return out.decode() if code == 0 else errors.decode()


@pytest.fixture
async def world(nats, tmp_path: Path) -> AsyncIterator[World]:
    cluster = f"c{uuid.uuid4().hex[:10]}"
    async with SqliteLogs(tmp_path / "log.db") as logs, NatsBus(nats.url) as bus:
        yield World(cluster, logs, await logs.open(topics.events(cluster)), bus, nats.url)


async def inventoried(world: World, key: str) -> None:
    async def there() -> bool:
        return key in await read_inventory(world.bus, world.cluster)

    await until(f"{key} in the inventory", there, ignoring=(ReadFailed,))


@pytest.mark.nats
async def test_get_shows_reports_joined_with_what_the_nodes_say(world):
    revision = await world.begin()
    where = ("--nats", world.url, "--cluster", world.cluster)
    async with running(world, "one"):
        await world.marked(revision)
        await inventoried(world, "container-workload.shop.web")
        detail = PodDetail(uid="uid-pod-shop-web", namespace="shop", name="web", state=PodState.ENFORCED)
        await publish_status(world.bus, world.cluster, CvenStatus(node="n1", heartbeat="", realized=revision))
        await publish_status(world.bus, world.cluster, RuntimeStatus(node="n1", pods=(detail,)))
        await world.bus.client.flush()

        summary = await eastwest("get", "summary", *where)
        assert f"Cluster             {world.cluster}" in summary
        assert "c-ven      n1" in summary
        assert "owner, revision" in summary
        workload = json.loads(await eastwest("get", "workloads", "n1", "-o", "json", *where))
        assert workload["status"]["connectivity"] == "online"
        assert (workload["status"]["realized"], workload["status"]["desired_revision"] >= revision) == (revision, True)

        table = await eastwest("get", "container-workloads", "-n", "shop", "-l", "app=web", *where)
        assert table.splitlines()[0].split() == [
            "NAMESPACE", "NAME", "READY", "PHASE", "SEGMENTATION", "ENFORCEMENT", "ADDRESS", "NODE", "AGE",
        ]  # fmt: skip
        assert len(table.splitlines()) == 2
        assert "segmented" in table
        pods = yaml.safe_load(await eastwest("get", "container-workloads", "-o", "yaml", *where))
        assert [(one["name"], one["status"] and one["status"]["state"]) for one in pods] == [
            ("client", None),
            ("web", "enforced"),
        ]
        assert "enforced" in await eastwest("get", "container-workloads", "web", "-o", "wide", *where)
        assert "shop" in await eastwest("get", "profiles", *where)
        assert await eastwest("get", "virtual-services", *where) == "Nothing found.\n"
        assert "not in the inventory" in await eastwest("get", "workloads", "n9", *where, code=1)


async def says(heartbeat: str, *where: object) -> bool:
    """Whether node n3's record with *heartbeat* is in the log."""
    lines = (await eastwest("events", "--status", "--name", "n3", "-o", "json", *where)).splitlines()
    return heartbeat in {json.loads(line)["heartbeat"] for line in lines}


@pytest.mark.nats
async def test_events_status_says_what_each_node_confirmed(world, tmp_path: Path):
    revision = await world.begin()
    where = ("--log", tmp_path / "log.db", "--cluster", world.cluster)
    unable = PodException(uid="u", namespace="shop", name="web", reason="no iptables there")
    async with running(world, "one"):
        await world.marked(revision)
        await publish_status(world.bus, world.cluster, CvenStatus(node="n2", heartbeat="t", realized=3, paused=True))
        said = CvenStatus(node="n1", heartbeat="t", realized=revision, exceptions=(unable,))
        await publish_status(world.bus, world.cluster, said)
        change = Difference(kind=DriftKind.CHAIN, object="mangle EW-IN (IPv4)", before="3 rules", after="missing")
        tampering = Tampering(
            time="t", uid="u", namespace="shop", name="db", differences=(change,), processes=("nft[7]",), seconds=0.02
        )
        for heartbeat, paused in (("t1", False), ("t2", True)):
            said = CvenStatus(node="n3", heartbeat=heartbeat, healed=1, tampering=(tampering,), paused=paused)
            await publish_status(world.bus, world.cluster, said)
            await until("the record", lambda told=heartbeat: says(told, *where))
    table = (await eastwest("events", "--status", *where)).splitlines()
    assert table[0].split() == ["OFFSET", "TIME", "NODE", "REALIZED", "HEALED", "SAYS"]
    records = [(record.split()[2], record.split()[3], " ".join(record.split()[5:])) for record in paragraphs(table[1:])]
    assert sorted(records) == [
        ("n1", str(revision), "1 exception not shop/web: no iptables there"),
        ("n2", "3", "paused"),
        ("n3", "-1", f"- t {tampering}"),
        ("n3", "-1", "paused"),
    ]
    assert str(tampering) == (
        "shop/db tampered with by nft[7]: mangle EW-IN (IPv4): 3 rules before, now missing; put back after 20 ms"
    )
    (one,) = map(json.loads, (await eastwest("events", "--status", "--name", "n2", "-o", "json", *where)).splitlines())
    assert (one["node"], one["realized"], one["paused"]) == ("n2", 3, True)
    assert "by node" in await eastwest("events", "--status", "--kind", "Pod", *where, code=2)
    assert "'Pods' is not one of" in await eastwest("events", "--kind", "Pods", *where, code=2)
    control = (await eastwest("events", "--kind", "sync", *where)).splitlines()[1:]
    assert {line.split()[3] for line in control} == {"Sync"}, "asked for by name they are told"


def paragraphs(lines: list[str]) -> list[str]:
    """Each line with those below it that are indented."""
    return "\n".join(lines).replace("\n ", " ").splitlines()


@pytest.mark.nats
@pytest.mark.parametrize("report", ["summary", "container-workloads", "programs"])
async def test_get_says_at_once_that_a_cluster_is_not_there(world, report: str):
    said = await eastwest("get", report, "--nats", world.url, "--cluster", "mistyped", code=1)
    assert "of cluster mistyped; choose another by --cluster" in said


@pytest.mark.nats
async def test_get_programs_says_which_policy_is_behind_each_rule(world):
    revision = await world.begin()
    where = ("--nats", world.url, "--cluster", world.cluster)
    async with running(world, "one"):
        await world.marked(revision)
        text = await eastwest("get", "programs", "shop/web", *where)
        assert "Pod shop/web on n1" in text
        assert "Known to others as 10.0.0.1" in text
        assert "Ingress: isolated by NetworkPolicy/shop/web" in text
        assert "Egress: open, no policy isolates it" in text
        assert "on 80/TCP    NetworkPolicy/shop/web (rule " in text
        assert "1: 10.0.0.2" in text
        assert "isolated, 1 rule" in await eastwest("get", "programs", *where)
        assert "no program is published for shop/nobody" in await eastwest(
            "get", "programs", "shop/nobody", *where, code=1
        )

        published = policy_text.document(await world.published())
        assert json.loads(await eastwest("get", "programs", "-o", "json", *where)) == json.loads(json.dumps(published))


@pytest.mark.nats
async def test_watching_prints_what_changes_until_it_is_stopped(world):
    revision = await world.begin()
    async with running(world, "one"):
        await world.marked(revision)
        await inventoried(world, "container-workload.shop.web")
        process = await asyncio.create_subprocess_exec(
            EASTWEST, "get", "container-workloads", "-n", "shop", "-w", "-o", "json", "--nats", world.url,
            "--cluster", world.cluster, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        assert process.stdout is not None
        try:
            first = [json.loads(await process.stdout.readline()) for _ in range(2)]
            assert sorted(one["name"] for one in first) == ["client", "web"]
            await world.writer.put(pod("late", "10.0.0.7", app="client"))
            assert json.loads(await process.stdout.readline())["name"] == "late"
            await world.writer.delete(pod("late", "10.0.0.7"))
            gone = json.loads(await process.stdout.readline())
            assert gone == {"key": "container-workload.shop.late", "gone": True}
        finally:
            process.terminate()
            await process.wait()


@pytest.fixture
async def record(tmp_path: Path) -> tuple[Path, list[int]]:
    """A log in which a policy and a Pod came and went; the revision after each step."""
    file = tmp_path / "log.db"
    async with SqliteLogs(file) as logs:
        log = await logs.open(topics.events("prod"))
        writer = Writer(log)
        await writer.begin()
        steps = [await writer.put(namespace("shop"), node("n1", "192.0.2.1"), pod("web", "10.0.0.1", app="web"))]
        await writer.sync(KINDS)
        steps.append(await writer.put(pod("client", "10.0.0.2", app="client")))
        steps.append(await writer.put(allow("web", {"app": "web"}, {"app": "client"})))
        steps.append(await writer.delete(pod("client", "10.0.0.2")))
        steps += await log.append([Entry("Pod/shop/web", b'{"type":')])
        steps.append(await writer.put(pod("late", "10.0.0.3", app="client")))
    return file, steps


async def test_events_lists_what_arrived_filtered_and_in_order(record):
    file, steps = record
    table = await eastwest("events", "--log", file)
    assert "UNREADABLE" in table
    assert "Epoch" not in table
    assert "Epoch" in await eastwest("events", "--log", file, "--control")
    lines = (await eastwest("events", "--log", file, "-o", "json", "--kind", "pod", "--name", "c*")).splitlines()
    found = [json.loads(line) for line in lines]
    assert [(one["type"], one["name"], one["revision"]) for one in found] == [
        ("MODIFIED", "client", steps[1]),
        ("DELETED", "client", steps[3] - 1),
    ]
    assert found[0]["object"]["status"]["podIP"] == "10.0.0.2"
    only = await eastwest("events", "--log", file, "-o", "json", "--from", steps[2], "--to", steps[2])
    assert [json.loads(line)["name"] for line in only.splitlines()] == ["web"]
    assert await eastwest("events", "--log", file, "-o", "json", "--since", "2999-01-01T00:00:00Z") == ""
    assert len((await eastwest("events", "--log", file, "-o", "json", "--since", "1h")).splitlines()) == 8


async def test_events_can_be_followed(tmp_path):
    async with SqliteLogs(tmp_path / "log.db") as logs:
        writer = Writer(await logs.open(topics.events("prod")))
        await writer.begin()
        process = await asyncio.create_subprocess_exec(
            EASTWEST, "events", "-f", "-o", "json", "--log", tmp_path / "log.db", stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        try:
            for name in ("one", "two"):
                await writer.put(namespace(name))
                assert json.loads(await process.stdout.readline())["name"] == name
        finally:
            process.terminate()
            await process.wait()


async def test_replay_is_the_same_byte_for_byte_whatever_the_hash_seed(record):
    file, _ = record
    texts = {await eastwest("replay", file, "-o", "json", PYTHONHASHSEED=seed) for seed in ("1", "2", "77")}
    (text,) = texts
    found = json.loads(text)
    assert found["cluster"] == "prod"
    assert "container-workload.shop.late" in found["reports"]
    assert found["reports"]["summary"]["errors"][0]["object"] == "Pod/shop/web"
    assert "web" in [one["name"] for one in found["programs"]]
    table = await eastwest("replay", file)
    assert "Container Workload Profiles" in table
    assert "Ingress: isolated by NetworkPolicy/shop/web" in table


async def test_replay_shows_a_past_revision(record):
    file, steps = record
    then = json.loads(await eastwest("replay", file, "--at", steps[2], "-o", "json"))
    assert then["revision"] == steps[2]
    assert "container-workload.shop.client" in then["reports"]
    assert ["10.0.0.2"] in then["sets"].values()


@pytest.mark.parametrize("step", [0, 2, 4])
async def test_an_export_begins_with_the_state_and_replays_like_the_whole_log(record, tmp_path, step):
    file, steps = record
    sliced = tmp_path / "slice.db"
    said = await eastwest("export", sliced, "--log", file, "--from", steps[step])
    assert "that say the state before" in said
    for at in (steps[step], steps[-1]):
        whole = await eastwest("replay", file, "--at", at, "-o", "json")
        assert await eastwest("replay", sliced, "--at", at, "-o", "json") == whole
    assert "does not overwrite" in await eastwest("export", sliced, "--log", file, code=2)


async def test_a_log_that_is_not_there_or_of_another_cluster_is_named(tmp_path):
    assert "there is no log" in await eastwest("events", "--log", tmp_path / "none.db", code=2)
    async with SqliteLogs(tmp_path / "log.db") as logs:
        await logs.open(topics.events("prod"))
    assert "not of other" in await eastwest("events", "--log", tmp_path / "log.db", "--cluster", "other", code=2)


def test_everything_that_travels_has_a_schema():
    for name in schema.TYPES:
        found = CliRunner().invoke(schema.schema, [name])
        assert json.loads(found.output), name
    assert "## Virtual Services (`virtual-service`)" in CliRunner().invoke(schema.schema, ["reports"]).output
    assert CliRunner().invoke(schema.schema, []).output.count("\n") == len(schema.TYPES)


def test_every_field_of_the_reports_is_documented():
    for type_ in PREFIXES.values():
        assert set(documentation(type_)) >= set(type_.__struct_fields__), type_
