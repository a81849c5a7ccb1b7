"""The whole fold, policy and inventory together."""

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.core.cluster_fold import ClusterFold
from processors.core.policy_fold import PolicySettings
from schemas.reports import AnyReport
from tests.processors.core.messy_logs import steps, written


@settings(deadline=None)
@given(steps, st.lists(st.booleans(), min_size=30, max_size=30))
def test_reports_taken_on_the_way_add_up_to_those_taken_at_the_end(history, takings):
    records = written(history)
    whole = ClusterFold("test", PolicySettings())
    whole.advance(records)
    expected = whole.inventory.take_changes()

    fold, state = ClusterFold("test", PolicySettings()), dict[str, AnyReport]()
    for record, taking in zip(records, takings, strict=False):
        fold.advance([record])
        if taking:
            apply(state, fold.inventory.take_changes())
    apply(state, fold.inventory.take_changes())
    assert state == expected
    assert fold.policy() == whole.policy()


def apply(state: dict[str, AnyReport], changes: dict[str, AnyReport | None]) -> None:
    for key, report in changes.items():
        if report is None:
            del state[key]
        else:
            state[key] = report
