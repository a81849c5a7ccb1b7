"""What containerd keeps with a sandbox's container, as its CRI part writes it."""

import json
from pathlib import Path
from typing import Any

import pytest

from enforcers.runtimes.containerd import EXTENSION, sandbox_of
from enforcers.runtimes.messages import message_type
from enforcers.runtimes.runtime import Sandbox
from schemas.addresses import pack

METADATA: dict[str, Any] = {
    "ID": "5a9d",
    "Config": {"metadata": {"name": "web", "uid": "u-1", "namespace": "shop"}, "annotations": {"more": "of it"}},
    "NetNSPath": "/var/run/netns/cni-1",
    "IP": "10.244.1.7",
    "AdditionalIPs": ["fd44::7"],
    "RuntimeHandler": "kata",
}


def record(told: bytes) -> Any:
    extension = message_type("Extension")(key=EXTENSION, value=message_type("Any")(value=told))
    created = message_type("Timestamp")(seconds=1_800_000_000, nanos=500_000_000)
    return message_type("ContainerRecord")(id="5a9d", created_at=created, extensions=[extension])


def of_pod(**changes: Any) -> Any:
    return record(json.dumps({"Version": "v1", "Metadata": {**METADATA, **changes}}).encode())


def test_it_says_where_a_pods_network_is_and_who_the_pod_is():
    assert sandbox_of(of_pod()) == Sandbox(
        uid="u-1",
        id="5a9d",
        namespace="shop",
        name="web",
        netns=Path("/run/netns/cni-1"),
        addresses=(pack("10.244.1.7"), pack("fd44::7")),
        handler="kata",
        created_at=1_800_000_000.5,
    )


@pytest.mark.parametrize(
    "changes",
    [{"IP": ""}, {"NetNSPath": ""}, {"NetNSPath": "", "IP": ""}],
    ids=["not addressed yet", "of no namespace", "in the node's network"],
)
def test_a_sandbox_whose_network_is_not_made_is_not_told(changes: dict[str, str]):
    assert sandbox_of(of_pod(**changes)) is None


def test_single_stack_and_the_default_handler_need_not_be_said():
    bare = {name: value for name, value in METADATA.items() if name not in ("AdditionalIPs", "RuntimeHandler")}
    sandbox = sandbox_of(record(json.dumps({"Version": "v1", "Metadata": bare}).encode()))
    assert sandbox is not None
    assert (sandbox.addresses, sandbox.handler) == ((pack("10.244.1.7"),), "")
    assert sandbox_of(of_pod(AdditionalIPs=None)) is not None


@pytest.mark.parametrize(
    "told",
    [b"", b"not JSON", b'{"Version":"v9","Data":{}}', b'{"Metadata":{"Config":{}}}', b'{"Metadata":{"Config":7}}'],
)
def test_what_another_containerd_may_write_there_is_left_to_the_list(told: bytes):
    assert sandbox_of(record(told)) is None


@pytest.mark.parametrize("address", ["10.244.1", "nonsense"])
def test_an_address_that_is_none_is_left_to_the_list(address: str):
    assert sandbox_of(of_pod(IP=address)) is None


def test_a_container_that_is_no_sandbox_is_not_told():
    assert sandbox_of(message_type("ContainerRecord")(id="c")) is None
