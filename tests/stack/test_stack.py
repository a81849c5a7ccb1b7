"""The compose file, for real: up, healthy, events in, reports and programs out, each service killed, down."""

import asyncio
import json
from typing import Any

import pytest

from tests.components.waiting import until
from tests.stack.compose_project import ComposeProject

pytestmark = [pytest.mark.docker, pytest.mark.timeout(600)]

SERVICES = {"kafka", "nats", "capture", "processor", "enforcer"}
PODS = {"cache", "cart", "checkout", "orders-db", "storefront", "visitor"}


def documents(stack: ComposeProject, *arguments: str) -> Any:
    return json.loads(stack.eastwest(*arguments, "-o", "json"))


async def test_the_stack_comes_up_healthy_and_turns_events_into_reports_and_programs(stack: ComposeProject):
    await stack.until_healthy(SERVICES)

    async def published() -> Any:
        found = documents(stack, "get", "programs")
        return found if {each["name"] for each in found["programs"]} >= PODS else None

    programs = await until("the programs of the capture", published, within_seconds=30, poll_seconds=1)
    cart = next(each for each in programs["programs"] if each["name"] == "cart")
    assert cart["ingress"]["isolating"] == ["NetworkPolicy/shop/default-deny", "NetworkPolicy/shop/from-storefront"]

    assert {each["name"] for each in documents(stack, "get", "container-workloads")} == PODS
    assert {each["name"] for each in documents(stack, "get", "virtual-services")} == {"cart", "orders-db"}
    assert {each["namespace"] for each in documents(stack, "get", "profiles")} == {"web", "shop", "data"}
    assert len(documents(stack, "get", "workloads")) == 2
    assert documents(stack, "get", "summary")["cluster"] == "shop"
    assert "NetworkPolicy" in stack.eastwest("events", "--kind", "NetworkPolicy")


@pytest.mark.parametrize("service", ["processor", "capture", "enforcer", "nats", "kafka"])
async def test_a_killed_service_comes_back_and_nothing_is_lost(stack: ComposeProject, service: str):
    await stack.until_healthy(SERVICES)
    before = documents(stack, "get", "programs")
    container = stack.containers()[service]
    stack.docker("kill", "--signal", "KILL", container["Id"])
    stack.docker("start", container["Id"])
    await stack.until_healthy(SERVICES)

    async def same() -> bool:
        return bool(documents(stack, "get", "programs") == before)

    await until(
        f"the same programs after {service} was killed",
        same,
        within_seconds=60,
        poll_seconds=1,
        ignoring=(AssertionError,),
    )


async def test_services_run_with_no_more_than_they_need(stack: ComposeProject):
    await stack.until_healthy(SERVICES)
    for service, container in stack.containers().items():
        host = container["HostConfig"]
        assert not host["Privileged"], service
        assert host["Memory"], f"{service} has no memory limit"
        if service not in ("kafka", "nats"):
            assert host["CapDrop"] == ["ALL"], service
            assert host["ReadonlyRootfs"], service
    added = set(stack.containers()["enforcer"]["HostConfig"]["CapAdd"])
    assert added == {"NET_ADMIN", "SYS_ADMIN", "NET_RAW", "NET_BROADCAST"}


async def test_down_leaves_nothing(stack: ComposeProject):
    """Last in this file: the project is up again for nobody."""
    await stack.until_healthy(SERVICES)
    await asyncio.to_thread(stack.run, "--profile", "demo", "down", "-v", "--timeout", "10")
    assert stack.docker("ps", "-aq") == ""
    assert stack.docker("volume", "ls", "-q") == ""
    assert stack.name not in stack.docker("network", "ls")
