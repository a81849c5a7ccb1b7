"""What is said of real Pods: enforced only where nobody inside can edit their rules or send packets past them."""

from collections import Counter
from typing import Any, Final

import pytest

from tests.components.waiting import until
from tests.node.fixtures.shop import opened, pod
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]

EXPECTED: Final = {
    # name → (what its container may, what is said of it, whether raw packets may pass its rules)
    "usual": ({}, "enforced", True),
    "plain": ({"capabilities": {"drop": ["ALL"]}}, "enforced", False),
    "editor": ({"capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN"]}}, "advisory", False),
}


def allowed(name: str, namespace: str, node: str, context: dict[str, Any]) -> dict[str, Any]:
    found = pod(name, namespace, node, state="told")
    found["spec"]["containers"][0]["securityContext"] = context
    return found


async def test_rights_of_containers_decide_what_is_said_and_the_summary_counts_it(stack: Stack):
    async with opened(stack, "states") as shop:
        node = stack.cluster.nodes[0].name
        await shop.cluster.apply(
            shop.policy("told", {"state": "told"}, ingress=[]),
            *(allowed(name, shop.name, node, context) for name, (context, _, _) in EXPECTED.items()),
        )
        for name in EXPECTED:
            await shop.cluster.kubectl("-n", shop.name, "wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
        await stack.enforced()

        async def said() -> dict[str, tuple[str, bool]]:
            found = await stack.get("container-workloads", "-n", shop.name, "-l", "state=told")
            told = {each["name"]: each["status"] for each in found if each["status"]}
            return {name: (each["state"], each.get("bypassable", False)) for name, each in told.items()}

        wanted = {name: (state, bypassable) for name, (_, state, bypassable) in EXPECTED.items()}

        async def as_expected() -> bool:
            return await said() == wanted

        await until("what is said of them", as_expected, within_seconds=20)

        async def counted() -> bool:
            """Of all Pods there are: those of other tests may still be leaving."""
            told = [each["status"] for each in await stack.get("container-workloads") if each["status"]]
            status = (await stack.get("summary"))["status"]
            states = Counter(each["state"] for each in told)
            bypassable = sum(each.get("bypassable", False) for each in told)
            return (
                all(status["pods"].get(state, 0) == states[state] > 0 for state in ("enforced", "advisory"))
                and status["bypassable"] == bypassable > 0
            )

        await until("the summary to count them", counted, within_seconds=20)
