"""Addresses as texts and as bytes."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import addresses


@given(st.ip_addresses())
def test_an_address_is_packed_and_unpacked_as_the_library_does(address: ipaddress.IPv4Address) -> None:
    assert addresses.unpack(addresses.pack(str(address))) == str(getattr(address, "ipv4_mapped", None) or address)


@pytest.mark.parametrize("text", ["203.0.113.7", "203.000.113.007", "0203.0.113.07", "::ffff:203.0.113.7"])
def test_one_address_is_the_same_bytes_in_every_notation(text: str) -> None:
    assert addresses.pack(text) == bytes((203, 0, 113, 7))


NONE = ("", "None", "10.0.0", "10.0.0.256", "10.0.0.0256", "10.0.0.٣", "10.0.0.1/8", "10.0.0.-1")


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="address"):
        addresses.pack(text)
