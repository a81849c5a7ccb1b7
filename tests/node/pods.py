"""What is so in a Pod's network namespace, and what the node's own programs say of it."""

import asyncio
import json
import subprocess
from pathlib import Path

from tests.components.kubernetes.node import Node
from tests.node.shop import Shop
from tests.node.stack import Stack


async def pod_state(stack: Stack, shop: Shop, name: str) -> str:
    return str((await stack.get("container-workloads", "-n", shop.name, name))["status"]["state"])


def ctr(node: Node, *arguments: str) -> str:
    """containerd's own tool, on *node*; its output. Raises CalledProcessError."""
    command = ["ctr", "-a", str(node.containerd_socket), "-n", "k8s.io", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=20).stdout


def running_sandbox(node: Node, uid: str) -> str:
    """The id of a Pod's sandbox on *node* whose process runs; empty: none."""
    sandboxes = f'labels."io.kubernetes.pod.uid"=={uid},labels."io.cri-containerd.kind"==sandbox'
    running = {line.split()[0] for line in ctr(node, "tasks", "ls").splitlines() if line.endswith("RUNNING")}
    return next((each for each in ctr(node, "containers", "ls", "-q", sandboxes).split() if each in running), "")


async def netns_of(stack: Stack, shop: Shop, name: str) -> Path:
    """The file of a Pod's network namespace, as containerd's own tool tells it."""
    item = shop.pods[name]
    node = next(each for each in stack.cluster.nodes if each.name == item["spec"]["nodeName"])
    identity = item["status"]["containerStatuses"][0]["containerID"].removeprefix("containerd://")
    sandbox = json.loads(await asyncio.to_thread(ctr, node, "containers", "info", identity))
    namespaces = sandbox["Spec"]["linux"]["namespaces"]
    path = next(each["path"] for each in namespaces if each["type"] == "network")
    return _named(path)


def _named(path: str) -> Path:
    """A container's network namespace is told as its sandbox's process; CNI's name for it is the same file."""
    wanted = Path(path).stat().st_ino
    return next(each for each in Path("/run/netns").glob("cni-*") if each.stat().st_ino == wanted)


def rules(netns: Path) -> str:
    """Of both families, without counters and times."""
    return "\n".join(
        line
        for command in ("iptables-save", "ip6tables-save")
        for line in _inside(netns, command).splitlines()
        if not line.startswith("#")
    )


def sets(netns: Path) -> list[str]:
    """With members, sorted: the order of members and a set's initial value are arbitrary."""
    return sorted(line.partition(" initval ")[0] for line in _inside(netns, "ipset", "save").splitlines())


def _inside(netns: Path, *command: str) -> str:
    run = subprocess.run(
        ["nsenter", f"--net={netns}", *command], check=True, capture_output=True, text=True, timeout=20
    )
    return run.stdout
