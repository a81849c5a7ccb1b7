"""What is wrong with one object is said of that object, and everything else goes on: all of it at once, for real."""

import re
import uuid
from pathlib import Path
from typing import Any

import msgspec
import pytest

from compose.lab.wires.removing import delete
from producers.core.manifests import read_document
from schemas import names
from schemas.objects import KubernetesObject, NetworkPolicy, Pod
from streams import topics
from streams.errors import ReadFailed
from streams.kafka.kafka_log import KafkaLogs, KafkaSettings
from streams.log import Entry
from tests.chaos.history import History
from tests.chaos.world import World, eastwest, running
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.nats_server import NatsServer
from tests.components.waiting import until

pytestmark = [pytest.mark.chaos, pytest.mark.netns, pytest.mark.kafka, pytest.mark.nats]

ANNOTATION = "z" * 5_000_000
TOO_MANY_BLOCKS = [{"ipBlock": {"cidr": f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}/32"}} for n in range(300_000)]


def policy(name: str, spec: dict[str, Any], **meta: Any) -> NetworkPolicy:
    document = {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": "vault", **meta}, "spec": spec}
    (found,) = read_document(document)
    assert isinstance(found, NetworkPolicy)
    return found


BAD = [
    policy("bad-selector", {"podSelector": {"matchExpressions": [{"key": "role", "operator": "Like"}]}}),
    policy(
        "bad-cidr",
        {
            "podSelector": {"matchLabels": {"role": "well"}},
            "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/99"}}]}],
        },
    ),
    policy("huge-story", {"podSelector": {"matchLabels": {"role": "none"}}}, annotations={"story": ANNOTATION}),
]
TOO_LARGE = policy("too-large", {"podSelector": {}, "ingress": [{"from": TOO_MANY_BLOCKS}]})


async def test_each_bad_thing_is_named_and_everything_else_goes_on(
    tmp_path: Path, kafka: KafkaBroker, nats: NatsServer
) -> None:
    async with running(tmp_path, f"bad-{uuid.uuid4().hex[:8]}", kafka, nats) as world:
        history = History(1)
        await _take(world, history.objects())
        await world.realized(await world.newest())

        (corrupt,) = await world.log.append([Entry("Pod/shop/broken", b"\xff\xfe no event")])
        await _take(world, [*history.objects(), *BAD, TOO_LARGE])
        victim = next(pod.pod for pod in world.lab.plan.pods if pod.pod.namespace == "shop")
        delete([world.lab.pod(victim.key).netns])
        last = await _take_labels(world, [*history.objects(), *BAD, TOO_LARGE])

        def all_but_the_victim() -> bool:
            world.ensure_running()
            progress = world.progress().values()
            excepted = frozenset().union(*(one.exceptions for one in progress))
            return all(one.revision >= last for one in progress) and excepted == {victim.uid}

        await until(f"every Pod but {victim.key} to be programmed", all_but_the_victim, within_seconds=40)
        async with world.stream() as stream:
            assert await stream.published() == await stream.desired()

        # Each is named where people look.
        told = world.enforcers[victim.node].log.read_text()
        assert f"pod={victim.key} reason='NoNamespace" in "".join(re.split("\x1b[^m]*m", told))
        problems = world.kubelink.state.problems
        assert any("NetworkPolicy/vault/too-large" in subject for subject in problems), problems
        errors = {error["object"]: error["message"] for error in await _summary_errors(world)}
        assert "Like" in errors["NetworkPolicy/vault/bad-selector"]
        assert "10.0.0.0/99" in errors["NetworkPolicy/vault/bad-cidr"]
        assert await _dead_letters(world) == {f"{names.events_topic(world.cluster)}/{corrupt}"}
        assert b"zzz" not in b"".join(record.value or b"" for record in await world.records())
        assert any(record.key == "NetworkPolicy/vault/huge-story" for record in await world.records())


async def _take(world: World, objects: list[KubernetesObject]) -> None:
    completed = world.planned(objects)
    await world.wire(completed)
    await world.write(completed)


async def _take_labels(world: World, objects: list[KubernetesObject]) -> int:
    """Give every Pod other labels, so that every Pod has to be programmed anew; the network stays as it is."""
    changed = [
        msgspec.structs.replace(each, metadata=msgspec.structs.replace(each.metadata, labels={"role": "safe"}))
        if isinstance(each, Pod)
        else each
        for each in objects
    ]
    await world.write(world.planned([*changed, policy("deny", {"podSelector": {}}, namespace="shop")]))
    return await world.newest()


async def _summary_errors(world: World) -> list[dict[str, str]]:
    async def asked() -> list[dict[str, str]]:
        found: Any = msgspec.json.decode(
            await eastwest("get", "summary", "-o", "json", "--nats", world.nats.url, "--cluster", world.cluster)
        )
        errors: list[dict[str, str]] = (found[0] if isinstance(found, list) else found)["errors"]
        return errors if len(errors) >= 3 else []

    return await until("the errors in the summary", asked, within_seconds=10, poll_seconds=0.2)


async def _dead_letters(world: World) -> set[str]:
    async with KafkaLogs(KafkaSettings(bootstrap=world.kafka.bootstrap)) as logs:
        dead = await logs.open(topics.dead(world.cluster))

        async def keys() -> set[str]:
            return {record.key async for batch in dead.read(0) for record in batch}

        return await until("a dead letter", keys, ignoring=(ReadFailed,))
