"""The same log gives the same bytes, in any process."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]

PRINT_DIGEST = """
import hashlib
from pathlib import Path

import msgspec

from compose.checking.suites.files import read_cases
from schemas.policy import PolicyChange
from tests.specification.playing import Stage

digest = hashlib.sha256()
for path in sorted(Path("tests/specification").glob("*.yaml")):
    for case in read_cases(path):
        stage = Stage(case)
        for step in case.steps:
            change = stage.write(stage.history.entries(step.actions)).change
            digest.update(msgspec.msgpack.encode(change.programs))
            for item in change.sets:
                digest.update(msgspec.msgpack.encode((item.id, sorted(item.added), sorted(item.removed), item.gone)))
            digest.update(msgspec.msgpack.encode(change.gone))
print(digest.hexdigest())
"""


def test_programs_and_sets_do_not_depend_on_how_a_process_hashes() -> None:
    digests = set()
    for seed in ("0", "1", "4711"):
        run = subprocess.run(
            [sys.executable, "-c", PRINT_DIGEST],
            cwd=ROOT,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            check=True,
            timeout=100,
        )
        digests.add(run.stdout)
    assert len(digests) == 1
