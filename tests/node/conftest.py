"""Two real clusters with eastwest beside each; made once, for all tests of this folder."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.components.kubernetes.cluster import Cluster
from tests.node.stack import Stack


@pytest.fixture(scope="package")
def stack(cluster: Cluster, kafka_jars_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """eastwest beside the cluster of IPv4, whose kube-proxy uses iptables."""
    made = Stack(cluster, tmp_path_factory.mktemp("stack"), kafka_jars_folder)
    asyncio.run(made.__aenter__())
    try:
        yield made
    finally:
        asyncio.run(made.down())


@pytest.fixture(scope="package")
def dual_stack(
    node_binaries: Path, kafka_jars_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    """eastwest beside a cluster of both families, whose kube-proxy uses nftables."""
    cluster = Cluster(tmp_path_factory.mktemp("dual"), node_binaries, proxy_mode="nftables", ipv6=True)
    asyncio.run(cluster.__aenter__())
    try:
        made = Stack(cluster, tmp_path_factory.mktemp("dual-stack"), kafka_jars_folder)
        asyncio.run(made.__aenter__())
        try:
            yield made
        finally:
            asyncio.run(made.down())
    finally:
        asyncio.run(cluster.down())
