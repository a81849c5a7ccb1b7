"""Healing is quick while it is rare, and slow where someone else never stops."""

import itertools

from enforcers.core.drift.contest import FIRST_SECONDS, HEALS_PER_MINUTE, LIMIT_SECONDS, MINUTE_SECONDS, Contest


def fought(contest: Contest, heals: int, start: float = 0.0) -> list[float]:
    """The other side answers each heal at once; when each heal took place."""
    now, found = start, []
    for _ in range(heals):
        now += contest.wait(now)
        contest.heal(now)
        found.append(now)
    return found


def test_five_heals_a_minute_are_done_at_once():
    contest = Contest()

    assert fought(contest, HEALS_PER_MINUTE) == [0.0] * HEALS_PER_MINUTE
    assert (contest.contested, contest.wait(0.0)) == (False, 0.0)


def test_one_more_is_a_contest_and_each_round_waits_twice_as_long_up_to_a_limit():
    contest = Contest()

    times = fought(contest, HEALS_PER_MINUTE + 12)

    waits = [after - before for before, after in itertools.pairwise(times)][HEALS_PER_MINUTE:]
    assert contest.contested
    assert waits[:3] == [FIRST_SECONDS, 2 * FIRST_SECONDS, 4 * FIRST_SECONDS]
    assert waits[-1] == LIMIT_SECONDS
    assert waits == sorted(waits)


def test_heals_that_are_spread_over_time_are_no_contest():
    contest = Contest()

    for minute in range(100):
        fought(contest, 4, start=minute * MINUTE_SECONDS)

    assert not contest.contested


def test_a_contest_is_over_after_a_minute_in_which_nothing_was_found():
    contest = Contest()
    last = fought(contest, HEALS_PER_MINUTE + 1)[-1]

    contest.rest(last + MINUTE_SECONDS / 2)
    assert contest.contested
    contest.rest(last + MINUTE_SECONDS)
    assert not contest.contested
    assert fought(contest, HEALS_PER_MINUTE, start=1000.0) == [1000.0] * HEALS_PER_MINUTE
