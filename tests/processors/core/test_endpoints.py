"""Which endpoints count, against what kube-proxy does node by node (KEP-1669, KEP-2086)."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.core.segmentation.virtual_addresses.services import Services
from schemas import addresses, sets
from schemas.addresses import TCP
from schemas.objects import EndpointSlice, Service, decode_object
from tests.processors.core.worlds import Object, endpoints

NODES = ("n1", "n2", "n3")
ADDRESSES = tuple(f"10.0.0.{number}" for number in range(1, 7))


def behind(found: list[Object], port: Object | None = None, **spec: Any) -> set[str]:
    """The addresses behind the one port of a Service with *found* as its endpoints, in a slice with that *port*."""
    services = Services()
    front = {"clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}], **spec}
    one = {"metadata": {"name": "web", "namespace": "shop"}, "spec": front}
    labels = {"kubernetes.io/service-name": "web"}
    part = {
        "metadata": {"name": "web-1", "namespace": "shop", "labels": labels},
        "addressType": "IPv4",
        "endpoints": found,
        "ports": [port or {"port": 80}],
    }
    service = decode_object("Service", msgspec.json.encode(one))
    entry = decode_object("EndpointSlice", msgspec.json.encode(part))
    assert isinstance(service, Service)
    assert isinstance(entry, EndpointSlice)
    services.put_service(("shop", "web"), service)
    services.put_slice(("shop", "web-1"), entry)
    return {addresses.unpack(target.address) for target in services.view(("shop", "web")).targets}


def is_ready(endpoint: Object) -> bool:
    return endpoint["conditions"].get("ready") in (None, True)


def serves_to_the_end(endpoint: Object) -> bool:
    serving = endpoint["conditions"].get("serving")
    serving = is_ready(endpoint) if serving is None else serving
    return serving and bool(endpoint["conditions"].get("terminating"))


def chosen(found: list[Object]) -> set[str]:
    """The ready ones, else those that serve to their end."""
    ready = [endpoint for endpoint in found if is_ready(endpoint)]
    return {each["addresses"][0] for each in ready or filter(serves_to_the_end, found)}


@given(st.lists(endpoints(ADDRESSES), max_size=6))
def test_all_nodes_choose_among_the_same_endpoints(found: list[Object]) -> None:
    assert behind(found) == chosen(found)


@given(st.lists(endpoints(ADDRESSES), max_size=6), st.sampled_from(("internalTrafficPolicy", "externalTrafficPolicy")))
def test_where_a_traffic_policy_is_local_every_endpoint_counts_that_some_node_uses(
    found: list[Object], which: str
) -> None:
    by_node = [chosen([each for each in found if each["nodeName"] == node]) for node in NODES]
    assert behind(found, **{which: "Local"}) == chosen(found).union(*by_node)


def test_hints_only_ever_narrow_what_is_ready() -> None:
    hinted = {"addresses": ["10.0.0.1"], "conditions": {}, "hints": {"forZones": [{"name": "west"}]}}
    assert behind([hinted, {"addresses": ["10.0.0.2"], "conditions": {}}]) == {"10.0.0.1", "10.0.0.2"}


@pytest.mark.parametrize("unreadable", ["nowhere", "10.0.0.999", ""])
def test_an_endpoint_that_cannot_be_read_shuts_the_door(unreadable: str) -> None:
    assert behind([{"addresses": ["10.0.0.1"]}, {"addresses": [unreadable]}]) == set()


def test_of_an_endpoint_the_first_address_counts() -> None:
    assert behind([{"addresses": ["10.0.0.1", "10.0.0.2"]}]) == {"10.0.0.1"}


@pytest.mark.parametrize("port", [{"port": 80, "protocol": "UDP"}, {"port": 80, "name": "other"}, {"port": None}])
def test_a_slice_stands_behind_a_port_of_its_name_and_protocol_and_with_a_number(port: Object) -> None:
    assert behind([{"addresses": ["10.0.0.1"]}], port) == set()


def test_a_service_that_is_a_name_has_nothing_behind_it_whatever_address_it_kept() -> None:
    assert behind([{"addresses": ["10.0.0.1"]}], type="ExternalName") == set()


@pytest.mark.parametrize(("address", "found"), [("10.96.0.1", {"10.0.0.1"}), ("None", set()), ("", set())])
def test_a_service_may_name_a_single_address(address: str, found: set[str]) -> None:
    assert behind([{"addresses": ["10.0.0.1"]}], clusterIPs=None, clusterIP=address) == found


def test_an_external_address_with_zeros_in_front_is_virtual_as_kube_proxy_reads_it() -> None:
    """Else a rule about blocks would open it."""
    services = Services()
    spec = {"clusterIPs": ["10.96.0.1"], "externalIPs": ["203.000.113.007"], "ports": [{"port": 80}]}
    found = {"metadata": {"name": "web", "namespace": "shop"}, "spec": spec}
    service = decode_object("Service", msgspec.json.encode(found))
    assert isinstance(service, Service)
    services.put_service(("shop", "web"), service)
    (door,) = services.view(("shop", "web")).doors
    assert door.outer == {sets.endpoint(addresses.pack("203.0.113.7"), TCP, 80)}
