"""What a lab leaves on disk while it runs, so that others find it and the next start can clean up a crash.

    <run>/eastwest/lab-<id>/state.json     owner (pid and start time) and plan
                            log.db, nats/  of a lab that enforces (`compose.embedded.lab_cluster`)

A lab whose owner lives is never touched. The directory is there before the first namespace and gone after the last, so
whatever a dead owner left is found by its directory.
"""

import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from compose.lab.plan import PREFIX, Plan

FILE: Final = "state.json"
RUN_DIRECTORY: Final = "EASTWEST_RUN_DIRECTORY"
"""Names the run directory; a command that goes on in a user namespace, where it is another user, hands it on so."""


class Owner(msgspec.Struct, frozen=True, kw_only=True):
    """The process that holds a lab. A pid alone may be given again; with its start time it means one process."""

    pid: int
    started: int
    """Clock ticks after boot."""


class State(msgspec.Struct, frozen=True, kw_only=True):
    owner: Owner
    plan: Plan


def run_directory() -> Path:
    """Where running parts of this user are found: ``$XDG_RUNTIME_DIR``, ``/run`` for root, or else under ``/tmp``."""
    stated = os.environ.get(RUN_DIRECTORY)
    if stated:
        return Path(stated)
    user = os.environ.get("XDG_RUNTIME_DIR")
    if user:
        return Path(user) / "eastwest"
    return Path("/run/eastwest") if os.geteuid() == 0 else Path(f"/tmp/eastwest-{os.geteuid()}")


def start_time(pid: int) -> int | None:
    """When *pid* started, in clock ticks after boot (proc(5), stat field 22); `None` if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = stat.rpartition(")")[2].split()  # the name before it may hold spaces and brackets
    return None if fields[0] in "ZX" else int(fields[19])


def this_process() -> Owner:
    started = start_time(os.getpid())
    assert started is not None
    return Owner(pid=os.getpid(), started=started)


def alive(owner: Owner) -> bool:
    return start_time(owner.pid) == owner.started


def directory_of(lab: str, root: Path) -> Path:
    return root / f"lab-{lab}"


def write(state: State, root: Path) -> None:
    """Put *state* in place of what was there, at once."""
    directory = directory_of(state.plan.lab, root)
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    if root.stat().st_uid != os.geteuid():
        raise PermissionError(f"{root} belongs to someone else")
    new = directory / f"{FILE}.new"
    new.write_bytes(msgspec.json.encode(state))
    new.rename(directory / FILE)


def read(lab: str, root: Path) -> State | None:
    """The state of *lab*; `None` if there is none, or none that can be read."""
    try:
        return msgspec.json.decode((directory_of(lab, root) / FILE).read_bytes(), type=State)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def remove(lab: str, root: Path) -> None:
    shutil.rmtree(directory_of(lab, root), ignore_errors=True)


def labs(root: Path) -> dict[str, State | None]:
    """Every lab with a directory, by name."""
    names = sorted(path.name.removeprefix("lab-") for path in root.glob("lab-*"))
    return {name: read(name, root) for name in names}


def namespace_prefix(lab: str) -> str:
    """What the names of all namespaces of *lab*, and of no other, begin with: a lab's name has no ``-``."""
    return f"{PREFIX}{lab}-"
