"""`eastwest doctor` says the truth about this machine."""

import json

import pytest
from click.testing import CliRunner

from compose.command import main
from compose.doctor.checks import PROGRAMS
from compose.lab.capability import obstacles
from tests.components.presence import missing


@pytest.mark.netns
def test_a_machine_that_can_enforce_is_told_so_line_by_line():
    if found := obstacles():
        missing("; ".join(item.what for item in found), "; ".join(item.remedy for item in found))

    result = CliRunner().invoke(main, ["doctor", "-o", "json"])

    told = json.loads(result.output)
    assert [finding for finding in told["findings"] if finding["needed"] and not finding["ok"]] == []
    assert told["able"]
    assert result.exit_code == 0


def test_what_is_missing_is_named_with_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    result = CliRunner().invoke(main, ["doctor"])

    assert result.exit_code == 1
    for program, remedy in PROGRAMS.items():
        assert f"missing  {program}" in result.output
        assert remedy in result.output
