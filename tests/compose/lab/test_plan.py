"""Plans as values: who is where, under which name, with which address."""

from collections import Counter

import pytest

from compose.lab.plan import LabNode, LabPod, Layout, Plan, VirtualPort, make_plan, spread
from compose.lab.wires.wiring import FABRIC, HOST, NODE, changes, wire


def pod(name: str, *addresses: str, **more) -> LabPod:
    return LabPod(namespace="x", name=name, uid=f"uid-{name}", addresses=addresses, **more)


def homes(plan: Plan) -> dict[str, str]:
    return {planned.pod.name: planned.pod.node for planned in plan.pods}


def test_pods_without_a_node_are_spread_over_two() -> None:
    plan = make_plan("t", Layout(pods=tuple(pod(f"p{number}", f"10.0.0.{number + 1}") for number in range(9))))
    assert Counter(homes(plan).values()) == {"node-1": 5, "node-2": 4}


def test_a_pod_stays_where_it_is_whoever_comes_and_goes() -> None:
    pods = [pod(name, f"10.0.0.{number}") for number, name in enumerate("abcdef", start=1)]
    first = make_plan("t", Layout(pods=tuple(pods)))
    second = make_plan("t", Layout(pods=tuple(reversed(pods[2:]))), first)
    third = make_plan("t", Layout(pods=(*pods[3:], pod("new", "10.0.1.1"))), second)

    assert homes(second).items() <= homes(first).items()
    assert {name: node for name, node in homes(third).items() if name != "new"}.items() <= homes(first).items()


def test_a_pod_that_names_a_node_gets_it_even_if_nobody_declared_it() -> None:
    plan = make_plan("t", Layout(nodes=(LabNode(name="a"),), pods=(pod("p", "10.0.0.1", node="b"),)))
    assert [node.name for node in plan.nodes] == ["a", "b"]
    assert homes(plan) == {"p": "b"}


def test_host_network_pods_bring_their_nodes_address() -> None:
    pods = (
        pod("one", "172.18.0.2", host_network=True),
        pod("two", "172.18.0.3", host_network=True),
        pod("also-one", "172.18.0.2", host_network=True),
    )
    placed = {each.name: each.node for each in spread(pods, ())}
    assert placed["one"] == placed["also-one"] != placed["two"]

    plan = make_plan("t", Layout(pods=pods))
    assert {planned.netns for planned in plan.pods} == {node.netns for node in plan.nodes}
    for planned in plan.pods:
        assert planned.pod.addresses[0] in plan.node(planned.pod.node).addresses


def test_a_node_has_an_address_of_both_families_its_own_first() -> None:
    plan = make_plan("t", Layout(nodes=(LabNode(name="a", addresses=("192.0.2.1",)), LabNode(name="b"))))
    assert plan.node("a").addresses == ("192.0.2.1", "fd00:ea57::1")
    assert plan.node("b").addresses == ("100.64.0.2", "fd00:ea57::2")


def test_an_address_that_two_pods_claim_is_routed_to_the_first() -> None:
    plan = make_plan("t", Layout(pods=(pod("a", "10.0.0.1"), pod("b", "10.0.0.1", "fd00::1"))))
    assert plan.pod("x/a").routed == ("10.0.0.1",)
    assert plan.pod("x/b").routed == ("fd00::1",)


def test_names_are_unique_and_fit_the_kernel() -> None:
    pods = (
        LabPod(namespace="a-b", name="c"),
        LabPod(namespace="a", name="b-c"),
        LabPod(namespace="a", name="b.c"),
        LabPod(namespace="n" * 63, name="p" * 253),
        LabPod(namespace="n" * 63, name="p" * 252 + "q"),
    )
    plan = make_plan("t", Layout(pods=pods))
    assert len({planned.netns for planned in plan.pods}) == len(pods)
    assert len({planned.link for planned in plan.pods}) == len(pods)
    assert all(len(planned.netns) < 256 and len(planned.link) <= 15 for planned in plan.pods)
    assert all(planned.netns.startswith("ew-lab-t-") for planned in plan.pods)


def test_more_nodes_than_the_lab_can_number_are_refused() -> None:
    with pytest.raises(ValueError, match="at most 250 nodes"):
        make_plan("t", Layout(nodes=tuple(LabNode(name=f"n{number}") for number in range(251))))


def test_the_fabric_comes_before_nodes_and_nodes_before_pods() -> None:
    plan = make_plan("t", Layout(pods=(pod("a", "10.0.0.1"),)))
    wirings = wire(plan)
    todo = changes({}, wirings)
    assert todo.create == tuple(wirings)
    assert [{wirings[name].rank for name, _ in step} for step in todo.apply] == [{FABRIC}, {NODE}, {HOST}]


def test_an_equal_plan_changes_nothing() -> None:
    layout = Layout(pods=(pod("a", "10.0.0.1"), pod("b", "fd00::1")), externals=("203.0.113.1",))
    plan = make_plan("t", layout)
    todo = changes(wire(plan), wire(make_plan("t", layout, plan)))
    assert not any((todo.detach, todo.delete, todo.create, *todo.apply, todo.clean))


def test_only_pods_have_a_default_route_and_it_ends_at_their_node() -> None:
    plan = make_plan("t", Layout(pods=(pod("a", "10.0.0.1", "fd00::1"),), externals=("203.0.113.1",)))
    wirings = wire(plan)
    assert {name for name, wiring in wirings.items() if wiring.has_default_route} == {plan.pod("x/a").netns}
    lines = [item.apply for item in wirings[plan.pod("x/a").netns].items.values()]
    assert "route replace 0.0.0.0/0 via 100.64.1.1 dev eth0" in lines
    assert "route replace ::/0 via fd00:ea57:1::1 dev eth0" in lines


def test_a_new_address_comes_before_the_old_one_goes() -> None:
    before = make_plan("t", Layout(pods=(pod("a", "10.0.0.1"),)))
    after = make_plan("t", Layout(pods=(pod("a", "10.0.0.2"),)), before)
    todo = changes(wire(before), wire(after))
    netns = after.pod("x/a").netns

    assert (todo.detach, todo.delete, todo.create) == ((), (), ())
    assert dict(todo.apply[HOST])[netns] == ("addr replace 10.0.0.2/32 dev eth0",)
    assert dict(todo.clean)[netns] == ("addr del 10.0.0.1/32 dev eth0",)
    assert dict(todo.clean)[after.node("node-2").netns] == ("route del 10.0.0.1/32",)


def test_a_pod_on_another_node_is_a_new_namespace_whose_old_link_goes_first() -> None:
    before = make_plan("t", Layout(pods=(pod("a", "10.0.0.1", node="node-1"),)))
    after = make_plan("t", Layout(pods=(pod("a", "10.0.0.1", node="node-2"),)), before)
    todo = changes(wire(before), wire(after))

    assert todo.detach == ((before.node("node-1").netns, (f"link del {before.pod('x/a').link}",)),)
    assert todo.delete == todo.create == (after.pod("x/a").netns,)


def test_the_way_to_a_node_stays_where_a_service_has_its_address() -> None:
    nodes = (LabNode(name="a", addresses=("192.0.2.1",)), LabNode(name="b"))
    taken = VirtualPort(service="x/s", addresses=("192.0.2.1", "10.96.0.9"), port=80)
    plan = make_plan("t", Layout(nodes=nodes, services=(taken,)))

    items = wire(plan)[plan.node("b").netns].items

    assert items["route 192.0.2.1/32"].apply.endswith("dev fabric0")
    assert items["route 10.96.0.9/32"].apply.endswith("dev br0")
