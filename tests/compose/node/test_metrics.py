"""`/metrics`, as Prometheus reads it: what documents name, and what comes and goes with a Pod."""

import re
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from compose.embedded.told_source import ToldSource
from compose.embedded.world import embedded
from enforcers.node.inspecting import look
from processors.settings import ProcessorSettings
from schemas.status import PodState
from streams.telemetry import serving
from tests.components.waiting import until
from tests.compose.node.standing import Standing, standing
from tests.enforcers.pod_world import World

DOCUMENTS = Path(__file__).parents[3] / "docs"


async def metrics(address: str) -> str:
    async with aiohttp.ClientSession(f"http://{address}") as http, http.get("/metrics") as response:
        return await response.text()


def names(text: str) -> set[str]:
    """As queries say them: a counter's ends with ``_total``. When it was made is no metric of ours."""
    return {name for name in re.findall(r"^# TYPE (\S+)", text, re.MULTILINE) if not name.endswith("_created")}


def samples(text: str, name: str) -> dict[tuple[str, ...], float]:
    """By the values of its labels."""
    return {
        tuple(sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    }


@pytest.mark.netns
@pytest.mark.nats
async def test_every_metric_is_documented_and_no_other_is(world: World, tmp_path: Path):
    settings = ProcessorSettings(cluster="c", name="one")
    (tmp_path / "log").mkdir()
    async with (
        embedded(ToldSource(), tmp_path / "log", settings, described="nothing") as others,
        serving("127.0.0.1:0", others.health, others.registry) as address,
    ):
        await until("the producer to count", lambda: others.registry.get_sample_value("eastwest_epoch") is not None)
        found = names(await metrics(address))
    enforcer = Standing(world, tmp_path)
    async with serving("127.0.0.1:0", enforcer.health, enforcer.registry) as address:
        found |= names(await metrics(address))

    listed = re.findall(r"^\| `(eastwest_\w+)", (DOCUMENTS / "operations.md").read_text(), re.MULTILINE)
    assert sorted(listed) == sorted(found)
    for document in DOCUMENTS.glob("*.md"):
        assert set(re.findall(r"\beastwest_[a-z_]+", document.read_text())) <= found, document.name


@pytest.mark.netns
async def test_a_pods_connections_are_measured_against_their_limit_as_long_as_it_is_there(world: World, tmp_path: Path):
    async with (
        standing(world, tmp_path) as here,
        serving("127.0.0.1:0", here.health, here.registry) as address,
    ):
        node = here.service.cven.node
        pod = node.pods["uid-web"]
        await until("the Pod to be enforced", lambda: pod.state is PodState.ENFORCED)
        for _ in range(3):
            world.associated("web", "a", 80)
        await look(pod)
        text = await metrics(address)
        assert samples(text, "eastwest_pod_connections") == {("shop", "web"): 3}
        limit = samples(text, "eastwest_pod_connections_limit")["shop", "web"]
        assert samples(text, "eastwest_connection_table_fullest") == {(): 3 / limit}
        assert samples(text, "eastwest_pods")[("enforced",)] == 1
        assert samples(text, "eastwest_sets") == {(): 1}
        assert samples(text, "eastwest_set_members") == {(): 1}
        assert samples(text, "eastwest_patches_total") == {(): 1}
        (line,) = await here.ask_json("pods")
        assert (line["connections"], line["connections_limit"]) == (3, limit)
        assert f"3/{limit:.0f}" in await here.ask("pods")

        node.take_sandboxes({})
        text = await metrics(address)
        assert samples(text, "eastwest_pod_connections") == {}
        assert samples(text, "eastwest_pod_connections_limit") == {}
        assert samples(text, "eastwest_pods")[("enforced",)] == 0
