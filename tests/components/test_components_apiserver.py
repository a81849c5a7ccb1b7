"""The API server fixture keeps its promises."""

from pathlib import Path

import pytest

from tests.components.kubernetes.control_plane import ApiError, ControlPlane
from tests.components.waiting import until

pytestmark = pytest.mark.apiserver


def namespace(name: str) -> dict[str, object]:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}


async def test_objects_outlive_a_kill_of_the_api_server(apiserver: ControlPlane):
    url = apiserver.url
    await apiserver.api("POST", "/api/v1/namespaces", namespace("components-kill"))

    await apiserver.kill()
    await apiserver.start()

    assert apiserver.url == url
    assert (await apiserver.api("GET", "/api/v1/namespaces/components-kill"))["status"]["phase"] == "Active"


async def test_the_reader_may_do_nothing_until_it_is_bound(apiserver: ControlPlane):
    with pytest.raises(ApiError) as refused:
        await apiserver.api("GET", "/api/v1/pods", token=apiserver.reader_token)
    assert refused.value.status == 403


async def test_a_service_gets_its_endpoint_slice_from_the_real_controller(apiserver: ControlPlane):
    await apiserver.api("POST", "/api/v1/namespaces", namespace("components-slices"))
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "components-node"}}
    await apiserver.api("POST", "/api/v1/nodes", node)
    pods = "/api/v1/namespaces/components-slices/pods"
    pod = {
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {"nodeName": "components-node", "containers": [{"name": "web", "image": "web"}]},
    }
    await apiserver.api("POST", pods, pod)
    status = {
        "phase": "Running",
        "podIP": "10.244.1.2",
        "podIPs": [{"ip": "10.244.1.2"}],
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    merge = "application/merge-patch+json"
    await apiserver.api("PATCH", f"{pods}/web/status", {"status": status}, content_type=merge)
    service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
    await apiserver.api("POST", "/api/v1/namespaces/components-slices/services", service)

    async def addresses() -> list[str]:
        listed = await apiserver.api("GET", "/apis/discovery.k8s.io/v1/namespaces/components-slices/endpointslices")
        return [address for item in listed["items"] for end in item["endpoints"] or () for address in end["addresses"]]

    assert await until("the EndpointSlice to name the Pod", addresses) == ["10.244.1.2"]


async def test_without_the_watch_cache_a_compaction_makes_an_old_version_gone(
    control_plane_binaries: Path, tmp_path: Path
):
    async with ControlPlane(tmp_path, control_plane_binaries, flags=["--watch-cache=false"]) as server:
        old = (await server.api("GET", "/api/v1/namespaces"))["metadata"]["resourceVersion"]
        await server.api("POST", "/api/v1/namespaces", namespace("later"))
        await server.compact()
        with pytest.raises(ApiError) as gone:
            await server.api("GET", f"/api/v1/namespaces?resourceVersion={old}&resourceVersionMatch=Exact")
        assert gone.value.status == 410
        assert "later" in await server.kubectl("get", "namespaces")
        process = server.server
    assert process is not None
    assert not process.running
