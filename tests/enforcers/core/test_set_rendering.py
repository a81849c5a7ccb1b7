"""From address sets to what the kernel holds of them."""

from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcers.core.netlink.ipset_members import runs
from enforcers.core.set_rendering import LEAST_HASH, differences, hash_size, kernel_members
from schemas import addresses
from schemas.sets import SetKind, block, contains, endpoint, set_id

BLOCKS = set_id(SetKind.BLOCKS, "blocks")

NETWORKS = st.sampled_from(
    [ip_network(each) for each in ("0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "10.0.0.0/8", "10.0.0.0/9", "10.0.0.1/32")]
)
HELD = st.frozensets(st.builds(lambda network, exception: block(network, exception=exception), NETWORKS, st.booleans()))


@given(HELD)
def test_the_kernel_holds_each_block_once_and_decides_as_the_set_does(members):
    held = kernel_members(BLOCKS, members)

    assert len({member[:-1] for member in held}) == len(held)
    for address in map(addresses.pack, ("0.0.0.1", "10.0.0.1", "10.0.0.2", "10.128.0.1", "200.0.0.1")):
        assert contains(SetKind.BLOCKS, held, address, 0, 0) == contains(SetKind.BLOCKS, members, address, 0, 0)


@pytest.mark.parametrize("exception", [False, True])
@pytest.mark.parametrize(
    ("everything", "halves"), [("0.0.0.0/0", ("0.0.0.0/1", "128.0.0.0/1")), ("::/0", ("::/1", "8000::/1"))]
)
def test_a_block_of_everything_that_the_kernel_refuses_is_its_halves(everything, halves, exception):
    held = kernel_members(BLOCKS, {block(ip_network(everything), exception=exception)})

    assert held == {block(ip_network(half), exception=exception) for half in halves}


@given(HELD.map(lambda members: kernel_members(BLOCKS, members)), HELD.map(lambda each: kernel_members(BLOCKS, each)))
def test_what_differs_leads_from_what_is_there_to_what_is_wanted_and_never_over_less(there, wanted):
    added, removed = differences(BLOCKS, there, wanted)

    kernel = {member[:-1]: member[-1] for member in there}
    kernel |= {member[:-1]: member[-1] for member in added}  # an exception overwrites its block, or it it
    for member in removed:
        del kernel[member[:-1]]  # whichever it is

    assert {prefix + bytes((flag,)) for prefix, flag in kernel.items()} == wanted


@pytest.mark.parametrize("null", ["0.0.0.0", "::"])
def test_the_null_address_that_the_kernel_refuses_keeps_nothing_else_out(null):
    for which, member, other in (
        (SetKind.ADDRESSES, addresses.pack(null), b"\x0a\0\0\1"),
        (SetKind.TUPLES, endpoint(addresses.pack(null), 6, 80), endpoint(b"\x0a\0\0\1", 6, 80)),
    ):
        assert kernel_members(set_id(which, "s"), {member, other}) == {other}


def test_sets_are_created_with_room_for_what_is_expected():
    assert [hash_size(count) for count in (0, 1, 64, 65, 100_000)] == [LEAST_HASH, LEAST_HASH, 64, 128, 131_072]


def test_a_member_of_another_kind_or_family_is_refused_before_the_kernel_sees_it():
    with pytest.raises(ValueError, match="4 bytes"):
        list(runs(SetKind.ADDRESSES, 4, [b"\x0a\0\0\1", bytes(16)]))
