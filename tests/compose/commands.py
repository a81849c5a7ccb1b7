"""Running `eastwest` as a user does: as a process, in another terminal."""

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

EASTWEST = str(Path(sys.executable).with_name("eastwest"))


async def eastwest(*arguments: str | Path) -> tuple[int, str]:
    """Run to the end; return its exit code and all that it printed."""
    process = await _start(arguments)
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, output.decode()


@asynccontextmanager
async def running(*arguments: str | Path, until: str) -> AsyncGenerator[asyncio.subprocess.Process]:
    """Run in the background from when it has printed *until*; ended as by Ctrl-C, which has to succeed."""
    process = await _start(arguments)
    assert process.stdout is not None
    try:
        heard = b""
        async with asyncio.timeout(60):
            while until.encode() not in heard:
                line = await process.stdout.readline()
                heard += line
                assert line, f"ended before it said {until!r}: {heard.decode()}"
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0


async def _start(arguments: tuple[str | Path, ...]) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        EASTWEST, *map(str, arguments), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
