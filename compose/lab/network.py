"""Makes a plan real, changes it live, and takes it away again.

    layout ── make_plan ──► plan ── wire, changes ──► ip -batch per namespace
                              └──── translate ──────► iptables-restore per node

The host's own namespace is never part of it: links are made inside the namespaces they join, nodes have no default
route, and `Lab.check_closed` reads that back before anyone sends a packet.
"""

import asyncio
import contextlib
import functools
import secrets
from collections.abc import Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from compose.lab import namespaces, state
from compose.lab.plan import Layout, Plan, PlannedPod, VirtualPort, family, make_plan
from compose.lab.talk.conversing import Conversation
from compose.lab.wires.checking import NotReady, check_closed, wait_until_forwarding
from compose.lab.wires.removing import delete, discard, existing, sweep
from compose.lab.wires.translation import translate
from compose.lab.wires.wiring import BRIDGE_SYSCTLS, HOST, Batch, Wiring, changes, wire
from enforcers.runtimes.runtime import Sandbox
from schemas.addresses import pack

PARALLEL: Final = 4
"""Commands at a time: nearly all their time is spent under the kernel's one rtnl lock."""


class Lab:
    """A running lab; an async context manager that leaves nothing behind.

    *name* must not contain ``-``; by default a random one, so that several labs do not meet. Entering it first removes
    what dead labs left. Raises `CommandFailed`, `NotClosed`, `NotReady`, and `ValueError` for a bad layout.
    """

    def __init__(self, layout: Layout | None = None, *, name: str = "", root: Path | None = None) -> None:
        if "-" in name or "/" in name:
            raise ValueError(f"a lab's name has no '-' and no '/': {name!r}")
        self.name = name or secrets.token_hex(3)
        self.root = root or state.run_directory()
        self.layout = layout or Layout()
        self.plan = Plan(lab=self.name)
        self._wired: dict[str, Wiring] = {}
        self._translated: dict[str, tuple[VirtualPort, ...]] = {}
        self._applying = asyncio.Lock()

    def __repr__(self) -> str:
        return f"Lab({self.name!r}, nodes={len(self.plan.nodes)}, pods={len(self.plan.pods)})"

    async def __aenter__(self) -> Self:
        sweep(self.root)
        known = state.read(self.name, self.root)
        if known is not None and state.alive(known.owner):
            raise ValueError(f"lab {self.name} is already running, held by process {known.owner.pid}")
        try:
            await self.apply(self.layout)
        except BaseException:
            discard(self.name, self.root)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        discard(self.name, self.root)

    async def apply(self, layout: Layout) -> None:
        """Make the network what *layout* says, changing only what differs; calls queue up.

        What exists is known from what was done, as nobody else has a hand in the lab's wiring. So an error ends what
        there is: the next call begins with nothing, and Pods lose what enforcers had put into their namespaces.
        """
        async with self._applying:
            plan = make_plan(self.name, layout, self.plan)
            state.write(state.State(owner=state.this_process(), plan=plan), self.root)
            before, translated = self._wired, self._translated
            self._wired, self._translated = {}, {}
            if not before:
                delete(existing(self.name))
            after = wire(plan)
            await self._rewire(before, after)
            await self._translate(translated, plan)
            self.layout, self.plan = layout, plan
            self._wired = after
            self._translated = {node.netns: plan.services for node in plan.nodes}

    async def _rewire(self, before: dict[str, Wiring], after: dict[str, Wiring]) -> None:
        todo = changes(before, after)
        await _all(_ip(batch) for batch in todo.detach)
        delete(todo.delete)
        if todo.create:
            await namespaces.run("", ["ip", "-batch", "-"], "".join(f"netns add {name}\n" for name in todo.create))
            namespaces.inside_each(
                (name, functools.partial(_write_sysctls, after[name].sysctls)) for name in todo.create
            )
        for step in todo.apply:
            await _all(_ip(batch) for batch in step)
        await _all(_ip(batch) for batch in todo.clean)
        await _all(wait_until_forwarding(name) for step in todo.apply[:HOST] for name, _ in step)
        check_closed({name: wiring for name, wiring in after.items() if wiring.rank < HOST or name in todo.create})

    async def _translate(self, before: dict[str, tuple[VirtualPort, ...]], plan: Plan) -> None:
        """Give every node the Services. *before*: what each node has; a node without is new."""
        commands = ("iptables-restore", "ip6tables-restore")
        await _all(
            namespaces.run(node.netns, [command, "--noflush", "-w"], text)
            for node in plan.nodes
            if before.get(node.netns) != plan.services
            for command, text in zip(
                commands, translate(plan.services, node.name, new=node.netns not in before), strict=True
            )
        )
        # A flow keeps the endpoint it was given, and a UDP client that goes on asking never begins a new flow.
        await _all(
            _forget_udp_flows(node.netns, address)
            for node in plan.nodes
            for port in set(before.get(node.netns, ())) - set(plan.services)
            for address in (port.addresses if port.protocol == "UDP" else ())
        )

    def pod(self, key: str) -> PlannedPod:
        """The Pod ``namespace/name``; raises `KeyError`."""
        return self.plan.pod(key)

    def converse(self, source: str, address: str, port: int, *, protocol: str = "TCP") -> Conversation:
        """A lasting connection from the Pod *source* (``namespace/name``) to a server at *address*."""
        return Conversation(self.pod(source).netns, address, port, protocol=protocol)

    def sandboxes(self, node: str | None = None) -> list[Sandbox]:
        """Every Pod with a namespace of its own, of all nodes or of *node*: what its enforcer is to know."""
        return [
            Sandbox(
                uid=planned.pod.uid,
                id=planned.link,
                namespace=planned.pod.namespace,
                name=planned.pod.name,
                netns=namespaces.path_of(planned.netns),
                addresses=tuple(pack(address) for address in planned.pod.addresses),
            )
            for planned in self.plan.pods
            if planned.link and node in (None, planned.pod.node)
        ]

    def node_netns(self, name: str) -> Path:
        """The host namespace of the node *name*: its addresses are the node's own."""
        return namespaces.path_of(self.plan.node(name).netns)


async def _ip(batch: Batch) -> None:
    namespace, lines = batch
    await namespaces.run(namespace, ["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


async def _forget_udp_flows(netns: str, address: str) -> None:
    version = {4: "ipv4", 6: "ipv6"}[family(address)]
    # It ends with 1 where there is no such flow.
    with contextlib.suppress(namespaces.CommandFailed):
        await namespaces.run(netns, ["conntrack", "-D", "-f", version, "-p", "udp", "-d", address])


async def _all(work: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Run coroutines, `PARALLEL` at a time, and wait for all; the first error is raised alone."""
    limit = asyncio.Semaphore(PARALLEL)

    async def one(coroutine: Coroutine[Any, Any, object]) -> None:
        async with limit:
            await coroutine

    try:
        async with asyncio.TaskGroup() as tasks:
            for number, coroutine in enumerate(work):
                tasks.create_task(one(coroutine), name=f"lab-command-{number}")
    except* (namespaces.CommandFailed, NotReady) as failed:
        raise failed.exceptions[0] from None


def _write_sysctls(values: dict[str, str]) -> None:
    """In the calling thread's namespace: /proc/sys/net shows its reader's own."""
    for name, value in values.items():
        Path("/proc/sys", name).write_text(value)
    for name, value in BRIDGE_SYSCTLS.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(value)
