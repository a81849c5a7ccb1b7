"""The nats-server of the embedded world: private, and gone with its parent."""

import asyncio
import os
import sys
from pathlib import Path

import pytest

from streams.child_process import ChildEnded
from streams.nats.nats_child import NatsChild
from tests.components.nats_server import NatsServer
from tests.components.waiting import until

pytestmark = pytest.mark.nats


async def test_nats_is_closed_to_whom_it_gave_no_token(nats: NatsServer):
    reader, writer = await asyncio.open_connection("127.0.0.1", nats.port)
    writer.write(b'CONNECT {"verbose":false}\r\nPING\r\n')
    answer = await asyncio.wait_for(reader.read(), 10)  # until the server hangs up
    writer.close()
    assert b"Authorization Violation" in answer
    assert b"PONG" not in answer


async def test_a_nats_child_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PARENT, str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    child = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    os.kill(child, 0)

    parent.kill()
    await parent.wait()
    await until("the orphan to be gone", lambda: not Path(f"/proc/{child}/exe").exists())


_PARENT = """
import asyncio, pathlib, sys
from streams.nats.nats_child import NatsChild
async def main():
    async with NatsChild(pathlib.Path(sys.argv[1])) as child:
        print(child.process.pid, flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_a_nats_child_that_cannot_start_says_why(tmp_path: Path, nats: NatsServer):
    with pytest.raises(ChildEnded, match="address already in use"):
        await NatsChild(tmp_path, port=nats.port).start()


async def test_its_secret_is_readable_by_its_user_only(nats: NatsServer):
    assert nats.folder.joinpath("nats-server.conf").stat().st_mode & 0o077 == 0
