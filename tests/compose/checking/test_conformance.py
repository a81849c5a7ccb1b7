"""The third-party suites, through log, folds, NATS and the nodes' readers: all steps, all cells."""

import pytest

from tests.components.conformance import conformance_file
from tests.compose.checking.playing_cases import check, summary

pytestmark = [pytest.mark.conformance, pytest.mark.nats, pytest.mark.timeout(300)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("k8s_netpol_cases.jsonl", "cases 48, steps 58, cells 506, wrong 0, unsupported 0"),
        ("cyclonus_cases.jsonl", "cases 230, steps 256, cells 123669, wrong 0, unsupported 0"),
        ("app_cases.jsonl", "cases 17, steps 60, cells 46550, wrong 0, unsupported 0"),
        ("knp_cases.jsonl", "cases 20, steps 20, cells 20, wrong 0, unsupported 0"),
        ("npguard_cases.jsonl", "cases 81, steps 27, cells 7110, wrong 0, unsupported 54"),
        ("npa_cases.jsonl", "cases 69, steps 2, cells 50, wrong 0, unsupported 67"),
        ("selector_vectors.jsonl", "cases 17, steps 17, cells 8045, wrong 0, unsupported 0"),
    ],
)
def test_the_programs_on_the_nodes_agree_in_every_cell(name: str, expected: str) -> None:
    assert summary(check(conformance_file(name))) == expected
