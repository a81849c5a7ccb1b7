"""Kubelink against a real kube-apiserver."""

import itertools
from typing import Any

import pytest

from producers.api_connection import Access
from producers.api_server_source import ApiServerSource
from streams.log import Log
from tests.components.kubernetes.control_plane import ControlPlane
from tests.components.waiting import until
from tests.producers.reading import known
from tests.producers.running import complete, kubelink

pytestmark = [pytest.mark.apiserver, pytest.mark.timeout(180)]

_numbers = itertools.count()


def source(server: ControlPlane, **options: Any) -> ApiServerSource:
    return ApiServerSource(Access(url=server.url, ca_file=str(server.ca), token=server.admin_token), **options)


async def namespace(server: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"kl-{next(_numbers)}"
    await server.api("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
    return name


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}, "spec": {"containers": [{"name": "c", "image": "i"}]}}


async def test_what_the_api_server_has_is_in_the_log_and_changes_follow(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    await apiserver.api("POST", f"/api/v1/namespaces/{space}/pods", pod("before", app="a"))
    async with kubelink(log, source(apiserver)) as link:
        await complete(link)
        state = await known(log)
        assert state[f"Pod/{space}/before"]["metadata"]["labels"] == {"app": "a"}
        assert state[f"Namespace/-/{space}"]["status"] == {"phase": "Active"}

        await apiserver.api("POST", f"/api/v1/namespaces/{space}/pods", pod("after"))
        await apiserver.api("DELETE", f"/api/v1/namespaces/{space}/pods/before?gracePeriodSeconds=0")

        async def followed() -> bool:
            state = await known(log)
            return f"Pod/{space}/after" in state and f"Pod/{space}/before" not in state

        await until("both changes to be in the log", followed)
        assert (await known(log))["Cluster/-/-"]["version"].startswith("v1.")
        assert link.state.problems == {}
