"""What a machine must allow for a lab, and how an ordinary user gets it: a user namespace with an own network and /run.

root                       → as it is
anyone else, where allowed → the same command again, as root of a namespace of its own: nothing of the host is there
"""

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from compose.lab import state

PROGRAMS: Final = {
    "ip": "iproute2",
    "bridge": "iproute2",
    "nsenter": "util-linux",
    "iptables-restore": "iptables",
    "ip6tables-restore": "iptables",
    "conntrack": "conntrack",
}
"""Program and the Debian package that has it."""
CAPABILITIES: Final = {"NET_ADMIN": 12, "NET_RAW": 13, "SYS_ADMIN": 21}
INSIDE: Final = "EASTWEST_USER_NAMESPACE"
"""Set in the environment of a command that was started again in its user namespace."""

_ENTER: Final = """
set -e
case "$EASTWEST_RUN_DIRECTORY" in
/run/*)
    kept=$(mktemp -d)
    mkdir -p "$EASTWEST_RUN_DIRECTORY"
    mount --bind "$EASTWEST_RUN_DIRECTORY" "$kept"
    mount -t tmpfs tmpfs /run
    mkdir -p "$EASTWEST_RUN_DIRECTORY"
    mount --bind "$kept" "$EASTWEST_RUN_DIRECTORY"
    umount "$kept"
    rmdir "$kept"
    ;;
*) mount -t tmpfs tmpfs /run ;;
esac
ip link set lo up
exec "$@"
"""
"""A private /run, for namespaces and locks; the state directory shows through, for commands in other terminals. The
loopback of a new network is down, and the embedded world speaks by it."""


class Obstacle(msgspec.Struct, frozen=True, kw_only=True):
    what: str
    remedy: str


class NotCapable(Exception):
    """A lab cannot be made here; *obstacles* says why, and how to mend it."""

    def __init__(self, obstacles: Sequence[Obstacle]) -> None:
        lines = "".join(f"\n  - {item.what}\n    → {item.remedy}" for item in obstacles)
        super().__init__(f"this machine or user cannot make network namespaces:{lines}")
        self.obstacles = tuple(obstacles)


def obstacles() -> list[Obstacle]:
    """What stands between this process and a lab; empty if nothing does."""
    found = _missing_programs()
    held = _effective_capabilities()
    lacking = [name for name, bit in CAPABILITIES.items() if not held >> bit & 1]
    if lacking:
        found.append(Obstacle(what=f"this process lacks {', '.join(lacking)}", remedy="run it as root, with sudo"))
    elif not os.access("/run", os.W_OK):
        found.append(Obstacle(what="/run is read-only", remedy="mount a tmpfs on /run"))
    return found


def ensure_capable(command: Sequence[str] | None = None) -> None:
    """Return if labs can be made here; else become *command* (by default this very one) in a user namespace.

    Call it first of all: nothing that is open or running survives. Raises `NotCapable` where that is not allowed.
    """
    found = obstacles()
    if not found:
        return
    inside = _missing_programs() + user_namespace_obstacles()
    if os.environ.get(INSIDE) or inside:
        raise NotCapable(inside or found)
    directory = state.run_directory()
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    environment = os.environ | {INSIDE: "1", state.RUN_DIRECTORY: str(directory)}
    again = sys.orig_argv if command is None else command
    os.execvpe("unshare", ["unshare", "-Urnm", "--", "sh", "-c", _ENTER, "eastwest-lab", *again], environment)


def user_namespace_obstacles() -> list[Obstacle]:
    """Why an ordinary user cannot have a user namespace here; empty if one can."""
    if shutil.which("unshare") is None:
        return [Obstacle(what="unshare is not installed", remedy="apt install util-linux")]
    tried = subprocess.run(
        ["unshare", "-Urnm", "mount", "-t", "tmpfs", "tmpfs", "/run"], capture_output=True, text=True, check=False
    )
    if tried.returncode == 0:
        return []
    remedies = [
        f"sysctl -w {name.replace('/', '.')}={good}"
        for name, bad, good in (
            ("user/max_user_namespaces", "0", "10000"),
            ("kernel/unprivileged_userns_clone", "0", "1"),
            ("kernel/apparmor_restrict_unprivileged_userns", "1", "0"),
        )
        if _sysctl(name) == bad
    ]
    remedy = "run it as root, with sudo" + "".join(f", or allow user namespaces: {each}" for each in remedies)
    return [Obstacle(what=f"user namespaces are not allowed: {tried.stderr.strip()}", remedy=remedy)]


def join(owner: state.Owner) -> None:
    """Become this same command inside the user namespace of *owner*, if it is in another one than we are.

    Raises `NotCapable` if this user may not enter it.
    """
    theirs = Path(f"/proc/{owner.pid}/ns/user")
    try:
        same = theirs.samefile("/proc/self/ns/user")
    except (PermissionError, FileNotFoundError):
        obstacle = Obstacle(
            what=f"the lab belongs to process {owner.pid}, whose namespaces this user may not enter",
            remedy="run the command as the user who started the lab",
        )
        raise NotCapable([obstacle]) from None
    if not same:
        _enter(owner)


def _enter(owner: state.Owner) -> NoReturn:
    environment = os.environ | {INSIDE: "1", state.RUN_DIRECTORY: str(state.run_directory())}
    entering = ["nsenter", f"--target={owner.pid}", "--user", "--mount", "--net", "--preserve-credentials", "--"]
    os.execvpe("nsenter", [*entering, *sys.orig_argv], environment)


def _missing_programs() -> list[Obstacle]:
    return [
        Obstacle(what=f"{program} is not installed", remedy=f"apt install {package}")
        for program, package in PROGRAMS.items()
        if shutil.which(program) is None
    ]


@functools.cache
def _effective_capabilities() -> int:
    """The effective set as bits (proc(5), ``CapEff``)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1], 16) for line in lines if line.startswith("CapEff:"))


def _sysctl(name: str) -> str:
    try:
        return Path("/proc/sys", name).read_text().strip()
    except FileNotFoundError:
        return ""
