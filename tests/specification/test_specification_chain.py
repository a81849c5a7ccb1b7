"""The rules of the semantics again: through log, folds, NATS and readers, and by real packets."""

from pathlib import Path

import pytest

from compose.checking.suites.files import read_cases
from tests.compose.checking.playing_cases import check, summary

FILES = sorted(Path(__file__).parent.glob("*.yaml"))


def everything_right() -> str:
    cases = [case for path in FILES for case in read_cases(path)]
    steps = [step for case in cases for step in case.steps]
    cells = sum(len(step.cells) for step in steps)
    return f"cases {len(cases)}, steps {len(steps)}, cells {cells}, wrong 0, unsupported 0"


@pytest.mark.nats
def test_the_programs_on_the_nodes_agree() -> None:
    assert summary(check(*FILES)) == everything_right()


@pytest.mark.nats
@pytest.mark.netns
@pytest.mark.timeout(900)
@pytest.mark.parametrize("set_backend", ["netlink", "restore"])
@pytest.mark.parametrize("chain_backend", ["netlink", "restore"])
@pytest.mark.parametrize("family", [(), ("-6",)], ids=["4", "6"])
def test_packets_agree(set_backend: str, chain_backend: str, family: tuple[str, ...]) -> None:
    """By either backend for address sets and for rules, and in either family, whatever a case is written in."""
    backends = ("--set-backend", set_backend, "--chain-backend", chain_backend)
    assert summary(check(*FILES, "--engine", "packets", *backends, *family)) == everything_right()
