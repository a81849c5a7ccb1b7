"""The engine *packets*: the same chain, with a C-VEN on every node, real namespaces, and real connections.

    objects ──▶ lab: namespaces, servers ◀── probes
    chain ──▶ PolicyReader ──▶ C-VEN ──▶ rules in the namespaces

One lab serves case after case and changes only what differs between them. C-VENs are new with each case, and find what
the last ones left, as after a restart.
"""

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Final, Self

import msgspec
from prometheus_client import CollectorRegistry

from compose.checking.engines import network
from compose.checking.engines.chain import Chain, Feed, Updates
from compose.checking.engines.explaining import explain
from compose.checking.engines.judging import Judge
from compose.checking.engines.playing import Finding, NotRealized
from compose.checking.suites.cases import Case, Cell, Object, Step
from compose.lab.listening import Listeners
from compose.lab.namespaces import CommandFailed, NoNamespace
from compose.lab.network import Lab
from compose.lab.probing import Answer, Outcome, probe_all
from compose.lab.wires.checking import NotClosed, NotReady
from enforcers.cven import Cven
from enforcers.metrics import Metrics
from enforcers.node.programming import LATE
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.settings import EnforcerSettings
from streams.telemetry import Health

REALIZED_SECONDS: Final = 60.0
"""How long rules may take from the log into all namespaces before the step counts as failed."""
DROP_SECONDS: Final = 0.2
"""Silence that means a drop; the lab asks again where the machine was too busy to tell."""
PROBES_AT_ONCE: Final = 1024
LAB_TROUBLE: Final = (CommandFailed, NoNamespace, NotReady, NotClosed)


class Packets:
    """Plays cases through *chain*, one at a time, in a lab of its own, whose C-VENs have *settings*; an async context
    manager."""

    def __init__(self, chain: Chain, settings: EnforcerSettings) -> None:
        self._chain = chain
        self._settings = settings
        self._lab = Lab()
        self._listeners = Listeners()
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(self._lab)
            await stack.enter_async_context(self._listeners)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    @asynccontextmanager
    async def stage(self, case: Case) -> AsyncGenerator["PacketStage"]:
        nodes = Nodes(case, self._lab, self._listeners, self._settings)
        async with self._chain.feed(case, nodes) as feed:
            yield PacketStage(feed, nodes, self._lab)


class PacketStage:
    """One case, under way."""

    def __init__(self, feed: Feed, nodes: "Nodes", lab: Lab) -> None:
        self._feed = feed
        self._nodes = nodes
        self._lab = lab

    async def play(self, step: Step) -> list[tuple[Cell, Finding]]:
        try:
            await self._feed.write(step.actions)
        except LAB_TROUBLE as error:
            raise NotRealized(f"the lab could not be made: {error}") from error
        await self._feed.arrived()
        await self._nodes.realized(self._feed.revision)
        judge = Judge(self._feed.history.objects, self._feed.policy())
        asking = network.Asking(self._lab.plan, judge)
        probes = {cell: asking.probe(cell) for cell in step.cells}
        answers = await probe_all(probes.values(), timeout_seconds=DROP_SECONDS, at_once=PROBES_AT_ONCE)
        return [(cell, finding(cell, answers[probe], judge)) for cell, probe in probes.items()]


def finding(cell: Cell, answer: Answer, judge: Judge) -> Finding:
    """What *answer* says of *cell*. A block is a drop: a refusal would mean that the packet had arrived somewhere."""
    reached = answer.outcome is Outcome.REACHABLE
    found = answer.outcome.value
    right = reached if cell.allowed else answer.outcome is Outcome.BLOCKED
    if answer.by and "/" in cell.destination and ":" not in cell.destination and answer.by != cell.destination:
        right, found = False, f"answered by {answer.by}"
    why = ""
    if not right:
        judgement = judge.judge(cell)
        why = f"the programs say {judgement.verdict}: {explain(judgement)}"
    return Finding(allowed=reached, verdict=found, why=why, right=right, doubted=answer.attempts > 1)


class Nodes:
    """The nodes of one case: a C-VEN each, over the lab's namespaces. The audience of a `Feed`."""

    def __init__(self, case: Case, lab: Lab, listeners: Listeners, settings: EnforcerSettings) -> None:
        self._case = case
        self._settings = settings
        self._lab = lab
        self._listeners = listeners
        self._runtimes: dict[str, GivenRuntime] = {}
        self._cvens: dict[str, Cven] = {}

    async def prepare(self, objects: Mapping[str, Object]) -> None:
        """Make the network what *objects* say, and let the C-VENs know: first what stays, then what there is."""
        layout = network.layout_of(self._case, objects)
        self._tell({pod.uid for pod in layout.pods})
        await self._lab.apply(layout)
        self._listeners.want(network.servers(self._lab.plan, network.ports_of(self._case, objects)))
        self._tell({pod.uid for pod in layout.pods})

    async def serve(self, node: str, updates: Updates) -> None:
        cven = self._cvens[node] = Cven(
            msgspec.structs.replace(self._settings, node=node),
            self._runtimes.setdefault(node, GivenRuntime()),
            node_netns=self._lab.node_netns(node),
            metrics=Metrics(CollectorRegistry()),
            health=Health(),
        )
        await cven.run(updates, asyncio.Event())

    async def realized(self, revision: int) -> None:
        """Return when the rules of *revision* are in every namespace, late ones included. Raises `NotRealized`."""
        try:
            async with asyncio.timeout(REALIZED_SECONDS):
                for cven in self._cvens.values():
                    await cven.realized(revision)
                # A busy machine may take longer than Pods are waited for: that is late, and no failure.
                while late := next((cven for cven in self._cvens.values() if _is_late(cven)), None):
                    late.node.changed.clear()
                    await late.node.changed.wait()
        except TimeoutError:
            behind = "; ".join(map(repr, self._cvens.values()))
            raise NotRealized(f"revision {revision} was not realized within {REALIZED_SECONDS:g} s: {behind}") from None
        exceptions = [exception for cven in self._cvens.values() for exception in cven.exceptions]
        if exceptions:
            raise NotRealized("; ".join(f"{each.namespace}/{each.name}: {each.reason}" for each in exceptions))

    def _tell(self, uids: Collection[str]) -> None:
        """Of the sandboxes that there are, those of *uids*."""
        for node in self._lab.plan.nodes:
            runtime = self._runtimes.setdefault(node.name, GivenRuntime())
            runtime.tell(sandbox for sandbox in self._lab.sandboxes(node.name) if sandbox.uid in uids)


def _is_late(cven: Cven) -> bool:
    return any(exception.reason == LATE for exception in cven.exceptions)
