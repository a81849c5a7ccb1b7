"""The work for one event is that of what it changes, however large the rest: counted in function calls, never timed."""

import sys
from collections.abc import Callable, Sequence
from types import FrameType

import pytest

from processors.core.policy_fold import PolicyFold
from tests.processors.core.worlds import Change, Object, Player, Writer, key_of

TOLERANCE = 1.2


def pod(name: str, address: str, namespace: str = "shop", **labels: str) -> Object:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


def policy(name: str, subject: Object, peer: Object, namespace: str = "shop", direction: str = "ingress") -> Object:
    spec = {"podSelector": subject, direction: [{"from" if direction == "ingress" else "to": [peer]}]}
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace, "uid": name}, "spec": spec}


def namespace(name: str, **labels: str) -> Object:
    return {"kind": "Namespace", "metadata": {"name": name, "namespace": "", "uid": name, "labels": labels}}


def service(name: str, address: str, endpoint: str) -> list[Object]:
    labels = {"kubernetes.io/service-name": name}
    return [
        {
            "kind": "Service",
            "metadata": {"name": name, "namespace": "shop", "uid": name},
            "spec": {"clusterIPs": [address], "ports": [{"port": 80}]},
        },
        {
            "kind": "EndpointSlice",
            "metadata": {"name": name, "namespace": "shop", "uid": name, "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [endpoint]}],
            "ports": [{"port": 80}],
        },
    ]


def app(name: str) -> Object:
    return {"matchLabels": {"app": name}}


def changes(objects: Sequence[Object]) -> list[Change]:
    return [(key_of(found), found) for found in objects]


class Counted:
    """A fold of *world*, and how many function calls one more change costs it."""

    def __init__(self, world: Sequence[Object]) -> None:
        self._writer, self._player = Writer(), Player()
        self._player.play([*self._writer.opening(), *self._writer.write(changes(world))])

    def calls(self, *objects: Object) -> int:
        batch = self._player.reader.read(self._writer.write(changes(objects)))
        count = 0

        def watch(_frame: FrameType, event: str, _argument: object) -> None:
            nonlocal count
            count += event in ("call", "c_call")

        sys.setprofile(watch)
        try:
            self._player.fold.fold(batch.facts)
        finally:
            sys.setprofile(None)
        assert count
        return count

    @property
    def fold(self) -> PolicyFold:
        return self._player.fold


SHOP = [
    namespace("shop", team="a"),
    pod("web", "10.0.0.1", app="web"),
    pod("db", "10.0.0.2", app="db"),
    policy("web", app("web"), {"podSelector": app("db")}),
    policy("db", app("db"), {"podSelector": app("web")}),
]


def unrelated_policies(count: int) -> list[Object]:
    return [policy(f"p{n}", app(f"other-{n}"), {"podSelector": app(f"peer-{n}")}) for n in range(count)]


def unrelated_pods(count: int) -> list[Object]:
    return [pod(f"u{n}", f"10.1.{n // 250}.{n % 250}", app=f"else-{n % 50}") for n in range(count)]


def unrelated_namespaces(count: int) -> list[Object]:
    return [
        item
        for n in range(count)
        for item in (
            namespace(f"ns{n}", team=f"t{n}"),
            pod("p", f"10.2.{n // 250}.{n % 250}", f"ns{n}", app="web"),
            policy(f"q{n}", {}, {"namespaceSelector": {"matchLabels": {"team": f"t{n}"}}}, f"ns{n}"),
        )
    ]


def services(count: int) -> list[Object]:
    out = policy("out", app("web"), {"podSelector": app("db")}, direction="egress")
    return [out, *(item for n in range(count) for item in service(f"s{n}", f"10.96.{n // 250}.{n % 250}", "10.0.0.9"))]


@pytest.mark.parametrize("rest", [unrelated_policies, unrelated_pods, unrelated_namespaces, services])
@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda: pod("web", "10.0.0.7", app="web"), id="address"),
        pytest.param(lambda: pod("web", "10.0.0.1", app="db"), id="label"),
        pytest.param(lambda: pod("new", "10.0.0.8", app="web"), id="new-pod"),
        pytest.param(lambda: policy("web", app("web"), {"podSelector": app("web")}), id="policy"),
        pytest.param(lambda: policy("out", app("web"), {"podSelector": app("web")}, direction="egress"), id="egress"),
        pytest.param(lambda: service("mine", "10.97.0.1", "10.0.0.2")[0], id="service"),
        pytest.param(lambda: SHOP[1], id="nothing"),
    ],
)
def test_what_a_change_does_not_concern_costs_nothing(
    rest: Callable[[int], list[Object]], change: Callable[[], Object]
) -> None:
    few = Counted([*SHOP, *rest(20)]).calls(change())
    many = Counted([*SHOP, *rest(1000)]).calls(change())
    assert many <= few * TOLERANCE


def test_a_batch_of_many_changes_of_one_pod_writes_what_it_ends_in() -> None:
    writer, player = Writer(), Player()
    player.play([*writer.opening(), *writer.write(changes(SHOP))])
    there_and_back = [pod("web", "10.0.0.7", app="web"), pod("web", "10.0.0.7", app="db"), SHOP[1]]
    step = player.play(writer.write(changes(there_and_back)))
    assert not step.change
    assert step.touched == frozenset()


def test_pods_that_no_policy_can_tell_apart_share_their_directions() -> None:
    counted = Counted([*SHOP, *(pod(f"web-{n}", f"10.3.0.{n}", app="web") for n in range(20))])
    programs = counted.fold.policy().programs.values()
    assert len({id(program.ingress) for program in programs if program.name.startswith("web")}) == 1


def test_two_ways_to_write_a_selector_share_one_set() -> None:
    same = {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["db", "db"]}]}}
    before = Counted(SHOP).fold.policy().sets
    after = Counted([*SHOP, policy("again", app("web"), same)]).fold.policy().sets
    assert after == before
