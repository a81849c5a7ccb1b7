"""What is called like ours, and what is not."""

from enforcers.core import layout


def test_a_chain_is_ours_up_to_the_length_that_iptables_takes() -> None:
    longest = layout.CHAIN_PREFIX + "A" * (28 - len(layout.CHAIN_PREFIX))
    assert layout.is_chain_name(longest)
    assert not layout.is_chain_name(f"{longest}A")


def test_a_set_is_ours_up_to_the_length_that_leaves_room_for_its_temporary() -> None:
    longest = layout.set_name("a" * 22, 6) + layout.TEMPORARY
    assert len(longest) <= 31
    assert layout.is_set_name(longest)
    assert not layout.is_set_name(layout.set_name("a" * 23, 6))
