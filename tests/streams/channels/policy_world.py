"""Owners, enforcers and a network with faults, for tests of the policy stream on a real nats-server."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from schemas.policy import Policy
from schemas.programs import Direction, Program, Rule
from schemas.sets import SetKind, set_id
from streams.channels.policy_reader import PolicyReader
from streams.channels.policy_writer import PolicyWriter
from streams.core.difference import difference
from streams.nats.nats_bus import NatsBus
from tests.components.waiting import until
from tests.streams.core.receiver import Receiver

A, B = set_id(SetKind.ADDRESSES, "a"), set_id(SetKind.ADDRESSES, "b")


def program(uid, *sets, node="node-1", policy="NetworkPolicy/shop/web"):
    rules = tuple(Rule(id=f"r-{name}", policy=policy, sets=(name,)) for name in sets)
    direction = Direction(isolating=(policy,), rules=rules)
    return Program(uid=uid, namespace="shop", name=f"pod-{uid}", node=node, ingress=direction)


def addresses(first, last):
    return frozenset(number.to_bytes(4, "big") for number in range(first, last))


def policy_of(*programs, **sets):
    """Sets by name, A and B; those not given are empty."""
    named = {identity for item in programs for identity in item.sets}
    known = {A: sets.get("a", frozenset()), B: sets.get("b", frozenset())}
    return Policy(
        programs={(item.node, item.uid): item for item in programs},
        sets={identity: known.get(identity, frozenset()) for identity in named},
    )


class Owner:
    """A processor reduced to what it wants published."""

    def __init__(self, bus, cluster, name="owner", **options):
        self.writer = PolicyWriter(bus, cluster, name, **options)
        self.policy = Policy(programs={}, sets={})
        self.published = None

    async def take_over(self):
        self.published = await self.writer.take_over()
        self.policy = self.published.policy
        return self.published

    @contextlib.asynccontextmanager
    async def owning(self) -> AsyncIterator["Owner"]:
        """Own the stream, and let marks go out, for the length of the block."""
        await self.take_over()
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(self.writer.run(), name="policy-writer")
            yield self
            running.cancel()

    async def want(self, policy, revision):
        change = difference(policy, self.policy)
        self.policy = policy
        await self.writer.send(change, revision, f"t{revision}")
        return change

    async def publish(self, policy, revision):
        change = await self.want(policy, revision)
        await self.writer.settled()
        return change


class Enforcer(Receiver):
    """A node's reader with a task that takes its updates."""

    def __init__(self, bus, cluster, node="node-1", jitter_seconds=0.0):
        super().__init__()
        self.reader = PolicyReader(bus, cluster, node, jitter_seconds=jitter_seconds)
        self.updates = 0

    async def _taking(self):
        async for update in self.reader:
            self.apply(update)
            self.updates += 1

    @contextlib.asynccontextmanager
    async def working(self) -> AsyncIterator["Enforcer"]:
        async with self.reader, asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(self._taking(), name="enforcer")
            yield self
            taking.cancel()

    async def realized(self, revision, within_seconds=15.0):
        """Wait for a mark of *revision* or later."""
        await until(
            f"revision {revision} at {self.reader!r}",
            lambda: self.mark is not None and self.mark.revision >= revision,
            within_seconds=within_seconds,
            poll_seconds=0.005,
        )


class FaultyBus(NatsBus):
    """Loses, or holds back, messages of chosen subjects on their way to the subscriber."""

    def __init__(self, url):
        super().__init__(url)
        self.lose = ()
        """Prefixes."""
        self.hold = ()
        self.held = []
        self.lost = 0

    async def subscribe(self, subject, callback):
        async def faulty(message):
            if message.subject.startswith(tuple(self.lose)):
                self.lost += 1
            elif message.subject.startswith(tuple(self.hold)):
                self.held.append((callback, message))
            else:
                await callback(message)

        return await super().subscribe(subject, faulty)

    async def release(self):
        """Deliver what was held back, newest first."""
        self.hold = ()
        while self.held:
            callback, message = self.held.pop()
            await callback(message)
