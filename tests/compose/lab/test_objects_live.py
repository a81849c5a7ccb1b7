"""Kubernetes objects as a living network: labels, readiness and deletions change who a Service leads to."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from compose.lab.cluster.control_plane import ControlPlane
from compose.lab.cluster.reading import read_layout
from compose.lab.listening import Listeners, declared_listeners
from compose.lab.matrix import declared_matrix, service_probes
from compose.lab.network import Lab
from compose.lab.probing import Outcome, probe_all
from schemas.objects import Pod, Service

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]


def pod(name: str, app: str, **status: Any) -> Pod:
    return msgspec.convert(
        {
            "metadata": {"name": name, "namespace": "shop", "labels": {"app": app}},
            "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
            "status": status,
        },
        Pod,
    )


WEB = msgspec.convert(
    {
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]},
    },
    Service,
)
UNREADY = {"conditions": [{"type": "Ready", "status": "False"}]}


class Shop:
    """A lab that follows a list of objects."""

    def __init__(self, lab: Lab, listeners: Listeners) -> None:
        self.lab = lab
        self.listeners = listeners
        self.control_plane = ControlPlane()

    async def reached(self, *pods: Pod) -> set[str]:
        """Apply *pods*, let ``a`` ask the Service often, and return who answered, or how it failed."""
        await self.lab.apply(read_layout(self.control_plane.complete([WEB, *pods])))
        self.listeners.want(declared_listeners(self.lab.plan))
        found = set()
        for _ in range(20):
            answers = await probe_all(service_probes(self.lab.plan, sources=["shop/a"]))
            found |= {answer.by or answer.outcome for answer in answers.values()}
        return found


async def test_a_service_follows_labels_readiness_and_deletions(lab_root: Path) -> None:
    client = pod("a", "client")
    async with Lab(root=lab_root) as lab, Listeners() as listeners:
        shop = Shop(lab, listeners)
        assert await shop.reached(client, pod("b", "web"), pod("c", "web")) == {"shop/b", "shop/c"}
        assert await shop.reached(client, pod("b", "web"), pod("c", "other")) == {"shop/b"}
        assert await shop.reached(client, pod("b", "web", **UNREADY), pod("c", "web")) == {"shop/c"}
        assert await shop.reached(client, pod("b", "web", **UNREADY)) == {Outcome.REFUSED}
        assert await shop.reached(client, pod("b", "web")) == {"shop/b"}


async def test_a_finished_pod_leaves_the_network(lab_root: Path) -> None:
    control_plane = ControlPlane()
    async with Lab(root=lab_root) as lab, Listeners() as listeners:
        await lab.apply(read_layout(control_plane.complete([pod("a", "client"), pod("b", "web")])))
        listeners.want(declared_listeners(lab.plan))
        probes = declared_matrix(lab.plan, sources=["shop/a"])
        answers = await probe_all(probes)
        assert {answer.outcome for answer in answers.values()} == {Outcome.REACHABLE}

        finished = pod("b", "web", phase="Succeeded")
        await lab.apply(read_layout(control_plane.complete([pod("a", "client"), finished])))
        answers = await probe_all(probes)
        outcomes = {probe.destination: answer.outcome for probe, answer in answers.items()}

    assert outcomes["shop/a"] is Outcome.REACHABLE
    assert outcomes["shop/b"] is not Outcome.REACHABLE
