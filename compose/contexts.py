"""How a command finds the stack it speaks to.

--kafka, --log, --nats, --cluster     beats
EASTWEST_KAFKA, …                     beats
the runtime file that `eastwest up` writes, chosen by --context where several run here
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from msgspec.structs import replace

from compose.lab.state import RUN_DIRECTORY, start_time

DEFAULT: Final = "default"


class Context(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A running stack, or a part of one: where its log and its bus are."""

    name: str = DEFAULT
    cluster: str = "default"
    kafka: str = ""
    """Kafka's bootstrap servers; empty for the embedded log."""
    log: str = ""
    """File of the embedded log."""
    nats: str = ""
    """URL of the NATS server; may carry its token, so the file is readable by its owner only."""
    pid: int = 0
    """Process that runs it; 0: none of this machine."""
    started: int = 0
    """When that process started (`compose.lab.state.start_time`): its pid may be given again."""


class NoContext(LookupError):
    """It cannot be said which stack is meant."""

    def __init__(self, wanted: str | None, running: list[str]) -> None:
        if wanted:
            reason = f"no stack with context {wanted!r} runs here"
        elif running:
            reason = "several stacks run here; choose one by --context"
        else:
            reason = "no stack runs here: start one by `eastwest up`, or name it by --nats and --kafka (or --log)"
        super().__init__(reason + (f" (running: {', '.join(running)})" if running else ""))
        self.wanted = wanted
        self.running = running


def runtime_folder() -> Path:
    """Where runtime files are: where the variable says, below ``/run/eastwest`` for root, else below the user's own."""
    if stated := os.environ.get(RUN_DIRECTORY):
        return Path(stated) / "contexts"
    if os.geteuid() == 0:
        return Path("/run/eastwest/contexts")
    if folder := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(folder) / "eastwest" / "contexts"
    return Path.home() / ".local" / "state" / "eastwest" / "contexts"


@contextmanager
def announced(context: Context, folder: Path | None = None) -> Iterator[Path]:
    """Let other commands find *context* while inside; readable by its owner only.

    First removes what processes left that were killed. Raises FileExistsError, naming the process, where a running one
    has the same name.
    """
    folder = folder or runtime_folder()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    for left in folder.iterdir():
        found, writer = _read(left), left.suffix.removeprefix(".")
        if (found is not None and not _runs(found)) or (writer.isdigit() and start_time(int(writer)) is None):
            left.unlink(missing_ok=True)
    context = replace(context, started=start_time(context.pid) or 0)
    file = folder / f"{as_file_name(context.name)}.json"
    if (other := _read(file)) is not None and other.pid != context.pid and _runs(other):
        raise FileExistsError(f"context {context.name!r} is in use by process {other.pid}; choose another by --context")
    # Written beside and renamed: a reader sees it whole or not at all.
    fresh = file.with_suffix(f".{os.getpid()}")
    fresh.touch(mode=0o600)
    fresh.write_bytes(msgspec.json.encode(context))
    fresh.rename(file)
    try:
        yield file
    finally:
        file.unlink(missing_ok=True)


def running(folder: Path | None = None) -> list[Context]:
    """Every stack that runs here, by name. Files of processes that ended without a word are passed over."""
    found = (_read(file) for file in sorted((folder or runtime_folder()).glob("*.json")))
    return [context for context in found if context is not None and _runs(context)]


def find(name: str | None = None, folder: Path | None = None) -> Context:
    """The stack named *name*, or the only one, or the one named ``default``. Raises `NoContext`."""
    contexts = {context.name: context for context in running(folder)}
    if name is None and len(contexts) == 1:
        return next(iter(contexts.values()))
    if (found := contexts.get(name or DEFAULT)) is None:
        raise NoContext(name, sorted(contexts))
    return found


def as_file_name(name: str) -> str:
    """*name* as one part of a path: kubeconfig contexts are called things like ``admin@dev`` and ``eks/prod``."""
    return quote(name, safe="@:").replace(".", "%2E")


def _read(file: Path) -> Context | None:
    try:
        return msgspec.json.decode(file.read_bytes(), type=Context)
    except (FileNotFoundError, msgspec.MsgspecError):
        return None


def _runs(context: Context) -> bool:
    return context.pid == 0 or start_time(context.pid) == context.started
