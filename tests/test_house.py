"""The rules of the house that a program can check: who may import what, and where things lie."""

import ast
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
ROOMS = ("schemas", "streams", "producers", "processors", "enforcers", "compose")


def test_every_room_knows_only_the_floors_below_and_cores_do_not_wait():
    lint = Path(sys.executable).with_name("lint-imports")
    run = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=100)
    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("room", ROOMS)
def test_no_other_distribution_ships_a_package_of_our_names(room: str):
    assert importlib.metadata.packages_distributions().get(room, ["eastwest"]) == ["eastwest"]


@pytest.mark.parametrize("room", ROOMS)
def test_an_init_file_holds_a_docstring_and_nothing_else(room: str):
    for path in (ROOT / room).rglob("__init__.py"):
        body = ast.parse(path.read_text()).body
        assert len(body) == 1, f"{path.relative_to(ROOT)} holds more than a docstring, or none"
        assert ast.get_docstring(ast.Module(body, [])), f"{path.relative_to(ROOT)} begins with no docstring"


def test_tests_are_no_packages():
    assert list((ROOT / "tests").rglob("__init__.py")) == []


def test_no_file_holds_more_than_one_idea_can_fill():
    files = [path for room in (*ROOMS, "tests") for path in (ROOT / room).rglob("*.py")]
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in files}
    assert [path for path, length in lengths.items() if length > 400] == []
