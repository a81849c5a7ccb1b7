"""§5.1 by packets: rules are where the Pod's addresses are, whatever the link is called, made of, or shared with."""

from functools import partial

import msgspec
import pytest

from enforcers.kernel.addressing import place
from enforcers.pods.placement import Unenforceable
from enforcers.pods.pod import PodEnforcement
from schemas import addresses
from schemas.status import PodState
from tests.enforcers.cven_world import Told, running, told, until
from tests.enforcers.pod_world import (
    ALLOW,
    DENY,
    World,
    address,
    both,
    enforced,
    eventually,
    isolated,
    packed,
    pod_of,
    program,
    sets,
)
from tests.enforcers.raw_packets import ping

pytestmark = pytest.mark.netns

CLOSED = program(ingress=isolated(), egress=isolated())
SECOND = {"web": "10.78.1.2", "a": "10.78.1.3"}


def addressed(link: str) -> list[str]:
    """Lines that give the Pod's addresses to *link* of its namespace."""
    return [f"addr add {address('web')}/24 dev {link}", f"addr add {address('web', 6)}/64 dev {link} nodad"]


def bare(world: World) -> list[str]:
    """Lines that leave the Pod's first link without an address."""
    return [
        f"addr del {address('web')}/24 dev eth0",
        f"addr del {address('web', 6)}/64 dev eth0",
    ]


def second_network(world: World) -> None:
    """A network between the Pod and `a` of which the runtime tells nothing."""
    target = f"{world.prefix}-a"
    world.ip("web", f"link add net1 type veth peer name net1 netns {target}")
    for name, given in SECOND.items():
        world.ip(name, f"addr add {given}/24 dev net1", "link set net1 up")


def reaches(world: World, source: str, to: str, port: int = 80) -> bool:
    made = world.open_socket(source)
    try:
        made.connect((to, port))
    except TimeoutError:
        return False
    return True


def listen(world: World, name: str, port: int = 80) -> None:
    listener = world.open_socket(name)
    listener.bind(("", port))
    listener.listen(16)


@pytest.mark.parametrize(
    ("above", "links"),
    [
        (["link add link eth0 name up0 type macvlan mode bridge"], ("eth0", "up0")),
        (["link add up0 type bridge", "link set eth0 master up0"], ("up0",)),
    ],
    ids=["macvlan", "bridge"],
)
async def test_addresses_on_a_link_above_the_first_are_guarded_there_and_below_where_that_answers_too(
    world, above, links
):
    world.ip("web", *bare(world), *above, "link set up0 up", *addressed("up0"))
    for family in (4, 6):
        world.listen("web", 80, family)
        eventually("the new link to be usable", partial(world.reaches, "a", "web", 80, family))

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert set(place(world.path("web"), both("web")).links) == set(links)
    for family in (4, 6):
        assert world.reaches("a", "web", 80, family)
        assert not world.reaches("b", "web", 80, family)


def test_a_link_below_in_another_namespace_is_not_taken_for_the_one_of_that_number_here(world):
    assert world.index("node", "br0") == world.index("web", "eth0")
    target = f"{world.prefix}-web"
    world.ip("node", f"link add link br0 name up0 netns {target} type macvlan mode bridge")
    world.ip("web", *bare(world), "link set up0 up", *addressed("up0"))

    assert place(world.path("web"), both("web")).links == ("up0",)


async def test_addresses_of_each_family_on_a_link_of_its_own_are_guarded_on_both_in_both(world):
    """Also what comes in by the one link in the family whose address is on the other."""
    target = f"{world.prefix}-web"
    world.ip("node", f"link add to-web2 type veth peer name eth1 netns {target}", "link set to-web2 master br0 up")
    world.ip(
        "web",
        f"addr del {address('web', 6)}/64 dev eth0",
        f"addr add {address('web', 6)}/64 dev eth1 nodad",
        "addr add 169.254.7.2/24 dev eth1",
        "link set eth1 up",
    )
    world.ip("a", "addr add 169.254.7.3/24 dev eth0")
    for family in (4, 6):
        world.listen("web", 80, family)
    listen(world, "web", 81)

    pod = await enforced(world, ALLOW, sets(clients=both("a")))

    for family in (4, 6):
        assert world.reaches("a", "web", 80, family)
        assert not world.reaches("b", "web", 80, family)
        assert not ping(world, "b", "web", family)
    assert not reaches(world, "a", "169.254.7.2", 81)
    assert not await pod.realize(ALLOW, sets(clients=both("a")))
    pod.doubt()
    assert not await pod.realize(ALLOW, sets(clients=both("a")))  # as it reads back


async def test_such_a_pod_that_closes_again_after_all_was_on_one_link_changes_in_one_step(world):
    target = f"{world.prefix}-web"
    pod = await enforced(world, DENY, sets())
    world.ip("node", f"link add to-web2 type veth peer name eth1 netns {target}", "link set to-web2 master br0 up")
    world.ip(
        "web",
        f"addr del {address('web', 6)}/64 dev eth0",
        f"addr add {address('web', 6)}/64 dev eth1 nodad",
        "link set eth1 up",
    )
    world.listen("web", 80, 6)

    pod.doubt()
    await pod.realize(DENY, sets())
    assert not world.reaches("a", "web", 80, 6)

    world.ip("web", "link del eth1", f"addr add {address('web', 6)}/64 dev eth0 nodad")
    pod.doubt()
    await pod.realize(DENY, sets())
    assert not world.reaches("a", "web", 80, 6)
    assert "EW-IN-LINK" not in world.rules(family=6)


async def test_a_link_that_was_renamed_is_found_anew_and_no_rule_stays_at_its_old_name(world):
    world.listen("web", 80)
    pod = await enforced(world, DENY, sets())
    world.ip("web", "link set eth0 down", "link set eth0 name net0", "link set net0 up", *addressed("net0")[1:])

    assert await pod.verify(DENY, sets()) != []
    pod.doubt()
    await pod.realize(DENY, sets())

    assert not world.reaches("a", "web", 80)
    assert "eth0" not in world.rules()


async def test_an_address_that_comes_late_is_told_and_the_others_are_guarded_meanwhile(world):
    world.listen("web", 80)
    world.ip("web", f"addr del {address('web', 6)}/64 dev eth0")
    async with running(world, Told(told(1, DENY, clients=set()))) as cven:
        await until("the Pod to be unenforceable", lambda: cven.state_of("uid-web") is PodState.UNENFORCEABLE)
        assert address("web", 6) in cven.exceptions[0].reason
        assert not world.reaches("a", "web", 80)

        world.ip("web", f"addr add {address('web', 6)}/64 dev eth0 nodad")
        await until("the Pod to be enforced", lambda: cven.state_of("uid-web") is PodState.ENFORCED)
        await until("the exception to end", lambda: cven.exceptions == ())


async def test_of_an_address_that_packets_reach_by_another_link_nothing_is_claimed(world):
    world.ip("web", *bare(world), *addressed("lo"))

    with pytest.raises(Unenforceable, match="on lo"):
        await pod_of(world).realize(DENY, sets())
    assert "EW-" not in world.rules()


async def test_every_address_on_the_link_is_guarded_told_or_not(world):
    world.ip("web", "addr add 10.77.1.200/24 dev eth0", "addr add fd77::200/64 dev eth0 nodad")
    listen(world, "web")
    assert reaches(world, "a", "10.77.1.200")

    await enforced(world, CLOSED, sets())

    assert not reaches(world, "a", "10.77.1.200")
    assert not ping(world, "a", "web", 6, to="fd77::200")


async def test_a_second_network_is_nobodys_business(world):
    second_network(world)
    for name in ("web", "a"):
        listen(world, name)

    await enforced(world, CLOSED, sets())

    assert reaches(world, "a", SECOND["web"])
    assert reaches(world, "web", SECOND["a"])
    assert not world.reaches("a", "web", 80)


async def test_a_second_network_that_the_runtime_does_tell_is_guarded_like_the_first(world):
    second_network(world)
    listen(world, "web")
    given = (*world.sandbox().addresses, addresses.pack(SECOND["web"]))
    pod: PodEnforcement = pod_of(world, sandbox=msgspec.structs.replace(world.sandbox(), addresses=given))

    await pod.realize(CLOSED, sets())

    assert not reaches(world, "a", SECOND["web"])
    assert not world.reaches("a", "web", 80)


@pytest.mark.parametrize("family", [4, 6])
async def test_a_pod_that_may_speak_with_nobody_speaks_with_itself(world, family):
    world.listen("web", 80, family)
    loopback = world.open_socket("web", family)
    loopback.bind(("127.0.0.1" if family == 4 else "::1", 81))
    loopback.listen()

    await enforced(world, CLOSED, sets(node=set()))

    assert world.reaches("web", "web", 80, family)
    assert ping(world, "web", "web", family)
    world.open_socket("web", family).connect(loopback.getsockname()[:2])


def test_the_node_s_addresses_are_not_a_pod_s(world):
    assert place(world.path("web"), both("node")).links == ()
    assert place(world.path("web"), [packed("web")]).absent == ()
