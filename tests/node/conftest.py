"""Two real clusters with eastwest in each; made once, for all tests of this folder."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from compose.image.building import image
from compose.image.debian import Unobtainable
from tests.components.kubernetes.cluster import Cluster
from tests.components.presence import missing
from tests.node.fixtures.daemonset import DaemonSetStack
from tests.node.fixtures.stack import Stack


@pytest.fixture(scope="package")
def stack(cluster: Cluster, kafka_jars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """eastwest beside the cluster whose kube-proxy uses iptables; its enforcers are processes."""
    made = Stack(cluster, tmp_path_factory.mktemp("stack"), kafka_jars_folder)
    asyncio.run(made.__aenter__())
    try:
        yield made
    finally:
        asyncio.run(made.down())


@pytest.fixture(scope="package")
def eastwest_image() -> Path:
    """The archive that ``make image`` writes, of this checkout."""
    try:
        return image()
    except Unobtainable as error:
        missing(str(error), "make test-cluster sets it up")


@pytest.fixture(scope="package")
def daemonset_stack(
    node_binaries: Path, kafka_jars_folder: Path, eastwest_image: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DaemonSetStack]:
    """eastwest in a cluster whose kube-proxy uses nftables; its enforcers are Pods of the DaemonSet."""
    cluster = Cluster(tmp_path_factory.mktemp("second"), node_binaries, proxy_mode="nftables", ipv6=True)
    asyncio.run(cluster.__aenter__())
    try:
        made = DaemonSetStack(
            cluster, tmp_path_factory.mktemp("daemonset-stack"), kafka_jars_folder, image=eastwest_image
        )
        asyncio.run(made.__aenter__())
        try:
            yield made
        finally:
            asyncio.run(made.down())
    finally:
        asyncio.run(cluster.down())


@pytest.fixture(scope="package", params=["stack", "daemonset_stack"])
def either_stack(request: pytest.FixtureRequest) -> Stack:
    """One after the other, for what kube-proxy's mode, or how enforcers run, could change."""
    found: Stack = request.getfixturevalue(request.param)
    return found
