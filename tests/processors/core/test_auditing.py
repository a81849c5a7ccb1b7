"""What of the enforcers' words is written down for audit."""

from processors.core.auditing import Confirmed
from schemas.status import CvenStatus, KubelinkStatus, Latency, PodException


def word(node: str = "n1", *, realized: int = 7, heartbeat: str = "t1", healed: int = 0) -> CvenStatus:
    return CvenStatus(node=node, heartbeat=heartbeat, realized=realized, healed=healed)


def written(confirmed: Confirmed, *words: CvenStatus | KubelinkStatus) -> list[tuple[str, int]]:
    confirmed.hear(words)
    news = confirmed.news
    confirmed.wrote(news)
    return [(each.node, each.realized) for each in news]


def test_a_revision_that_a_node_realized_is_news_once():
    confirmed = Confirmed()
    assert written(confirmed, word("n2"), word("n1")) == [("n1", 7), ("n2", 7)]
    assert written(confirmed, word("n1"), word("n2")) == []
    assert written(confirmed, word("n2", realized=8)) == [("n2", 8)]


def test_a_heartbeat_or_a_latency_is_no_news():
    confirmed = Confirmed()
    written(confirmed, word())
    later = CvenStatus(node="n1", heartbeat="t2", realized=7, latency=Latency(samples=3, p50_ms=1.0))
    assert written(confirmed, later) == []


def test_tampering_and_exceptions_are_news():
    confirmed = Confirmed()
    written(confirmed, word())
    assert written(confirmed, word(healed=1)) == [("n1", 7)]
    exception = PodException(uid="u", namespace="shop", name="web", reason="its namespace vanished")
    assert written(confirmed, CvenStatus(node="n1", heartbeat="t3", realized=7, healed=1, exceptions=(exception,)))


def test_what_came_while_writing_is_still_news_and_what_was_taken_back_is_none():
    confirmed = Confirmed()
    confirmed.hear([word(realized=8)])
    writing = confirmed.news
    confirmed.hear([word(realized=9)])
    confirmed.wrote(writing)
    assert [each.realized for each in confirmed.news] == [9]
    confirmed.hear([word(realized=8, heartbeat="t9")])
    assert confirmed.news == []


def test_only_enforcers_confirm():
    assert written(Confirmed(), KubelinkStatus(name="k", heartbeat="t1")) == []
