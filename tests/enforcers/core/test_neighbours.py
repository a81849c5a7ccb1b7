"""Who is waited for, by what was said and when."""

from typing import Any

from enforcers.core.neighbours import SILENT_SECONDS, Neighbours
from schemas.status import CvenStatus

SERVER = 1_700_000_000.0
"""Any moment, by the server's clock; the own one began at 0."""


def said(node: str, realized: int, age: float = 0.0, **more: Any) -> tuple[CvenStatus, float]:
    return CvenStatus(node=node, heartbeat="", realized=realized, **more), SERVER - age


def heard(*words: tuple[CvenStatus, float]) -> Neighbours:
    neighbours = Neighbours("own")
    neighbours.take(words, 0.0, complete=True)
    return neighbours


def test_whoever_is_online_and_enforces_is_waited_for_and_the_own_node_is_not():
    neighbours = heard(
        said("own", 1), said("n2", 8), said("n3", 6), said("n4", 0, observing=True), said("n5", 0, paused=True)
    )
    assert neighbours.lacking(6, 0.0) == ()
    assert neighbours.lacking(8, 1.0) == ("n3 has realized 6, not yet 8",)
    neighbours.take([said("n3", 8)], 2.0, complete=False)
    assert neighbours.lacking(8, 2.0) == ()


def test_one_that_is_silent_is_waited_for_no_longer_by_the_clock_of_who_stored_its_word():
    assert heard(said("own", 0), said("n2", 0, age=SILENT_SECONDS - 1)).lacking(5, 0.0)
    assert heard(said("own", 0), said("n2", 0, age=SILENT_SECONDS + 1)).lacking(5, 0.0) == ()

    neighbours = heard(said("own", 0), said("n2", 0))
    neighbours.take([said("own", 0, age=-SILENT_SECONDS - 1)], SILENT_SECONDS + 1, complete=False)
    assert neighbours.lacking(5, SILENT_SECONDS + 1) == (), "n2 has said nothing since"


def test_when_nothing_at_all_is_heard_nobody_counts_as_gone():
    assert heard(said("own", 9), said("n2", 9)).lacking(5, SILENT_SECONDS + 1) == (
        "NATS is silent: what other nodes have realized is not known",
    )


def test_before_everything_was_read_and_after_it_was_forgotten_nothing_is_known():
    neighbours = Neighbours("own")
    assert neighbours.lacking(0, 0.0)
    neighbours.take([said("n2", 5)], 0.0, complete=False)
    assert neighbours.lacking(5, 0.0)
    neighbours.take([], 0.0, complete=True)
    assert neighbours.lacking(5, 0.0) == ()
    neighbours.forget()
    assert neighbours.lacking(5, 1.0)


def test_a_stream_that_was_lost_does_not_make_a_node_realize_more():
    neighbours = heard(said("own", 0), said("n2", 3))
    neighbours.take([said("own", 0)], 1.0, complete=True)
    assert neighbours.lacking(5, 1.0) == ("n2 has realized 3, not yet 5",)


def test_many_that_lag_are_not_all_named():
    assert len(heard(*(said(f"n{number}", 0) for number in range(50))).lacking(5, 0.0)) == 6
