"""A container that edits its own Pod's rules, before enforcers that hold no more than their manifest gives them."""

from typing import Any, Final

import pytest

from schemas.status import DriftKind, Tampering
from tests.components.waiting import until
from tests.node.fixtures.daemonset import DaemonSetStack
from tests.node.fixtures.pods import netns_of, pod_state, rules
from tests.node.fixtures.shop import opened, pod

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]

EDITOR: Final[dict[str, Any]] = {
    "name": "editor",
    "image": "eastwest:0.1.0",  # iptables is in it
    "imagePullPolicy": "Never",
    "command": ["sleep", "infinity"],
    "securityContext": {"runAsUser": 0, "capabilities": {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}},
}
"""It has the Pod's namespaces and none of the node's."""


async def test_what_a_container_changes_of_its_pods_rules_is_put_back_and_told_with_its_process(
    daemonset_stack: DaemonSetStack,
):
    node = daemonset_stack.cluster.nodes[0]
    async with opened(daemonset_stack, "edited") as shop:
        edited = pod("edited", shop.name, node.name, state="edited")
        edited["spec"]["containers"].append(EDITOR)
        only_friend = [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]
        await shop.cluster.apply(edited, shop.policy("edited", {"state": "edited"}, ingress=only_friend))
        await shop.ready()
        await daemonset_stack.enforced()
        place = await netns_of(daemonset_stack, shop, "edited")
        before = rules(place)

        for family, tool in ((4, "iptables-nft"), (6, "ip6tables-nft")):
            flush = ("-w", "-t", "mangle", "-F", "EW-IN-NEW")
            await shop.cluster.kubectl("-n", shop.name, "exec", "edited", "-c", "editor", "--", tool, *flush)

            async def put_back(family: int = family) -> Tampering:
                where = (shop.name, "edited", f"mangle EW-IN-NEW (IPv{family})")
                for each in (await daemonset_stack.cven(node.name)).tampering:
                    objects = {one.object for one in each.differences if one.kind is DriftKind.CHAIN}
                    if (each.namespace, each.name) == where[:2] and where[2] in objects and each.seconds is not None:
                        return each
                raise LookupError(f"{where} is not told")

            told = await until("the node to tell", put_back, within_seconds=20, ignoring=(LookupError,))
            assert any(process.startswith(f"{tool}[") for process in told.processes), told  # heard, not come across
            assert rules(place) == before
            shop.family = family
            await shop.obeys("friend -> edited:8080\nstranger -x edited:8080\nother -x edited:8080")

            told_to_auditors = f"{shop.name}/edited tampered with by {tool}["

            async def logged(words: str = told_to_auditors) -> bool:
                return words in await daemonset_stack.eastwest("events", "--status", "--name", node.name)

            await until("the log of statuses to name it", logged, within_seconds=20)

        assert await pod_state(daemonset_stack, shop, "edited") == "advisory"
