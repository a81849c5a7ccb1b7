"""A real nats-server for tests, which they may stop, kill, start again and rob of its store."""

import shutil

from streams.nats.nats_child import NatsChild


class NatsServer(NatsChild):
    """The product's own child, plus what only tests do to it. `url` stays the same over restarts."""

    async def kill(self) -> None:
        """As if by ``kill -9``."""
        await self.process.kill()

    async def wipe(self) -> None:
        """Lose everything it ever stored. Only while it is down."""
        assert not self.process.running, "wiping the store under a running server would test the file system"
        shutil.rmtree(self.store, ignore_errors=True)
