"""Address sets answer as the kernel's would."""

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from schemas.addresses import TCP, pack
from schemas.sets import SetKind, address_of, block, contains, describe, echo, endpoint, here

NETWORKS = st.builds(
    lambda number, prefix: ipaddress.IPv4Network((number << 24, prefix), strict=False),
    st.integers(0, 3),
    st.integers(0, 10) | st.just(32),
) | st.builds(
    lambda number, prefix: ipaddress.IPv6Network((number << 120, prefix), strict=False),
    st.integers(0, 3),
    st.integers(0, 10) | st.just(128),
)
ADDRESSES = st.builds(lambda number: ipaddress.IPv4Address(number << 24), st.integers(0, 4)) | st.builds(
    lambda number: ipaddress.IPv6Address(number << 120), st.integers(0, 4)
)


@given(st.dictionaries(NETWORKS, st.booleans(), max_size=6), ADDRESSES)
def test_the_narrowest_block_around_an_address_decides_and_an_exception_says_no(
    blocks: dict[ipaddress.IPv4Network | ipaddress.IPv6Network, bool],
    address: ipaddress.IPv4Address | ipaddress.IPv6Address,
) -> None:
    around = [network for network in blocks if address in network]
    narrowest = max(around, key=lambda network: network.prefixlen, default=None)
    members = frozenset(block(network, exception=exception) for network, exception in blocks.items())
    expected = narrowest is not None and not blocks[narrowest]
    assert contains(SetKind.BLOCKS, members, address.packed, 6, 80) is expected


def test_echo_is_told_as_what_it_is() -> None:
    members = [echo(pack("10.0.0.1")), echo(pack("fd00::1"))]
    assert [describe(SetKind.TUPLES, each) for each in members] == ["10.0.0.1 echo/ICMP", "fd00::1 echo/ICMPv6"]


def test_the_address_of_a_member_is_what_comes_before_its_port_or_its_length() -> None:
    for family, text in ((4, "10.0.0.0"), (6, "fd00::")):
        address = pack(text)
        tuples, blocks = endpoint(address, TCP, 80), block(ipaddress.ip_network(text))
        members = {SetKind.ADDRESSES: address, SetKind.TUPLES: tuples, SetKind.BLOCKS: blocks}
        assert members.keys() == set(SetKind)
        assert {address_of(kind, member) for kind, member in members.items()} == {address}, f"IPv{family}"


def test_a_tuple_at_every_address_of_the_own_node_reads_as_that() -> None:
    for family, text in ((4, "172.18.0.2"), (6, "fd01::2")):
        member = here(endpoint(ipaddress.ip_address(text).packed, TCP, 30080))
        assert here(member) == member
        assert describe(SetKind.TUPLES, member) == f"own node (IPv{family}):30080/TCP"
