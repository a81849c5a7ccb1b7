"""Small worlds for the laws of the folds: objects from little pools, so that everything collides with everything."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st

from processors.core.policy_fold import PolicyFold, PolicySettings, Step
from processors.core.reading import Reader
from schemas import names
from schemas.events import EPOCH, KINDS, SYNC, EpochStart, Event, EventType, encode_event, encode_object
from schemas.objects import decode_object
from schemas.policy import Policy
from schemas.programs import Mode, Program
from streams.log import Record

Object = dict[str, Any]
Change = tuple[str, Object | None]
"""A log key, and the object it now holds."""

SETTINGS = PolicySettings(namespace_modes={"quiet": Mode.IDLE})
NAMESPACES = ("shop", "bank", "quiet")
PODS = ("p", "q", "r")
ADDRESSES = ("10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "::ffff:10.0.0.2", "172.18.0.2")

PEERS: tuple[Object, ...] = (
    {"podSelector": {}},
    {"podSelector": {"matchLabels": {"app": "web"}}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}},
    {"podSelector": {"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}},
    {"namespaceSelector": {}},
    {"namespaceSelector": {"matchLabels": {"team": "a"}}, "podSelector": {"matchLabels": {"app": "db"}}},
    {"namespaceSelector": {"matchExpressions": [{"key": "team", "operator": "DoesNotExist"}]}},
    {"ipBlock": {"cidr": "10.0.0.0/24", "except": ["10.0.0.2/32"]}},
    {"ipBlock": {"cidr": "0.0.0.0/0"}},
    {"ipBlock": {"cidr": "fd00::/64"}},
    {"ipBlock": {"cidr": "nonsense"}},
)
PORTS: tuple[Object, ...] = (
    {"port": 80},
    {"port": "http"},
    {"port": "dns", "protocol": "UDP"},
    {"port": 8000, "endPort": 9000},
    {"protocol": "SCTP"},
    {"port": "http", "endPort": 90},
)


def _some(items: Sequence[Object]) -> st.SearchStrategy[list[Object]]:
    return st.lists(st.sampled_from(items), max_size=3)


def _rule(peers: str) -> st.SearchStrategy[Object]:
    return st.fixed_dictionaries({}, optional={peers: _some(PEERS), "ports": _some(PORTS)})


policies = st.fixed_dictionaries(
    {"podSelector": st.sampled_from(({}, {"matchLabels": {"app": "web"}}, {"matchLabels": {"app": "db"}}))},
    optional={
        "policyTypes": st.sampled_from((["Ingress"], ["Egress"], ["Ingress", "Egress"], ["Sideways"])),
        "ingress": st.lists(_rule("from"), max_size=2),
        "egress": st.lists(_rule("to"), max_size=2),
    },
)


def _meta(name: str, namespace: str = "", **more: object) -> Object:
    return {"name": name, "namespace": namespace, **more}


@st.composite
def namespaces(draw: st.DrawFn) -> Object:
    name = draw(st.sampled_from(NAMESPACES))
    labels = draw(st.sampled_from(({"team": "a"}, {"team": "b"}, {})))
    return {"kind": "Namespace", "metadata": _meta(name, uid=name, labels=labels)}


@st.composite
def nodes(draw: st.DrawFn) -> Object:
    name = draw(st.sampled_from(("n1", "n2")))
    found = draw(st.lists(st.sampled_from(("172.18.0.2", "172.18.0.3", "fd01::3")), max_size=2))
    status = {"addresses": [{"type": "InternalIP", "address": address} for address in found]}
    return {"kind": "Node", "metadata": _meta(name, uid=name), "status": status}


@st.composite
def pods(draw: st.DrawFn) -> Object:
    namespace, name = draw(st.sampled_from(NAMESPACES)), draw(st.sampled_from(PODS))
    ports = draw(
        st.lists(st.sampled_from(({"name": "http", "containerPort": 80}, {"name": "http", "containerPort": 8080})))
    )
    found = draw(st.lists(st.sampled_from(ADDRESSES), max_size=2))
    uid = f"{namespace}-{name}-{draw(st.integers(1, 2))}"
    return {
        "kind": "Pod",
        "metadata": _meta(
            name,
            namespace,
            uid=uid,
            labels=draw(st.sampled_from((None, {"app": "web"}, {"app": "db"}, {"app": "web", "tier": "1"}))),
            creationTimestamp=draw(st.sampled_from((None, "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"))),
        ),
        "spec": {
            "nodeName": draw(st.sampled_from(("n1", "n2", ""))),
            "hostNetwork": draw(st.sampled_from((None, None, None, True))),
            "containers": [{"name": "c", "ports": ports}],
        },
        "status": {
            "phase": draw(st.sampled_from(("Running", "Running", "Pending", "Succeeded"))),
            "podIPs": [{"ip": address} for address in found],
        },
    }


@st.composite
def network_policies(draw: st.DrawFn) -> Object:
    namespace, name = draw(st.sampled_from(NAMESPACES)), draw(st.sampled_from(("one", "two")))
    uid = f"{namespace}-{name}-{draw(st.integers(1, 2))}"
    return {"kind": "NetworkPolicy", "metadata": _meta(name, namespace, uid=uid), "spec": draw(policies)}


SERVICE_PORTS: tuple[list[Object], ...] = (
    [{"port": 80}],
    [{"port": 80, "nodePort": 30080}, {"name": "b", "port": 81}],
    [{"port": 30080, "nodePort": 30081}],
    [{"name": "b", "port": 81, "nodePort": 30080}, {"name": "dns", "port": 53, "protocol": "UDP"}],
)
BALANCED: tuple[list[Object], ...] = (
    [{"ip": "203.0.113.2"}],
    [{"ip": "203.0.113.1", "ipMode": "VIP"}, {"ip": "203.0.113.3", "ipMode": "Proxy"}],
    [{"hostname": "lb.example.org"}, {"ip": "172.18.0.2"}],
)


@st.composite
def services(draw: st.DrawFn) -> Object:
    """Front doors that collide: two Services at one address, an external address that is a node's, one node port."""
    namespace, name = draw(st.sampled_from(NAMESPACES)), draw(st.sampled_from(("front", "back")))
    spec = {
        "type": draw(st.sampled_from(("ClusterIP", "NodePort", "LoadBalancer", "ExternalName"))),
        "clusterIPs": draw(st.sampled_from((["10.96.0.1"], ["10.96.0.2", "fd96::2"], ["None"]))),
        "externalIPs": draw(st.sampled_from((None, ["203.0.113.1"], ["172.18.0.2", "fd01::3"]))),
        "ports": draw(st.sampled_from(SERVICE_PORTS)),
        "internalTrafficPolicy": draw(st.sampled_from((None, "Cluster", "Local"))),
        "externalTrafficPolicy": draw(st.sampled_from((None, "Cluster", "Local"))),
    }
    status = {"loadBalancer": {"ingress": draw(st.sampled_from((None, *BALANCED)))}}
    return {"kind": "Service", "metadata": _meta(name, namespace, uid=name), "spec": spec, "status": status}


conditions = st.fixed_dictionaries(
    {}, optional={name: st.sampled_from((None, True, False)) for name in ("ready", "serving", "terminating")}
)


def endpoints(addresses: Sequence[str]) -> st.SearchStrategy[Object]:
    """An endpoint at one of *addresses*, ready more often than not."""
    return st.fixed_dictionaries(
        {
            "addresses": st.sampled_from([[address] for address in addresses]),
            "conditions": st.one_of(st.just({}), conditions),
            "nodeName": st.sampled_from((None, "n1", "n2")),
        },
        optional={"hints": st.just({"forZones": [{"name": "west"}]})},
    )


@st.composite
def slices(draw: st.DrawFn) -> Object:
    """Pods, nodes and addresses from beyond the cluster, by hand or not; a name may be another port in each slice."""
    namespace, name = draw(st.sampled_from(NAMESPACES)), draw(st.sampled_from(("s1", "s2")))
    labels = {"kubernetes.io/service-name": draw(st.sampled_from(("front", "back")))}
    ports = (
        [{"port": 80}],
        [{"port": 8080}],
        [{"name": "b", "port": 8080}],
        [{"port": None}, {"name": "dns", "port": 53, "protocol": "UDP"}],
    )
    return {
        "kind": "EndpointSlice",
        "metadata": _meta(name, namespace, uid=name, labels=labels),
        "addressType": draw(st.sampled_from(("IPv4", "IPv4", "IPv6"))),
        "endpoints": draw(st.lists(endpoints((*ADDRESSES, "192.0.2.1")), max_size=3)),
        "ports": draw(st.sampled_from(ports)),
    }


objects = st.one_of(
    pods(), pods(), pods(), network_policies(), network_policies(), namespaces(), services(), slices(), nodes()
)


def key_of(found: Object) -> str:
    meta = found["metadata"]
    return names.key(found["kind"], meta["namespace"], meta["name"])


def _settled() -> list[Object]:
    """A world in which everything has something to do: Pods behind Services, isolated both ways."""

    def pod(namespace: str, name: str, address: str, **labels: str) -> Object:
        ports = [{"name": "http", "containerPort": 80}]
        return {
            "kind": "Pod",
            "metadata": _meta(name, namespace, uid=f"{namespace}-{name}-1", labels=labels),
            "spec": {"nodeName": "n1", "containers": [{"name": "c", "ports": ports}]},
            "status": {"phase": "Running", "podIPs": [{"ip": address}]},
        }

    def service(name: str, address: str, *endpoints: str, **more: object) -> list[Object]:
        ports = [{"port": 80, "nodePort": 30080 + len(name)}]
        spec = {"type": "NodePort", "clusterIPs": [address], "ports": ports, **more}
        return [
            {"kind": "Service", "metadata": _meta(name, "shop", uid=name), "spec": spec},
            {
                "kind": "EndpointSlice",
                "metadata": _meta(f"{name}-1", "shop", uid=name, labels={"kubernetes.io/service-name": name}),
                "addressType": "IPv4",
                "endpoints": [{"addresses": [item]} for item in endpoints],
                "ports": [{"port": 80}],
            },
        ]

    to_web = {"to": [{"podSelector": {"matchLabels": {"app": "web"}}}]}
    policy = {"podSelector": {}, "policyTypes": ["Ingress", "Egress"], "egress": [to_web]}
    return [
        *({"kind": "Namespace", "metadata": _meta(name, uid=name, labels={"team": "a"})} for name in NAMESPACES),
        {
            "kind": "Node",
            "metadata": _meta("n1", uid="n1"),
            "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.2"}]},
        },
        pod("shop", "p", "10.0.0.1", app="web"),
        pod("shop", "q", "10.0.0.2", app="db"),
        pod("bank", "p", "10.0.0.3"),
        *service("front", "10.96.0.1", "10.0.0.1"),
        *service("back", "10.96.0.2", "10.0.0.1", "10.0.0.2"),
        *service("other", "10.96.0.3", "172.18.0.2"),
        *service(  # at an address of the node, on the node port of ``front``
            "rival", "10.96.0.4", "10.0.0.2", type="ClusterIP", externalIPs=["172.18.0.2"], ports=[{"port": 30085}]
        ),
        {"kind": "NetworkPolicy", "metadata": _meta("one", "shop", uid="shop-one-1"), "spec": policy},
    ]


SETTLED = _settled()


@st.composite
def histories(draw: st.DrawFn) -> list[Change]:
    """Changes of a little cluster: objects come, change, go and come again."""
    changes: list[Change] = [(key_of(found), found) for found in SETTLED if draw(st.integers(0, 9))]
    for found in draw(st.lists(objects, min_size=1, max_size=20)):
        changes.append((key_of(found), found))
        if draw(st.integers(0, 5)) == 0:
            changes.append((draw(st.sampled_from([key for key, _ in changes])), None))
    return changes


def newest(changes: Iterable[Change]) -> dict[str, Object | None]:
    """The last state of every key."""
    return dict(changes)


class Writer:
    """Writes changes as records of one epoch, offsets rising by more than one as in a compacted log."""

    def __init__(self) -> None:
        self._offset = 0
        self._last: dict[str, Object] = {}

    def opening(self) -> list[Record]:
        start = msgspec.Raw(encode_object(EpochStart(kinds=KINDS, writer="test")))
        event = Event(type=EventType.ADDED, kind=EPOCH, name="-", object=start)
        return [self._record(event.key, encode_event(event))]

    def syncs(self) -> list[Record]:
        events = [Event(type=EventType.ADDED, kind=SYNC, name=kind, epoch=0) for kind in KINDS]
        return [self._record(event.key, encode_event(event)) for event in events]

    def write(self, changes: Iterable[Change]) -> list[Record]:
        records: list[Record] = []
        for key, found in changes:
            if found is not None:
                type_ = EventType.MODIFIED if key in self._last else EventType.ADDED
                self._last[key] = found
                records.append(self._record(key, self._event(type_, found)))
            elif (last := self._last.pop(key, None)) is not None:
                records.append(self._record(key, self._event(EventType.DELETED, last)))
                records.append(self._record(key, None))
            else:
                records.append(self._record(key, None))
        return records

    def _event(self, type_: EventType, found: Object) -> bytes:
        meta = found["metadata"]
        projected = decode_object(found["kind"], msgspec.json.encode(found))
        return encode_event(
            Event(
                type=type_,
                kind=found["kind"],
                namespace=meta["namespace"],
                name=meta["name"],
                uid=meta["uid"],
                epoch=0,
                object=msgspec.Raw(encode_object(projected)),
            )
        )

    def _record(self, key: str, value: bytes | None) -> Record:
        record = Record(self._offset, 0, key, value)
        self._offset += 2
        return record


class Receiver:
    """Applies changes as an enforcer does, and refuses those that say nothing or contradict what it has."""

    def __init__(self) -> None:
        self.programs: dict[tuple[str, str], Program] = {}
        self.sets: dict[str, frozenset[bytes]] = {}

    def apply(self, step: Step) -> None:
        change = step.change
        for item in change.sets:
            if item.gone:
                assert item.id in self.sets, f"{item.id} goes, but was never there"
                del self.sets[item.id]
                continue
            have = self.sets.get(item.id)
            assert have is None or item.added or item.removed, f"{item.id}: a change that changes nothing"
            have = have or frozenset()
            assert not item.added & have
            assert item.removed <= have
            self.sets[item.id] = (have | item.added) - item.removed
        for program in change.programs:
            key = (program.node, program.uid)
            assert self.programs.get(key) != program, "a program that was already there"
            self.programs[key] = program
        for key in change.gone:
            del self.programs[key]
        for program in self.programs.values():
            assert program.sets <= self.sets.keys(), "a program names a set that does not exist"

    @property
    def policy(self) -> Policy:
        return Policy(programs=self.programs, sets=self.sets)


class Player:
    """A reader and a fold, fed with records."""

    def __init__(self, settings: PolicySettings = SETTINGS) -> None:
        self.reader = Reader()
        self.fold = PolicyFold(settings)
        self.receiver = Receiver()

    def play(self, records: Iterable[Record]) -> Step:
        batch = self.reader.read(records)
        assert not batch.poison, batch.poison
        step = self.fold.fold(batch.facts)
        self.receiver.apply(step)
        return step


def folded(changes: Iterable[Change], settings: PolicySettings = SETTINGS) -> Policy:
    """The policy of *changes*, folded in one batch."""
    writer, player = Writer(), Player(settings)
    player.play([*writer.opening(), *writer.write(changes), *writer.syncs()])
    return player.fold.policy()


def played(player: Player, batches: Iterable[Sequence[Record]], each: Callable[[], None] = lambda: None) -> None:
    for records in batches:
        player.play(records)
        each()
