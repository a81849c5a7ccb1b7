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
import subprocess
from collections.abc import Coroutine, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from compose.lab import namespaces, state
from compose.lab.plan import Layout, Plan, PlannedPod, VirtualPort, make_plan, netns_names
from compose.lab.translation import translate
from compose.lab.wiring import BRIDGE, BRIDGE_SYSCTLS, POD_LINK, UPLINK, Batch, Wiring, changes, wire

PARALLEL: Final = 4
"""Commands at a time: nearly all their time is spent under the kernel's one rtnl lock."""


class Sandbox(msgspec.Struct, frozen=True, kw_only=True):
    """A Pod as an enforcer meets it."""

    uid: str
    namespace: str
    name: str
    node: str
    netns: Path
    """A file that names its network namespace."""
    addresses: tuple[str, ...]


class NotClosed(Exception):
    """The lab's network leads somewhere else, so nothing may be sent in it."""

    def __init__(self, namespace: str, reason: str) -> None:
        super().__init__(f"namespace {namespace} is not closed: {reason}")
        self.namespace = namespace
        self.reason = reason


class Lab:
    """A running lab; an async context manager that leaves nothing behind.

    *name* must not contain ``-``; by default a random one, so that several labs do not meet. Entering it first removes
    what dead labs left. Raises `compose.lab.namespaces.CommandFailed`, `NotClosed`, `ValueError` for a bad layout.
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
        """Make the network what *layout* says, changing only what differs. An error leaves it in between: apply again.

        What exists is known from what was done; nothing is read back, as nobody else has a hand in the lab's wiring.
        """
        async with self._applying:
            plan = make_plan(self.name, layout, self.plan)
            state.write(state.State(owner=state.this_process(), plan=plan), self.root)
            await self._rewire(wire(plan))
            await self._translate(plan)
            self.layout, self.plan = layout, plan
            self.check_closed()

    async def _rewire(self, after: dict[str, Wiring]) -> None:
        todo = changes(self._wired, after)
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
        self._wired = after

    async def _translate(self, plan: Plan) -> None:
        commands = ("iptables-restore", "ip6tables-restore")
        await _all(
            namespaces.run(node.netns, [command, "--noflush", "-w"], text)
            for node in plan.nodes
            if self._translated.get(node.netns) != plan.services
            for command, text in zip(
                commands, translate(plan.services, new=node.netns not in self._translated), strict=True
            )
        )
        self._translated = {node.netns: plan.services for node in plan.nodes}

    def check_closed(self) -> None:
        """Raise `NotClosed` unless every namespace has only the lab's own links, and only Pods a default route."""
        own = {
            "lo",
            BRIDGE,
            UPLINK,
            *(key.partition(" ")[2] for wiring in self._wired.values() for key in wiring.items),
        }
        pods = {pod.netns for pod in self.plan.pods if pod.link}
        names = list(netns_names(self.plan))
        views = namespaces.inside_each((name, _links_and_default_routes) for name in names)
        for name, (links, default_routes) in zip(names, views, strict=True):
            foreign = links - ({"lo", POD_LINK} if name in pods else own)
            if foreign:
                raise NotClosed(name, f"it has the link {min(foreign)}, which the lab did not make")
            if default_routes and name not in pods:
                raise NotClosed(name, "it has a default route")

    def pod(self, key: str) -> PlannedPod:
        """The Pod ``namespace/name``; raises `KeyError`."""
        return self.plan.pod(key)

    def sandboxes(self) -> list[Sandbox]:
        """Every Pod that has a namespace of its own, for the enforcer of its node."""
        return [
            Sandbox(
                uid=planned.pod.uid,
                namespace=planned.pod.namespace,
                name=planned.pod.name,
                node=planned.pod.node,
                netns=namespaces.path_of(planned.netns),
                addresses=planned.pod.addresses,
            )
            for planned in self.plan.pods
            if planned.link
        ]

    def node_netns(self, name: str) -> Path:
        """The host namespace of the node *name*: its addresses are the node's own."""
        return namespaces.path_of(self.plan.node(name).netns)


def sweep(root: Path) -> list[str]:
    """Remove what dead owners left; return their labs' names. Labs with a living owner stay."""
    dead = [name for name, known in state.labs(root).items() if known is None or not state.alive(known.owner)]
    for name in dead:
        discard(name, root)
    return dead


def discard(lab: str, root: Path) -> None:
    """Take *lab* away, namespaces first. Synchronous, so that a cancellation cannot come in between."""
    if namespaces.RUN_NETNS.is_dir():
        prefix = state.namespace_prefix(lab)
        delete(sorted(path.name for path in namespaces.RUN_NETNS.iterdir() if path.name.startswith(prefix)))
    state.remove(lab, root)


def delete(names: Iterable[str]) -> None:
    """Delete namespaces; one that is gone already is as good as deleted. Their links end with them."""
    text = "".join(f"netns del {name}\n" for name in names)
    if text:
        subprocess.run(["ip", "-force", "-batch", "-"], input=text.encode(), capture_output=True, check=False)


async def _ip(batch: Batch) -> None:
    namespace, lines = batch
    await namespaces.run(namespace, ["ip", "-batch", "-"], "".join(f"{line}\n" for line in lines))


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
    except* namespaces.CommandFailed as failed:
        raise failed.exceptions[0] from None


def _write_sysctls(values: dict[str, str]) -> None:
    """In the calling thread's namespace: /proc/sys/net shows its reader's own."""
    for name, value in values.items():
        Path("/proc/sys", name).write_text(value)
    for name, value in BRIDGE_SYSCTLS.items():
        with contextlib.suppress(FileNotFoundError):
            Path("/proc/sys", name).write_text(value)


def _links_and_default_routes() -> tuple[set[str], bool]:
    """What the calling thread's namespace has, from the thread's own view of /proc/net."""
    net = Path("/proc/thread-self/net")
    links = {line.partition(":")[0].strip() for line in (net / "dev").read_text().splitlines()[2:]}
    v4 = (line.split() for line in (net / "route").read_text().splitlines()[1:])
    v6 = (line.split() for line in (net / "ipv6_route").read_text().splitlines())
    # A default route has no bits in its mask; the kernel's own "unreachable default" of IPv6 sits on lo.
    any_v4 = any(int(fields[7], 16) == 0 for fields in v4)
    any_v6 = any(fields[1] == "00" and fields[9] != "lo" for fields in v6)
    return links, any_v4 or any_v6
