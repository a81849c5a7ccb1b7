"""Every NetworkPolicy case of the third-party suites, all steps, all cells, through reader, fold and interpreter."""

import json

import pytest

from compose.checking.suites.files import read_cases
from processors.core.segmentation.selection.selectors import Unreadable, read_selector
from tests.components.conformance import SUITES, conformance_file
from tests.specification.playing import wrong

pytestmark = pytest.mark.conformance

UNSUPPORTED = {"npa": 67, "npguard": 54}
"""Cases that need policy tiers, by suite: counted, so that none is passed over unseen."""


@pytest.mark.parametrize("suite", SUITES)
def test_every_cell_of_the_suite_is_as_it_says(suite: str) -> None:
    cases = list(read_cases(conformance_file(f"{suite}_cases.jsonl")))
    judged = [case for case in cases if not case.unsupported]
    assert judged
    assert len(cases) - len(judged) == UNSUPPORTED.get(suite, 0)
    assert [line for case in judged for line in wrong(case)] == []


def test_selectors_match_what_kubernetes_own_do() -> None:
    """A selector that is null, or that cannot be read, matches nothing."""
    with conformance_file("selector_vectors.jsonl").open() as lines:
        vectors = [json.loads(line) for line in lines]
    assert len(vectors) > 4000
    assert [vector for vector in vectors if matches(vector["selector"], vector["labels"]) != vector["match"]] == []


def matches(selector: object, labels: dict[str, str] | None) -> bool:
    if selector is None:
        return False
    try:
        return read_selector(selector, "selector").matches(labels or {})
    except Unreadable:
        return False
