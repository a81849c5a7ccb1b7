"""The two-node Kubernetes keeps its promises: real Pods, real Services, and nothing left when it is gone."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.kubernetes.cluster import Cluster
from tests.components.kubernetes.images import AGNHOST
from tests.components.kubernetes.networks import refuse_default_route
from tests.components.kubernetes.node import CGROUPS
from tests.components.kubernetes.remains import sweep_dead_clusters
from tests.components.namespaces import inside, inside_command
from tests.components.nats_server import NatsServer
from tests.components.waiting import until

ROOT = Path(__file__).parent.parent.parent

pytestmark = [pytest.mark.node, pytest.mark.timeout(240)]


def pod(name: str, node: str, *arguments: str) -> dict[str, object]:
    container = {"name": "main", "image": AGNHOST, "imagePullPolicy": "Never", "args": list(arguments)}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "labels": {"app": name}},
        "spec": {"nodeName": node, "containers": [container], "terminationGracePeriodSeconds": 0},
    }


async def reach_a_service_across_nodes(cluster: Cluster) -> None:
    """A client on one node, a server on the other, a ClusterIP between them."""
    server, client = cluster.nodes[0].name, cluster.nodes[1].name
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
    }
    await cluster.apply(pod("web", server, "netexec", "--http-port=8080"), pod("client", client, "pause"), service)
    await cluster.kubectl("wait", "pod", "--all", "--for=condition=Ready", "--timeout=60s")
    address = await cluster.kubectl("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}")

    async def connects() -> bool:
        await cluster.kubectl("exec", "client", "--", "/agnhost", "connect", "--timeout=1s", f"{address}:80")
        return True

    await until("the client to reach the Service", connects, within_seconds=30, ignoring=(AssertionError,))


async def test_pods_reach_a_service_across_nodes(cluster: Cluster):
    await reach_a_service_across_nodes(cluster)


async def test_each_node_names_its_pods_with_their_namespaces(cluster: Cluster):
    await cluster.apply(pod("seen", cluster.nodes[0].name, "pause"))
    await cluster.kubectl("wait", "pod", "seen", "--for=condition=Ready", "--timeout=60s")
    listed = subprocess.run(  # noqa: ASYNC221  # milliseconds
        ["ctr", "-a", str(cluster.nodes[0].containerd_socket), "-n", "k8s.io", "containers", "ls", "-q"],
        check=True,
        capture_output=True,
        text=True,
    )
    assert listed.stdout.split()


async def test_nothing_of_it_can_leave_the_machine(cluster: Cluster):
    for namespace in (cluster.namespace, *(node.namespace for node in cluster.nodes)):
        refuse_default_route(namespace)


async def test_brokers_on_the_control_planes_machine_are_reached_from_every_node(
    cluster: Cluster, kafka_jars_folder: Path, tmp_path: Path
):
    nats = NatsServer(tmp_path / "nats", host=cluster.address, port=4222, launcher=inside_command(cluster.namespace))
    async with (
        KafkaBroker(
            tmp_path / "kafka", kafka_jars_folder, address=cluster.address, namespace=cluster.namespace
        ) as kafka,
        nats,
    ):
        for node in cluster.nodes:
            for port in (nats.port, kafka.port):
                await inside(node.namespace, lambda port=port: connect(cluster.address, port))


async def connect(address: str, port: int) -> None:
    _, writer = await asyncio.wait_for(asyncio.open_connection(address, port), 5)
    writer.close()
    await writer.wait_closed()


async def test_it_survives_a_kill_of_its_api_server(cluster: Cluster):
    await cluster.control_plane.kill()
    await cluster.control_plane.start()
    nodes = json.loads(await cluster.kubectl("get", "nodes", "-o", "json"))
    assert [node["metadata"]["name"] for node in nodes["items"]] == [node.name for node in cluster.nodes]


async def test_one_with_nftables_and_both_families_works_and_leaves_nothing(node_binaries: Path, tmp_path: Path):
    before = traces()
    async with Cluster(tmp_path / "c", node_binaries, proxy_mode="nftables", ipv6=True) as cluster:
        await reach_a_service_across_nodes(cluster)
        addresses = json.loads(await cluster.kubectl("get", "pod", "web", "-o", "json"))["status"]["podIPs"]
        assert len(addresses) == 2
    assert traces() - before == set()
    assert processes_of(tmp_path) == []


async def test_what_a_killed_run_leaves_the_next_one_removes(node_binaries: Path, tmp_path: Path):
    before = traces()
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", _UP_FOR_EVER, str(tmp_path / "c"), str(node_binaries)),
        stdout=asyncio.subprocess.PIPE,
        cwd=ROOT,
    )
    assert run.stdout is not None
    assert await asyncio.wait_for(run.stdout.readline(), 120) == b"up\n"
    run.kill()
    await run.wait()
    assert traces() != before

    sweep_dead_clusters()

    assert traces() == before
    assert processes_of(tmp_path) == []


_UP_FOR_EVER = """
import asyncio, pathlib, sys
from tests.components.kubernetes.cluster import Cluster
from tests.components.test_components_cluster import pod
async def main():
    cluster = Cluster(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
    await cluster.up()
    await cluster.apply(pod("left", "node1", "pause"))
    await cluster.kubectl("wait", "pod", "left", "--for=condition=Ready", "--timeout=60s")
    print("up", flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"""


def traces() -> set[str]:
    """What a careless end would leave: mounts, namespaces, sockets of shims, CNI results, records, log links, cgroups.

    Only what clusters make; other tests may come and go at the same time.
    """
    mounts = {line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()}
    places = [*Path("/run/netns").glob("cni-*"), *Path("/run/netns").glob("ew[0-9]*-*")]
    for folder in ("/run/containerd/s", "/var/lib/cni/results", "/run/eastwest-tests", "/var/log/containers"):
        places += Path(folder).glob("*")
    places += [*CGROUPS.glob("ew[0-9]*"), *CGROUPS.glob("*/ew[0-9]*")]
    return {mount for mount in mounts if "containerd" in mount or "kubelet" in mount} | {str(path) for path in places}


def processes_of(folder: Path) -> list[str]:
    """Whose command line names *folder*."""
    run = subprocess.run(["ps", "-eo", "pid=,args=", "-ww"], check=True, capture_output=True, text=True)
    return [line for line in run.stdout.splitlines() if str(folder) in line]
