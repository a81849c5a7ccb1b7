"""A Debian base as an archive, from Debian's own archive by debootstrap: a minute, then kept."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

RELEASE: Final = "bookworm"
PYTHON: Final = "3.11"
"""The release's own."""
PACKAGES: Final = ("ca-certificates", "ipset", "iptables", "python3", "python3-venv", "wget")
"""What the Dockerfile would otherwise install."""
LEFT_OUT: Final = ("usr/share/locale", "usr/share/man", "var/cache/apt", "var/lib/apt/lists")


class Unobtainable(Exception):
    """Something that an image needs cannot be made here, and why."""


def cache_root() -> Path:
    """What is dear to make is kept here, outside the tree: ``$XDG_CACHE_HOME/eastwest``, or ``~/.cache/eastwest``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "eastwest"


def debian_base(packages: Iterable[str] = PACKAGES) -> Path:
    """An archive of a root file system with *packages*; another recipe is another file. Raises `Unobtainable`."""
    packages = sorted(packages)
    recipe = hashlib.sha256("\n".join([RELEASE, *packages, *LEFT_OUT]).encode()).hexdigest()[:12]
    archive = cache_root() / f"debian-{recipe}.tar"
    if not archive.exists():
        if os.geteuid() != 0:
            raise Unobtainable("debootstrap needs root")
        if shutil.which("debootstrap") is None:
            raise Unobtainable("debootstrap is not installed")
        archive.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="eastwest-debian-") as work:
            _bootstrap(packages, Path(work) / "tree", archive)
    return archive


def _bootstrap(packages: Sequence[str], tree: Path, archive: Path) -> None:
    run(["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", RELEASE, tree])
    for each in LEFT_OUT:
        shutil.rmtree(tree / each, ignore_errors=True)
    unfinished = archive.with_suffix(f".{os.getpid()}")  # two at once: the last one stays, and they are alike
    run(["tar", "--numeric-owner", "-C", tree, "-cf", unfinished, "."])
    unfinished.replace(archive)


def run(command: Sequence[str | Path]) -> None:
    """Raises `Unobtainable` with the last of its own words where *command* fails."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise Unobtainable(f"{' '.join(map(str, command))} failed: {(done.stdout + done.stderr).strip()[-2000:]}")
