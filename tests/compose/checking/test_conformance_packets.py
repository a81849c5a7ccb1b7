"""The third-party suites once more, by real packets between real namespaces under a C-VEN per node."""

import pytest

from tests.components.conformance import conformance_file
from tests.compose.checking.playing_cases import check, summary

pytestmark = [pytest.mark.conformance, pytest.mark.netns, pytest.mark.nats, pytest.mark.timeout(900)]


@pytest.mark.parametrize(
    ("name", "only", "expected"),
    [
        ("k8s_netpol_cases.jsonl", "*", "cases 48, steps 58, cells 506, wrong 0, unsupported 0"),
        ("app_cases.jsonl", "*", "cases 17, steps 60, cells 46550, wrong 0, unsupported 0"),
        ("cyclonus_cases.jsonl", "default-run", "cases 112, steps 122, cells 59646, wrong 0, unsupported 0"),
    ],
)
def test_packets_agree_in_every_cell(name: str, only: str, expected: str) -> None:
    done = check(conformance_file(name), "--engine", "packets", "--only", only, within_seconds=800)
    assert summary(done) == expected
