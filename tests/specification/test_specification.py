"""The rules of the semantics, each as a case that reads like its sentence."""

from pathlib import Path

import pytest

from compose.checking.suites.cases import Case
from compose.checking.suites.files import read_cases
from tests.specification.playing import wrong

CASES = [case for path in sorted(Path(__file__).parent.glob("*.yaml")) for case in read_cases(path)]


@pytest.mark.parametrize("case", CASES, ids=[f"{case.id} {case.name}" for case in CASES])
def test_the_interpreter_agrees(case: Case) -> None:
    assert wrong(case) == []
