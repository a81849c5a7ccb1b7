"""Pods come and go while others change their rules: numbers of namespaces are used again, names go before Pods do."""

import asyncio
import subprocess
from collections.abc import Iterator

import pytest

from enforcers.kernel.namespace_ids import NamespaceIds
from enforcers.kernel.namespaces import NoNamespace
from enforcers.runtimes.given_runtime import GivenRuntime
from enforcers.runtimes.runtime import Sandbox
from schemas import addresses
from schemas.programs import Program
from schemas.status import PodState
from tests.enforcers.cven_world import Told, healed, realized, running, told, until
from tests.enforcers.pod_world import ALLOW, World, both, isolated
from tests.enforcers.tampering import ACTS

pytestmark = pytest.mark.netns

NEVER = 3600.0


class Passing:
    """Namespaces with one address, beside those of the world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._made: set[str] = set()

    def make(self, name: str) -> None:
        full = f"{self._world.prefix}-{name}"
        subprocess.run(["ip", "netns", "add", full], check=True)
        self._made.add(full)
        lines = "link add eth0 type veth peer name far\naddress add 10.77.9.2/24 dev eth0\nlink set eth0 up\n"
        self._world.command(name, "ip", "-batch", "-", text=lines)

    def remove(self, name: str) -> None:
        full = f"{self._world.prefix}-{name}"
        if full in self._made:
            subprocess.run(["ip", "netns", "del", full], check=True)
            self._made.remove(full)

    def number(self, name: str, number: int) -> None:
        subprocess.run(["ip", "netns", "set", f"{self._world.prefix}-{name}", str(number)], check=True)

    def numbers(self) -> str:
        return subprocess.run(["ip", "netns", "list-id"], capture_output=True, text=True, check=True).stdout

    def sandbox(self, name: str) -> Sandbox:
        return Sandbox(
            uid=f"uid-{name}",
            id=name,
            namespace="shop",
            name=name,
            netns=self._world.path(name),
            addresses=(addresses.pack("10.77.9.2"),),
        )

    def close(self) -> None:
        for each in sorted(self._made):
            subprocess.run(["ip", "netns", "del", each], check=True)


@pytest.fixture
def passing(world: World) -> Iterator[Passing]:
    made = Passing(world)
    try:
        yield made
    finally:
        made.close()


def closed(name: str) -> Program:
    return Program(uid=f"uid-{name}", namespace="shop", name=name, node="node-1", ingress=isolated())


async def test_a_number_that_another_namespace_had_before_leads_to_the_pod_that_has_it_now(world, passing):
    passing.make("old")
    runtime = GivenRuntime([passing.sandbox("old")])
    reader = Told(told(1, closed("old"), closed("new"), clients=set()))
    async with running(world, reader, runtime=runtime, verify_seconds=NEVER) as cven:
        await realized(cven, 1)
        with NamespaceIds() as ids:
            number = ids.id_of(world.path("old"))
        runtime.tell([])
        passing.remove("old")
        await until("the old namespace to be gone", lambda: f"nsid {number} " not in passing.numbers())
        passing.make("new")
        passing.number("new", number)
        runtime.tell([passing.sandbox("new")])
        await until("the new Pod's rules", lambda: cven.state_of("uid-new") is PodState.ENFORCED)

        await asyncio.to_thread(world.command, "new", "iptables-nft", "-t", "mangle", "-F", "EW-IN-NEW")

        assert (await healed(cven)).name == "new"


async def test_a_namespace_that_loses_its_name_while_it_is_verified_troubles_nobody_else(world, passing):
    passing.make("brief")
    runtime = GivenRuntime([world.sandbox(), passing.sandbox("brief")])
    reader = Told(told(1, ALLOW, closed("brief"), clients=both("a")))
    async with running(world, reader, runtime=runtime, verify_seconds=0.01) as cven:
        await realized(cven, 1)
        passing.remove("brief")
        await asyncio.sleep(0.1)  # some ten verifications of what has no name any more
        runtime.tell([world.sandbox()])
        await until("it to be let go of", lambda: "uid-brief" not in cven.node.pods)

        await asyncio.to_thread(ACTS[0].do, world, 4)
        assert (await healed(cven)).name == "web"
        assert cven.exceptions == ()


async def test_a_pod_that_is_let_go_of_while_it_is_looked_at_ends_quietly(world, passing):
    runtime = GivenRuntime([world.sandbox()])
    reader = Told(told(1, ALLOW, closed("brief"), clients=both("a")))
    async with running(world, reader, runtime=runtime, verify_seconds=0.001) as cven:
        await realized(cven, 1)
        passing.make("brief")
        for _ in range(10):
            runtime.tell([world.sandbox(), passing.sandbox("brief")])
            await until("its rules", lambda: cven.state_of("uid-brief") is PodState.ENFORCED)
            runtime.tell([world.sandbox()])
            await until("it to be let go of", lambda: "uid-brief" not in cven.node.pods)
        assert (cven.exceptions, cven.node.tamperings.recent) == ((), ())


def test_a_file_that_names_no_namespace_has_no_number(tmp_path):
    plain = tmp_path / "left"
    plain.touch()
    with NamespaceIds() as ids:
        for path in (plain, tmp_path / "never"):
            with pytest.raises(NoNamespace):
                ids.id_of(path)
