"""Whatever is killed, whenever: what was denied stays denied, and in the end all is as if nothing had happened."""

import asyncio
import os
import secrets
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from compose.embedded.lab_cluster import lab_cluster
from compose.reading import output, policy_text
from schemas.objects import KubernetesObject
from schemas.policy import Policy
from tests.chaos.disturbing import Disturbances
from tests.chaos.history import History
from tests.chaos.judging import States, judge
from tests.chaos.kernel import differences, held
from tests.chaos.prober import Prober
from tests.chaos.world import World, eastwest, running
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.nats_server import NatsServer

SHORT = os.environ.get("CHAOS", "short") != "long"
CHANGES = 120 if SHORT else 500
ROUNDS = 2 if SHORT else 6
"""How often each disturbance happens."""
SECONDS_PER_CHANGE = 0.3
SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))

pytestmark = [pytest.mark.chaos, pytest.mark.netns, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(900)]


class Run:
    """One history, played in a world that is disturbed."""

    def __init__(self, world: World, seed: int) -> None:
        self.world = world
        self.history = History(seed)
        self.prober = Prober(world.progress)
        self.changes = 0
        self.disturbed: list[str] = []
        self.middle: tuple[int, Policy]
        """A revision half way, and what was published of it."""
        self.objects: list[KubernetesObject] = []
        self._changed = asyncio.Condition()

    async def play(self, disturbances: list[tuple[str, Callable[[], Awaitable[None]]]]) -> None:
        """Make all changes, and do *disturbances* among them, evenly."""
        await self._take(self.history.objects())
        await self.world.realized(await self.world.newest())
        async with asyncio.TaskGroup() as tasks:
            probing = tasks.create_task(self.prober.run(), name="probing")
            half = len(disturbances) // 2
            for first, part in ((True, disturbances[:half]), (False, disturbances[half:])):
                disturbing = tasks.create_task(self._disturb(part, self.changes), name="disturbing")
                for _ in range(CHANGES // 2):
                    await self._change()
                await disturbing
                if first:
                    self.middle = await self._published()
            probing.cancel()

    async def _published(self) -> tuple[int, Policy]:
        """The newest revision and what is published of it, once it is realized everywhere."""
        newest = await self.world.newest()
        await self.world.realized(newest)
        async with self.world.stream() as stream:
            await stream.marked(newest)
            return newest, await stream.published()

    async def _change(self) -> None:
        began = time.monotonic()
        self.history.change()
        await self._take(self.history.objects())
        async with self._changed:
            self.changes += 1
            self._changed.notify_all()
        await asyncio.sleep(max(0.0, began + SECONDS_PER_CHANGE - time.monotonic()))

    async def _take(self, objects: list[KubernetesObject]) -> None:
        self.objects = objects
        completed = self.world.planned(objects)
        gone = {one.pod.uid for one in self.world.lab.plan.pods} - {one.metadata.uid for one in completed}
        self.prober.forget(gone)
        await self.world.wire(completed)
        self.prober.follow(self.world.lab.plan)
        await self.world.write(completed)

    async def _disturb(self, disturbances: list[tuple[str, Callable[[], Awaitable[None]]]], first: int) -> None:
        for index, (name, disturb) in enumerate(disturbances):
            due = first + index * (CHANGES // 2) // len(disturbances)
            async with self._changed:
                await self._changed.wait_for(lambda due=due: self.changes >= due)
            self.disturbed.append(name)
            await disturb()


@pytest.mark.parametrize("wiped", [False, True], ids=["killed", "killed-and-wiped"])
async def test_nothing_that_is_killed_makes_a_difference(
    wiped: bool, tmp_path: Path, kafka: KafkaBroker, nats: NatsServer, capsys: pytest.CaptureFixture[str]
) -> None:
    with capsys.disabled():
        print(f"\nCHAOS_SEED={SEED}, {CHANGES} changes", flush=True)
    random, began = Random(SEED), time.monotonic()
    async with running(tmp_path, f"chaos-{uuid.uuid4().hex[:8]}", kafka, nats) as world:
        run = Run(world, SEED)
        await run.play(_chosen(Disturbances(world, random), random, wiped))
        played = time.monotonic() - began
        newest, published = await run._published()
        states = States(world.cluster, await world.records())

        assert published == states.fold.policy(), "what is published is not what the log says"
        assert not differences(held(world.lab.plan), await _from_scratch(tmp_path / "fresh", run.objects))
        await _replays(tmp_path / "run.db", world, {newest: published, run.middle[0]: run.middle[1]})
        found = judge(run.prober, states)
        with capsys.disabled():
            print(
                f"revision {newest}, {len(run.disturbed)} kills and pauses, {played:.0f} s; "
                f"{len(run.prober.sent)} datagrams\n"
                f"{found.denied} that no state allows, {len(found.leaked)} of these passed\n"
                f"{found.allowed} that every state allows, {len(found.lost)} of these lost\n"
                f"{len(found.between)} passed between two states that deny them at different ends, "
                f"{found.between_for_ever} of these denied by all later states, too"
            )
        assert not found.leaked, f"{len(found.leaked)} datagrams passed that no state allows: {found.leaked[:5]}"
        assert found.denied > 1000
        assert len(found.lost) <= found.allowed / 1000, f"what every state allows was lost: {found.lost[:5]}"


def _chosen(disturbances: Disturbances, random: Random, wiped: bool) -> list[tuple[str, Callable[[], Awaitable[None]]]]:
    """Every disturbance, `ROUNDS` times, in an order by chance; the store is wiped in the middle."""
    chosen = list(disturbances.all.items()) * ROUNDS
    random.shuffle(chosen)
    if wiped:
        chosen.insert(len(chosen) // 2, ("wipe the store of NATS", disturbances.wipe))
    return chosen


async def _from_scratch(folder: Path, objects: list[KubernetesObject]) -> dict[str, list[str]]:
    """What the kernel holds in another lab that has never known anything but *objects*."""
    folder.mkdir()  # noqa: ASYNC240  once, before anything runs
    async with lab_cluster(folder) as fresh:
        await fresh.realized(await fresh.change(objects))
        return held(fresh.lab.plan)


async def _replays(file: Path, world: World, published: dict[int, Policy]) -> None:
    """The log, exported, gives by itself exactly what was published at each of these revisions."""
    await eastwest("export", str(file), "--kafka", world.kafka.bootstrap, "--cluster", world.cluster)
    for revision, policy in published.items():
        texts = {
            await eastwest("replay", str(file), "--at", str(revision), "-o", "json", PYTHONHASHSEED=seed)
            for seed in ("1", "2")
        }
        assert len(texts) == 1, "two replays of one file differ"
        replayed: dict[str, Any] = msgspec.json.decode(texts.pop())
        assert replayed["revision"] == revision
        parts = {key: replayed[key] for key in ("programs", "sets")}
        assert output.document(parts, "json") == output.document(policy_text.document(policy), "json")
