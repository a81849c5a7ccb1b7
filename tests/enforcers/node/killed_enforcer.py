"""A process that gives one Pod its rules as an enforcer does, to be killed while it does.

Arguments: the Pod's namespace, the node's, how chains are written, and the directions that are isolated. It says when
it begins, and when all is done.
"""

import asyncio
import sys
from pathlib import Path

from enforcers.core.layout import DEFAULT_MARK
from enforcers.pods.pod import PodEnforcement
from enforcers.runtimes.runtime import Sandbox
from tests.enforcers.pod_world import both, isolated, packed, program, rule, sets

BEGINS, DONE = "begins", "done"


async def main(pod_netns: Path, node_netns: Path, chains: str, directions: str) -> None:
    sandbox = Sandbox(
        uid="uid-web",
        id="sandbox-1",
        namespace="shop",
        name="web",
        netns=pod_netns,
        addresses=(packed("web"), packed("web", 6)),
    )
    wanted = program(**dict.fromkeys(directions.split(","), isolated(rule())))
    pod = PodEnforcement(
        sandbox, DEFAULT_MARK, chains="netlink" if chains == "netlink" else "restore", node_netns=node_netns
    )
    print(BEGINS, flush=True)
    await pod.realize(wanted, sets(clients=both("a")))
    await pod.audit()
    print(DONE, flush=True)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4]))
