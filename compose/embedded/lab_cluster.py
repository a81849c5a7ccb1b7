"""A cluster in the lab: its objects go to the log, its Pods become namespaces, and C-VENs enforce in them.

objects ─▶ ControlPlane fills in ─┬─▶ Lab: namespaces, routes, DNAT, servers
                                  ├─▶ sandboxes ─▶ one C-VEN per node
                                  └─▶ Kubelink ─▶ log ─▶ PCE ─▶ NATS ─▶ the C-VENs
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry

from compose.embedded.told_source import ToldSource
from compose.embedded.world import World, embedded
from compose.lab.cluster.control_plane import ControlPlane
from compose.lab.cluster.reading import read_layout
from compose.lab.listening import Listeners, declared_listeners, listeners_of
from compose.lab.matrix import Cell, cells, declared_matrix
from compose.lab.network import Lab
from compose.lab.plan import DEFAULT_NODES, Layout
from compose.lab.probing import DROP_SECONDS, Answer, probe_all
from compose.lab.state import directory_of
from enforcers.enforcer import Enforcer
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.settings import EnforcerSettings
from processors.settings import ProcessorSettings
from schemas.gate import GATE_PORT
from schemas.objects import KubernetesObject

REALIZED_SECONDS: Final = 30.0


class LabCluster:
    """A running lab that enforces; made by `lab_cluster`."""

    def __init__(self, lab: Lab, listeners: Listeners, world: World, source: ToldSource, plane: ControlPlane) -> None:
        self.lab = lab
        self.world = world
        self.enforcers: dict[str, Enforcer] = {}
        self._listeners = listeners
        self._source = source
        self._plane = plane
        self._runtimes: dict[str, GivenRuntime] = {}
        self._externals: Sequence[str] = lab.layout.externals

    async def change(self, objects: Iterable[KubernetesObject], ports: Iterable[tuple[str, int]] = ()) -> int:
        """Make *objects* all there is, in the network and in the log; return the revision that has all of it.

        Servers listen on every declared port, and on *ports* at every Pod.
        """
        completed = self._plane.complete(objects)
        layout = read_layout(completed, externals=self._externals)
        await self.lab.apply(layout)
        self._listeners.want(declared_listeners(self.lab.plan) | listeners_of(self.lab.plan, ports))
        self._tell_runtimes()
        self._source.tell(completed)
        await self._source.delivered.wait()
        await self.world.kubelink.settled()
        return await self.world.log.end() - 1

    async def realized(self, revision: int) -> None:
        """Wait until every node has realized *revision*. Raises TimeoutError, naming the nodes that have not."""
        try:
            async with asyncio.timeout(REALIZED_SECONDS):
                await asyncio.gather(*(each.cven.realized(revision) for each in self.enforcers.values()))
        except TimeoutError:
            late = [repr(each.cven) for each in self.enforcers.values() if each.cven.revision < revision]
            raise TimeoutError(f"revision {revision} is not realized by {', '.join(late)}") from None

    def socket_of(self, node: str) -> Path:
        """Where the C-VEN of *node* answers `eastwest node`."""
        return directory_of(self.lab.name, self.lab.root) / f"{node}.sock"

    async def probe(self, *, timeout_seconds: float = DROP_SECONDS) -> Mapping[Cell, Answer]:
        """Who reaches whom on the declared ports, by packets."""
        return cells(await probe_all(declared_matrix(self.lab.plan), timeout_seconds=timeout_seconds))

    def _tell_runtimes(self) -> None:
        for node in self.lab.plan.nodes:
            self._runtime(node.name).tell(self.lab.sandboxes(node.name))

    def _runtime(self, node: str) -> GivenRuntime:
        """The runtime of *node*; a node that is new gets its C-VEN."""
        if node not in self._runtimes:
            self._runtimes[node] = GivenRuntime()
            enforcer = Enforcer(
                EnforcerSettings(cluster=self.world.cluster, node=node, gate_listen=f":{GATE_PORT}"),
                self.world.bus,
                self._runtimes[node],
                node_netns=self.lab.node_netns(node),
                local=self.socket_of(node),
                health=self.world.health,
                registry=CollectorRegistry(),
            )
            self.enforcers[node] = enforcer
            self.world.tasks.create_task(enforcer.run(self.world.stop, jitter_seconds=0), name=f"C-VEN of {node}")
        return self._runtimes[node]


@asynccontextmanager
async def lab_cluster(
    folder: Path | None = None,
    *,
    cluster: str = "lab",
    name: str = "",
    nodes: Sequence[str] = DEFAULT_NODES,
    externals: Sequence[str] = (),
) -> AsyncGenerator[LabCluster]:
    """An empty enforcing lab; `LabCluster.change` fills it. Leaves nothing behind.

    Log and NATS store are in *folder*, by default in the lab's own: what removes the lab of a dead owner removes them.
    Needs what `compose.lab.capability.ensure_capable` makes sure of.
    """
    source = ToldSource()
    async with Lab(Layout(externals=tuple(externals)), name=name) as lab, Listeners() as listeners:
        settings = ProcessorSettings(cluster=cluster, name="lab")
        async with embedded(source, folder or directory_of(lab.name, lab.root), settings, described="the lab") as world:
            yield LabCluster(lab, listeners, world, source, ControlPlane(nodes=tuple(nodes)))
