"""The third-party suites once more, by real packets between real namespaces under a C-VEN per node.

Each backend for address sets and each address family plays some; ``PACKETS=all`` lets all play everything. Rules go by
the tool, as they do by themselves, and once by netlink.
"""

import itertools
import os

import pytest

from tests.components.conformance import conformance_file
from tests.compose.checking.playing_cases import check, summary

pytestmark = [pytest.mark.conformance, pytest.mark.netns, pytest.mark.nats, pytest.mark.timeout(900)]

KUBERNETES = ("k8s_netpol_cases.jsonl", "*", "cases 48, steps 58, cells 506, wrong 0, unsupported 0")
APPLICATIONS = ("app_cases.jsonl", "*", "cases 17, steps 60, cells 46550, wrong 0, unsupported 0")
CYCLONUS = ("cyclonus_cases.jsonl", "default-run", "cases 112, steps 122, cells 59646, wrong 0, unsupported 0")
CHANGES = ("cyclonus_cases.jsonl", "action", "cases 7, steps 18, cells 9102, wrong 0, unsupported 0")
"""Those of its cases in which Pods, labels and policies come, change and go: what address sets are about."""

EVERYTHING = [
    (*how, suite)
    for *how, suite in itertools.product(("netlink", "restore"), (4, 6), (KUBERNETES, APPLICATIONS, CYCLONUS))
]
SOME = [
    ("netlink", 4, KUBERNETES),
    ("netlink", 4, APPLICATIONS),
    ("netlink", 4, CYCLONUS),
    ("restore", 4, KUBERNETES),
    ("restore", 6, CHANGES),
    ("netlink", 6, KUBERNETES),
]


def played(suite: tuple[str, str, str], *options: str) -> None:
    name, only, expected = suite
    given = ("--engine", "packets", *options, "--only", only)
    assert summary(check(conformance_file(name), *given, within_seconds=800)) == expected


@pytest.mark.parametrize(
    ("backend", "family", "suite"),
    EVERYTHING if os.environ.get("PACKETS") == "all" else SOME,
    ids=lambda value: value[0].removesuffix("_cases.jsonl") if isinstance(value, tuple) else None,
)
def test_packets_agree_in_every_cell(backend: str, family: int, suite: tuple[str, str, str]) -> None:
    played(suite, "--set-backend", backend, *(["-6"] if family == 6 else []))


@pytest.mark.parametrize("suite", [KUBERNETES, CYCLONUS], ids=["k8s_netpol", "cyclonus"])
def test_packets_agree_in_every_cell_where_rules_go_by_netlink(suite: tuple[str, str, str]) -> None:
    played(suite, "--chain-backend", "netlink")
