"""A rule that was read back is known again by what it does, however many packets it has met."""

import struct

import pytest

from enforcers.core.netlink.messages import attribute
from enforcers.core.netlink.nftables import NativeRule, parse_rule
from enforcers.core.netlink.rules import COUNTER, encode

LINE = '-p tcp -m tcp --dport 80 -m set --match-set ew-a-4 src -m comment --comment "ew:0123456789ab:x" -g EW-OK'
CHAINS = {b"EW-IN-NEW\0": "EW-IN-NEW"}
WIDTH = len(attribute(1, bytes(8)))


def told(expressions: bytes, chain: bytes = b"EW-IN-NEW\0") -> bytes:
    """As the kernel lists a rule."""
    place = attribute(1, b"mangle\0") + attribute(2, chain) + attribute(3, struct.pack(">Q", 7))
    return bytes(4) + place + attribute(4, expressions)


def expressions() -> bytes:
    encoded = encode(LINE)
    return encoded.body({"ew-a-4": 1})[len(encoded.compatible) + 4 :]


def read(does: bytes) -> NativeRule:
    found = parse_rule(told(does), CHAINS)
    assert found is not None
    return found


def test_a_rule_is_told_by_its_chain_its_number_and_its_comment():
    found = read(expressions())

    assert (found.chain, found.handle, found.comment) == ("EW-IN-NEW", 7, "ew:0123456789ab:x")
    assert parse_rule(told(expressions(), b"MINE\0"), CHAINS) is None


def test_only_what_it_has_counted_may_differ_in_a_rule_that_was_read_back():
    does = expressions()
    known, counters = read(does).digest, does.index(attribute(1, bytes(8)) + attribute(2, bytes(8)))
    counted = {*range(counters, counters + 2 * WIDTH)}

    changed = {
        place
        for place in range(len(does))
        if read(does[:place] + bytes((does[place] ^ 1,)) + does[place + 1 :]).digest != known
    }

    assert changed == {*range(len(does))} - counted


def test_a_rule_without_a_counter_is_another_one():
    does = expressions()

    assert read(does.replace(COUNTER, b"")).digest != read(does).digest


@pytest.mark.parametrize("length", range(4))
def test_a_rule_that_ends_like_a_counter_is_read_as_any_other(length):
    begun = expressions().replace(COUNTER, b"") + attribute(1, b"counter\0") + bytes(length)

    assert read(begun).digest != read(begun[:-1] + b"\1").digest
