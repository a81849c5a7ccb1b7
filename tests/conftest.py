"""The real components that tests ask for by name. Each starts once per run, on free ports, in a folder of its own."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.lab.capability import obstacles
from tests.components.caches import Unobtainable
from tests.components.kafka.kafka_broker import KafkaBroker
from tests.components.kafka.kafka_jars import kafka_jars
from tests.components.kubernetes.binaries import CONTROL_PLANE, kubernetes_binaries
from tests.components.kubernetes.cluster import Cluster
from tests.components.kubernetes.control_plane import ControlPlane
from tests.components.kubernetes.node import node_programs_missing
from tests.components.nats_server import NatsServer
from tests.components.presence import missing, require, require_programs

pytest_plugins = ["tests.components.tiers"]


@pytest.fixture(scope="session")
def capable() -> None:
    """Network namespaces can be made here and now."""
    found = obstacles()
    if found:
        missing("; ".join(item.what for item in found), "; ".join(item.remedy for item in found))


@pytest.fixture(scope="session")
def _nats_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path_factory.mktemp("nats"))
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.stop())


@pytest.fixture
def nats(_nats_once: NatsServer) -> NatsServer:
    """A real nats-server: ``.url``, ``await .kill()``, ``.stop()``, ``.start()``, ``.wipe()``. Shared: use own names.

    Runs again at the start of every test, also when the one before left it dead.
    """
    if not _nats_once.process.running:
        asyncio.run(_nats_once.start())
    return _nats_once


@pytest.fixture(scope="session")
def kafka_jars_folder() -> Path:
    """Apache Kafka's jars, on a machine that can run them; for tests that start a `KafkaBroker` of their own."""
    require_programs(["java"], "apt install default-jre-headless")
    try:
        return kafka_jars()
    except Unobtainable as error:
        missing(error.what, error.remedy)


@pytest.fixture(scope="session")
def _kafka_once(kafka_jars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaBroker]:
    broker = KafkaBroker(tmp_path_factory.mktemp("kafka"), kafka_jars_folder)
    asyncio.run(broker.start())
    try:
        yield broker
    finally:
        asyncio.run(broker.__aexit__(None, None, None))


@pytest.fixture
def kafka(_kafka_once: KafkaBroker) -> KafkaBroker:
    """A real Apache Kafka: ``.bootstrap``, ``await .kill()``, ``.stop()``, ``.start()``. Shared: use own topic names.

    Runs again at the start of every test, also when the one before left it dead.
    """
    if not _kafka_once.process.running:
        asyncio.run(_kafka_once.start())
    return _kafka_once


@pytest.fixture(scope="session")
def control_plane_binaries() -> Path:
    """The folder with kube-apiserver, etcd and kubectl, for tests that start a `ControlPlane` with own flags."""
    require_programs(["openssl"], "apt install openssl")
    try:
        return kubernetes_binaries(CONTROL_PLANE)
    except Unobtainable as error:
        missing(error.what, error.remedy)


@pytest.fixture(scope="session")
def _apiserver_once(control_plane_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    server = ControlPlane(
        tmp_path_factory.mktemp("apiserver"),
        control_plane_binaries,
        controllers=["namespace-controller", "serviceaccount-controller", "endpointslice-controller"],
    )
    asyncio.run(server.start())
    try:
        yield server
    finally:
        asyncio.run(server.__aexit__(None, None, None))


@pytest.fixture
def apiserver(_apiserver_once: ControlPlane) -> ControlPlane:
    """A real kube-apiserver with etcd and the controllers for namespaces and EndpointSlices; no node, no scheduler.

    ``.url .ca .admin_token .reader_token .kubeconfig``, ``await .api(method, path, body)``, ``.kubectl(…)``,
    ``.kill()``, ``.stop()``, ``.start()``, ``.compact()``. Shared: use own namespaces.
    Runs again at the start of every test.
    """
    if not _apiserver_once.running:
        asyncio.run(_apiserver_once.start())
    return _apiserver_once


@pytest.fixture(scope="session")
def node_binaries() -> Path:
    """The folder with all of Kubernetes' programs, on a machine that can run nodes; for a test's own `Cluster`."""
    require(os.geteuid() == 0, "nodes need root", "run as root")
    # A kubelet's device socket has a fixed place, which a test's would take from a real one.
    require(not Path("/var/lib/kubelet/pki").exists(), "this machine is itself a Kubernetes node", "use another")
    absent = node_programs_missing()
    require(not absent, f"not installed: {', '.join(absent)}", "make test-cluster sets it up")
    try:
        return kubernetes_binaries()
    except Unobtainable as error:
        missing(error.what, error.remedy)


@pytest.fixture(scope="session")
def cluster(node_binaries: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A real two-node Kubernetes (kube-proxy by iptables, both families); see `tests.components.kubernetes.cluster`.

    ``await .kubectl(…)``, ``.apply(…)``, ``.inside(…)``, ``.nodes``, ``.control_plane``. Shared: use own namespaces.
    """
    made = Cluster(tmp_path_factory.mktemp("cluster"), node_binaries, ipv6=os.environ.get("CLUSTER") != "ipv4")
    asyncio.run(made.__aenter__())
    try:
        yield made
    finally:
        asyncio.run(made.down())
