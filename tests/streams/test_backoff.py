from streams.backoff import Backoff


def test_delays_double_up_to_the_limit_and_begin_again_after_a_success() -> None:
    backoff = Backoff(first_seconds=0.1, limit_seconds=1.0, uniform=lambda _low, high: high)

    assert [backoff.delay() for _ in range(6)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]
    backoff.reset()
    assert backoff.delay() == 0.1


def test_chance_takes_at_most_half_of_a_delay() -> None:
    backoff = Backoff(first_seconds=0.1, limit_seconds=1.0, uniform=lambda low, _high: low)

    assert [backoff.delay() for _ in range(3)] == [0.05, 0.1, 0.2]


def test_a_client_that_failed_for_weeks_still_waits_the_limit() -> None:
    backoff = Backoff(limit_seconds=5.0, uniform=lambda _low, high: high)
    backoff.attempts = 1_000_000

    assert backoff.delay() == 5.0


async def test_waiting_sleeps_for_the_delay() -> None:
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    backoff = Backoff(first_seconds=0.1, uniform=lambda _low, high: high, sleep=sleep)
    await backoff.wait()
    await backoff.wait()

    assert slept == [0.1, 0.2]
