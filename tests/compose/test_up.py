"""`eastwest up` and who finds it."""

import asyncio
import json
import uuid
from pathlib import Path

import pytest

from compose.demo.story import SHOP
from tests.components.waiting import until
from tests.compose.commands import eastwest, running

pytestmark = [pytest.mark.nats, pytest.mark.timeout(120)]


async def documents(*arguments: str) -> list[dict[str, object]]:
    code, output = await eastwest(*arguments, "-o", "json")
    assert code == 0, output
    found = json.loads(output)
    return found if isinstance(found, list) else [found]


async def test_other_commands_find_what_runs_and_no_longer_when_it_has_ended(tmp_path: Path):
    name = f"t{uuid.uuid4().hex[:8]}"
    arguments = ["up", "--observe", "--manifests", SHOP, "--context", name, "--cluster", "shop", "--data", tmp_path]
    async with running(*arguments, until="complete"):

        async def pods() -> set[object]:
            return {each["name"] for each in await documents("get", "container-workloads", "--context", name)}

        await until("the shop's Pods", pods)
        assert await pods() == {"cache", "cart", "checkout", "orders-db", "storefront", "visitor"}
        assert [each["cluster"] for each in await documents("get", "summary", "--context", name)] == ["shop"]

        code, output = await eastwest(*arguments)
        assert code == 1
        assert f"context '{name}' is in use" in output

    code, output = await eastwest("get", "summary", "--context", name)
    assert code == 2
    assert f"no stack with context '{name}' runs here" in output


async def test_what_is_written_stays_for_the_next_start(tmp_path: Path):
    """The log is the memory: a second start writes an epoch and its marks, and no object anew."""
    name = f"t{uuid.uuid4().hex[:8]}"
    arguments = ["up", "--observe", "--manifests", SHOP, "--context", name, "--cluster", "shop", "--data", tmp_path]
    for _ in range(2):
        async with running(*arguments, until="complete"):
            pass
    (log,) = await asyncio.to_thread(lambda: list(tmp_path.rglob("log.db")))
    code, output = await eastwest("events", "--log", log, "--kind", "Pod", "-o", "json")
    assert code == 0
    assert len(output.splitlines()) == 6


async def test_without_a_runtime_it_says_how_to_observe(tmp_path: Path):
    code, output = await eastwest("up", "--manifests", SHOP, "--runtime", tmp_path / "none.sock")
    assert code == 2
    assert "use --observe" in output


async def test_mistakes_in_settings_of_all_roles_are_told_together(tmp_path: Path):
    config = tmp_path / "eastwest.toml"
    config.write_text('colour = "red"\n[processor]\ntake_over_seconds = "soon"\n[enforcer]\nmark = 3\n')
    code, output = await eastwest("up", "--observe", "--config", config)
    assert code == 2
    for mistake in ("colour", "take_over_seconds", "mark"):
        assert mistake in output


@pytest.mark.apiserver
async def test_a_real_cluster_is_read_by_its_kubeconfig(apiserver, tmp_path: Path):
    namespace, name = f"up-{uuid.uuid4().hex[:8]}", f"t{uuid.uuid4().hex[:8]}"
    await apiserver.api("POST", "/api/v1/namespaces", {"metadata": {"name": namespace}})
    arguments = ["up", "--observe", "--kubeconfig", apiserver.kubeconfig, "--context", name, "--data", tmp_path]
    async with running(*arguments, until="complete"):

        async def profile() -> list[dict[str, object]]:
            return await documents("get", "profiles", namespace, "--context", name)

        assert (await until("the namespace's profile", profile))[0]["namespace"] == namespace
        summary = (await documents("get", "summary", "--context", name))[0]
        assert str(summary["version"]).startswith("v1.")
