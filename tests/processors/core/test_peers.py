"""Peers of a rule: how those that name addresses become sets."""

import pytest

from processors.core.segmentation.peers import joined, read_block, read_peer
from processors.core.segmentation.selection.selectors import Unreadable


def test_blocks_without_exceptions_are_one_set_and_those_with_some_stay_by_themselves() -> None:
    excepted = read_block({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, "")
    pods = read_peer({"podSelector": {}}, "")
    plain = [read_block({"cidr": cidr}, "") for cidr in ("192.0.2.0/25", "fd00::/8", "192.0.2.128/25", "192.0.2.7/32")]
    peers = [each for each in (plain[0], excepted, *plain[1:], pods) if each is not None]

    found = joined(peers)

    assert found[:2] == [excepted, pods]
    assert [each.definition for each in found[2:]] == ["192.0.2.0/24,fd00::/8"]


def test_the_order_of_blocks_and_saying_one_twice_change_nothing() -> None:
    blocks = [each for cidr in ("192.0.2.0/24", "198.51.100.0/24") if (each := read_block({"cidr": cidr}, ""))]
    assert joined(blocks) == joined([*reversed(blocks), *blocks])


def test_zeros_in_front_of_a_part_say_nothing_as_for_the_api_server() -> None:
    written = read_block({"cidr": "010.000.0.0/8", "except": ["010.01.0.0/16"]}, "")
    assert written == read_block({"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}, "")


@pytest.mark.parametrize(
    "cidr", ["0256.0.0.0/8", "10.0.0/8", "1O.0.0.0/8", "10.0.0.0/", "10.0.0.0/33", "/8", "10.0.0.0/255.0.0.0"]
)
def test_a_block_of_what_is_no_address_is_none(cidr: str) -> None:
    with pytest.raises(Unreadable):
        read_block({"cidr": cidr}, "")
