"""What tests of this room share: an embedded log."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from streams.log import Log
from streams.sqlite.sqlite_log import SqliteLogs
from streams.topics import events


@pytest.fixture
async def logs(tmp_path: Path) -> AsyncIterator[SqliteLogs]:
    async with SqliteLogs(tmp_path / "log.db") as opened:
        yield opened


@pytest.fixture
async def log(logs: SqliteLogs) -> Log:
    return await logs.open(events("test"))
