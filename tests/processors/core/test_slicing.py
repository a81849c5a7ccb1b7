"""An export's beginning: the state at any offset, with what follows, folds to what the whole log folds to."""

from hypothesis import given, settings
from hypothesis import strategies as st

from processors.core.cluster_fold import ClusterFold
from processors.core.policy_fold import PolicySettings
from processors.core.slicing import StateAt
from tests.processors.core.messy_logs import Record, steps, written


def folded(records: list[Record]) -> tuple[object, ...]:
    fold = ClusterFold("test", PolicySettings())
    fold.advance(records)
    return fold.policy(), fold.inventory.take_changes(), fold.complete, fold.epoch


@settings(deadline=None)
@given(steps, st.integers(0, 60))
def test_the_state_at_any_offset_with_what_follows_folds_to_what_the_whole_log_does(history, cut):
    records = written(history)
    state: StateAt[Record] = StateAt()
    state.advance([record for record in records if record.offset < cut])
    sliced = [*state.records(), *(record for record in records if record.offset >= cut)]
    assert [record.offset for record in sliced] == sorted({record.offset for record in sliced})
    assert folded(sliced) == folded(records)


def test_the_version_that_stands_is_in_it_where_the_newest_ones_selector_cannot_be_read():
    records = written([("put", "a", 1, "u1", False), ("policy",), ("bad selector",), ("bad selector",)])
    state: StateAt[Record] = StateAt()
    state.advance(records)
    assert [record.offset for record in state.records()] == [records[0].offset, 2, 4, records[-1].offset]
    fold = ClusterFold("test", PolicySettings())
    fold.advance(state.records())
    (program,) = fold.policy().programs.values()
    assert program.ingress is not None


def test_what_was_superseded_or_deleted_is_not_in_it():
    records = written([("put", "a", 1, "u1", False), ("put", "a", 2, "u1", False), ("put", "b", 3, "u1", False)])
    records += [Record(100, "Pod/shop/b", None)]
    state: StateAt[Record] = StateAt()
    state.advance(records)
    assert [record.key for record in state.records()] == ["Epoch/-/-", "Pod/shop/a"]
