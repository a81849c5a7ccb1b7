"""Who is named for a change, and which changes say nothing new."""

import pytest

from enforcers.core.drift.suspicion import Suspicion, is_covered
from enforcers.core.netlink.nftables import Generation


@pytest.mark.parametrize(
    ("number", "right", "covered"),
    [
        (7, 7, True),
        (6, 7, True),
        (8, 7, False),
        (8, -1, False),
        (0xFFFFFFFF, 1, True),
        (1, 0xFFFFFFFF, False),
    ],
)
def test_a_change_says_something_new_where_it_came_after_what_is_known_also_when_numbers_go_round(
    number, right, covered
):
    assert is_covered(Generation(number), right) is covered


def test_only_who_changed_something_since_then_is_named_and_each_once():
    suspicion = Suspicion(0.0)
    suspicion.changes = [
        Generation(4, "ours", 1),
        Generation(5, "nft", 2),
        Generation(6, "nft", 2),
        Generation(7, "x", 3),
    ]

    assert suspicion.processes(4) == ("nft[2]", "x[3]")
    assert suspicion.processes(-1) == ("ours[1]", "nft[2]", "x[3]")
    assert suspicion.processes(7) == ()
