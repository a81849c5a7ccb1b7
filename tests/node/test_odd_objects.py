"""What a real API server accepts, odd as it may be, is understood or named; and everything else goes on."""

import json
from typing import Any

import pytest

from tests.node.fixtures.shop import opened
from tests.node.fixtures.stack import Stack

pytestmark = [pytest.mark.node, pytest.mark.kafka, pytest.mark.nats, pytest.mark.timeout(180)]

WEB = {"matchLabels": {"app": "web"}}
ANYBODY: dict[str, Any] = {"podSelector": {}, "namespaceSelector": {}}


def block(cidr: str, *without: str) -> dict[str, Any]:
    return {"ipBlock": {"cidr": cidr, "except": list(without)}}


EGRESS_OF_FRIEND: dict[str, tuple[Any, bool]] = {
    # name → (egress rules, whether friend reaches web-1:8080 by them)
    "no-rules": ([], False),
    "null-rules": (None, False),
    "an-empty-rule": ([{}], True),
    "an-empty-port": ([{"ports": [{}]}], True),
    "udp-only": ([{"ports": [{"protocol": "UDP"}]}], False),
    "sctp": ([{"ports": [{"protocol": "SCTP", "port": 8080}]}], False),
    "a-range-of-all-ports": ([{"ports": [{"port": 1, "endPort": 65535}]}], True),
    "a-range-beside": ([{"ports": [{"port": 8081, "endPort": 9000}]}], False),
    "a-name-that-nobody-has": ([{"ports": [{"port": "no-such-port"}]}], False),
    "forty-ports": ([{"ports": [{"port": port} for port in range(8061, 8101)]}], True),
    "the-same-peer-twice": ([{"to": [ANYBODY, ANYBODY]}], True),
    "not-in-without-the-key": (
        [{"to": [{"podSelector": {"matchExpressions": [{"key": "no", "operator": "NotIn", "values": ["x"]}]}}]}],
        True,
    ),
    "exists-and-does-not": (
        [
            {
                "to": [
                    {
                        "podSelector": {
                            "matchExpressions": [
                                {"key": "app", "operator": "Exists"},
                                {"key": "app", "operator": "DoesNotExist"},
                            ]
                        }
                    }
                ]
            }
        ],
        False,
    ),
    "everything-but-everything": ([{"to": [block("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1")]}], False),
    "all-of-the-other-family": ([{"to": [block("::/0")]}], False),
    "all-of-both": ([{"to": [block("::/0"), block("0.0.0.0/0")]}], True),
    "host-bits": ([{"to": [block("10.244.1.7/8")]}], True),
    "leading-zeros": ([{"to": [block("010.244.001.0/24", "010.244.001.000/32")]}], True),
    "mapped": ([{"to": [block("::ffff:10.244.0.0/112")]}], True),
    "fifteen-thousand-blocks": (
        [
            {
                "to": [
                    block(f"10.{100 + number // 65536}.{number // 256 % 256}.{number % 256}/32")
                    for number in range(15000)
                ]
            }
        ],
        False,
    ),
}


async def test_odd_policies_are_understood_as_kubernetes_means_them(stack: Stack):
    async with opened(stack, "odd") as shop:
        wrong = []
        for name, (rules, expected) in EGRESS_OF_FRIEND.items():
            policy = shop.policy(f"odd.{name}", {"role": "friend"}, egress=rules)
            await shop.cluster.kubectl("create", "-f", "-", stdin=json.dumps(policy))
            await stack.enforced()
            if await shop.reaches("friend", "web-1:8080", expected=expected) is not expected:
                wrong.append(name)
            await shop.cluster.kubectl("-n", shop.name, "delete", "networkpolicy", f"odd.{name}")
        assert wrong == []
        assert (await stack.get("summary"))["errors"] == []


async def test_the_largest_objects_that_kubernetes_takes_pass(stack: Stack):
    async with opened(stack, "large") as shop:
        text = "ü" * 100_000  # of at most 256 KiB
        policy = shop.policy("x" * 253, {"role": "friend"}, egress=[])
        policy["metadata"]["annotations"] = {"example.com/story": text}
        await shop.cluster.kubectl("create", "-f", "-", stdin=json.dumps(policy))
        await shop.cluster.kubectl(
            "-n", shop.name, "annotate", "pod", "friend", "--overwrite", f"example.com/story={'y' * 100_000}"
        )
        await stack.enforced()
        await shop.obeys("friend -x web-1:8080")
        stored = b"".join(record.value or b"" for record in await stack.records())
        assert "üü".encode() not in stored
        assert b"yyy" not in stored
