"""The enforcer as the manifests ship it: a DaemonSet in the project's image, with the capabilities that they name."""

import re

import pytest
import yaml

from tests.node.fixtures.daemonset import NAMESPACE, DaemonSetStack
from tests.node.fixtures.pods import netns_of, rules, sets
from tests.node.fixtures.shop import opened
from tests.node.fixtures.stack import MANIFESTS

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(240)]

CAPABILITIES = {"NET_BROADCAST": 11, "NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}
"""Their numbers: linux/capability.h."""


async def test_it_holds_the_capabilities_that_its_manifest_names_and_no_other(daemonset_stack: DaemonSetStack):
    (document,) = yaml.safe_load_all((MANIFESTS / "50-enforcer.yaml").read_text())
    (container,) = document["spec"]["template"]["spec"]["containers"]
    named = sum(1 << CAPABILITIES[name] for name in container["securityContext"]["capabilities"]["add"])
    for node in daemonset_stack.cluster.nodes:
        status = await daemonset_stack.on(node, "cat", "/proc/1/status")
        held = {kind: int(mask, 16) for kind, mask in re.findall(r"^Cap(\w+):\s+(\w+)$", status, re.MULTILINE)}
        assert (held["Prm"], held["Eff"], held["Bnd"]) == (named, named, named)
        assert re.search(r"^NoNewPrivs:\s+1$", status, re.MULTILINE)
        assert re.search(r"^Seccomp:\s+2$", status, re.MULTILINE)  # a filter


async def test_it_rolls_out_on_every_node_and_reaches_pods_that_are_younger_than_it(daemonset_stack: DaemonSetStack):
    assert set(await daemonset_stack.enforcer_pods()) == {node.name for node in daemonset_stack.cluster.nodes}
    async with opened(daemonset_stack, "younger") as shop:
        await shop.cluster.apply(shop.policy("closed", {"app": "web"}, ingress=[]))
        await daemonset_stack.enforced()
        for node, server in zip(daemonset_stack.cluster.nodes, ("web-1", "web-2"), strict=True):
            place = await netns_of(daemonset_stack, shop, server)
            for command in ("iptables-nft-save", "ip6tables-nft-save"):
                seen = await daemonset_stack.on(node, "nsenter", f"--net={place}", command, "-t", "mangle")
                assert "EW-" in seen
            assert "enforced" in await daemonset_stack.on(node, "eastwest", "node", "pods", "-n", shop.name)
            await daemonset_stack.on(node, "eastwest", "node", "verify")  # fails where anything differs
        await shop.obeys("friend -x web-1:8080 web-2:8080\nfriend -> other:8080")
    assert "Traceback" not in await daemonset_stack.logs()


async def test_a_rolling_restart_leaves_all_rules_standing_and_writes_nothing(daemonset_stack: DaemonSetStack):
    async with opened(daemonset_stack, "rolling") as shop:
        only_friend = [{"from": [{"podSelector": {"matchLabels": {"role": "friend"}}}]}]
        await shop.cluster.apply(shop.policy("web", {"app": "web"}, ingress=only_friend))
        await daemonset_stack.enforced()
        places = [await netns_of(daemonset_stack, shop, name) for name in ("web-1", "web-2")]
        before = [(rules(place), sets(place)) for place in places]
        pods = await daemonset_stack.enforcer_pods()

        daemonset_stack.started()
        await shop.cluster.kubectl("-n", NAMESPACE, "rollout", "restart", "daemonset/enforcer")
        await shop.obeys("friend -> web-1:8080 web-2:8080\nstranger -x web-1:8080 web-2:8080")
        await daemonset_stack.rolled_out()
        await daemonset_stack.enforced()

        assert {each["metadata"]["uid"] for each in (await daemonset_stack.enforcer_pods()).values()}.isdisjoint(
            each["metadata"]["uid"] for each in pods.values()
        )
        assert [(rules(place), sets(place)) for place in places] == before
        for node in daemonset_stack.cluster.nodes:
            assert await daemonset_stack.metric(node, "eastwest_patches_total") == 0
