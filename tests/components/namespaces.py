"""Working inside a network namespace from this process, by a thread that entered it."""

import asyncio
import concurrent.futures
import ctypes
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def namespace_path(name: str) -> Path:
    """Where iproute2 mounts the namespace called *name*."""
    return Path("/run/netns") / name


def inside_command(name: str | None) -> list[str]:
    """What to put before a command that shall run in namespace *name*; nothing for None, the own one.

    Not ``ip netns exec``: that also mounts another /sys, which hides the cgroups from a kubelet.
    """
    return [] if name is None else ["nsenter", f"--net={namespace_path(name)}", "--"]


async def inside(name: str | None, work: Callable[[], Awaitable[T]]) -> T:
    """Run *work* with its own event loop in a thread within namespace *name*, and return its result; None: just here.

    Every socket it makes, also by threads of its own, belongs to that namespace. (setns(2) moves one thread.)
    """
    if name is None:
        return await work()

    def enter_and_run() -> T:
        handle = os.open(namespace_path(name), os.O_RDONLY | os.O_CLOEXEC)
        try:
            if _libc.setns(handle, _CLONE_NEWNET) != 0:
                raise OSError(ctypes.get_errno(), f"cannot enter network namespace {name}")
        finally:
            os.close(handle)

        async def awaited() -> T:
            return await work()

        return asyncio.run(awaited())

    # A pool of one, used once: the thread must not return to a shared pool from within another namespace.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"inside-{name}") as thread:
        return await asyncio.get_running_loop().run_in_executor(thread, enter_and_run)
