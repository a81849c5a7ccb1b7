"""What rarely changes is told when it does, and now and then, since whoever keeps it forgets."""

from enforcers.core.telling import AGAIN_SECONDS, Told
from schemas.status import RuntimeStatus


def test_a_status_is_told_when_it_changed_and_again_before_it_is_forgotten():
    told, one, other = Told(), RuntimeStatus(node="n"), RuntimeStatus(node="n", runtime="containerd 2")

    assert [told.is_news(one, now) for now in (0.0, 1.0, AGAIN_SECONDS - 1)] == [True, False, False]
    assert [told.is_news(one, now) for now in (AGAIN_SECONDS, AGAIN_SECONDS + 1)] == [True, False]
    assert [told.is_news(other, AGAIN_SECONDS + 2), told.is_news(one, AGAIN_SECONDS + 3)] == [True, True]
