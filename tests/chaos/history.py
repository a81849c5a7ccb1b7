"""A small cluster and a seeded history of it: every change is an ordinary one, and any may follow any other.

Beside the Pods that change there are three that never do, in the namespace ``vault``: everybody is denied to ``safe``
and ``asker`` is allowed to ``well``, in every state, whatever else happens.
"""

from collections.abc import Callable
from random import Random
from typing import Any, Final

from producers.core.manifests import read_document
from schemas.objects import TYPES, KubernetesObject

NODES: Final = ("node-1", "node-2")
SPACES: Final = ("pay", "shop")
RESERVED: Final = "vault"
PORTS: Final = (80, 90)
PODS: Final = 7
"""Those that change."""
LABELS: Final = {"app": ("api", "db", "web"), "tier": ("back", "front")}
TEAMS: Final = ("blue", "red")
HOSTS: Final = range(10, 40)
"""Few, so that an address soon comes back with another Pod."""
POLICIES: Final = 6

Document = dict[str, Any]


class History:
    """What there is now; `change` makes it something else, by chance that follows from *seed*."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)
        self._documents: dict[tuple[str, str, str], Document] = {}
        self._pods_made = 0
        for space in (*SPACES, RESERVED):
            self._put("Namespace", "", space, metadata={"labels": {"team": self._random.choice(TEAMS)}})
        for number, name in enumerate(("safe", "asker", "well")):
            self._make_pod(RESERVED, name, NODES[number % 2], {"role": name})
        self._put_policy(RESERVED, "safe", {"podSelector": {"matchLabels": {"role": "safe"}}})
        asker = {"podSelector": {"matchLabels": {"role": "asker"}}}
        well = {
            "podSelector": {"matchLabels": {"role": "well"}},
            "ingress": [{"from": [asker], "ports": [{"protocol": "UDP", "port": PORTS[0]}]}],
        }
        self._put_policy(RESERVED, "well", well)
        for number in range(PODS):
            self._create_pod(number)

    def objects(self) -> list[KubernetesObject]:
        """All there is, as a cluster would list it but for what follows from it."""
        found = [item for document in self._documents.values() for item in read_document(document)]
        return [item for item in found if isinstance(item, tuple(TYPES.values()))]

    def change(self) -> str:
        """Make one change and say which."""
        kinds: dict[Callable[[], str | None], int] = {
            self._relabel_pod: 5,
            self._write_policy: 6,
            self._delete_policy: 3,
            self._replace_pod: 2,
            self._delete_pod: 1,
            self._recreate_pod: 2,
            self._relabel_namespace: 1,
            self._write_service: 1,
            self._delete_service: 1,
        }
        while True:
            (chosen,) = self._random.choices(list(kinds), list(kinds.values()))
            if done := chosen():
                return done

    # --- changes, each None where there is nothing to change ----------------------------------------------------------

    def _relabel_pod(self) -> str | None:
        pod = self._any("Pod")
        if pod is None:
            return None
        pod["metadata"] = pod["metadata"] | {"labels": self._labels()}
        return f"label Pod {pod['metadata']['name']}"

    def _replace_pod(self) -> str | None:
        pod = self._any("Pod")
        if pod is None:
            return None
        meta = pod["metadata"]
        self._make_pod(meta["namespace"], meta["name"], self._random.choice(NODES), meta["labels"])
        return f"replace Pod {meta['name']} by another of its name"

    def _delete_pod(self) -> str | None:
        if len(self._all("Pod")) <= PODS - 3:
            return None
        return self._delete("Pod")

    def _recreate_pod(self) -> str | None:
        missing = [n for n in range(PODS) if ("Pod", *_home(n)) not in self._documents]
        if not missing:
            return None
        return self._create_pod(self._random.choice(missing))

    def _create_pod(self, number: int) -> str:
        self._make_pod(*_home(number), self._random.choice(NODES), self._labels())
        return f"create Pod {_home(number)[1]}"

    def _relabel_namespace(self) -> str:
        space = self._random.choice(SPACES)
        self._put("Namespace", "", space, metadata={"labels": {"team": self._random.choice(TEAMS)}})
        return f"label Namespace {space}"

    def _write_policy(self) -> str:
        space, name = self._random.choice(SPACES), f"policy-{self._random.randrange(POLICIES)}"
        self._put_policy(space, name, self._policy_spec())
        return f"write NetworkPolicy {space}/{name}"

    def _delete_policy(self) -> str | None:
        return self._delete("NetworkPolicy")

    def _write_service(self) -> str:
        space, number = self._random.choice(SPACES), self._random.randrange(2)
        spec = {
            "clusterIP": f"10.96.{SPACES.index(space)}.{number + 1}",
            "selector": {"app": self._random.choice(LABELS["app"])},
            "ports": [{"protocol": "UDP", "port": 80, "targetPort": self._random.choice(PORTS)}],
        }
        self._put("Service", space, f"service-{number}", spec=spec)
        return f"write Service {space}/service-{number}"

    def _delete_service(self) -> str | None:
        return self._delete("Service")

    # --- parts --------------------------------------------------------------------------------------------------------

    def _all(self, kind: str) -> list[Document]:
        return [found for (known, space, _), found in self._documents.items() if known == kind and space != RESERVED]

    def _any(self, kind: str) -> Document | None:
        found = self._all(kind)
        return self._random.choice(found) if found else None

    def _delete(self, kind: str) -> str | None:
        chosen = self._any(kind)
        if chosen is None:
            return None
        space, name = chosen["metadata"]["namespace"], chosen["metadata"]["name"]
        del self._documents[kind, space, name]
        return f"delete {kind} {space}/{name}"

    def _put(self, kind: str, space: str, name: str, *, metadata: Document | None = None, **parts: Any) -> None:
        named = {"name": name, **({"namespace": space} if space else {}), **(metadata or {})}
        self._documents[kind, space, name] = {"kind": kind, "metadata": named, **parts}

    def _put_policy(self, space: str, name: str, spec: Document) -> None:
        self._put("NetworkPolicy", space, name, spec=spec)

    def _make_pod(self, space: str, name: str, node: str, labels: dict[str, str]) -> None:
        """A new Pod, not the one that may be there under its name; at an address that nobody has."""
        self._pods_made += 1
        self._documents.pop(("Pod", space, name), None)
        number = NODES.index(node) + 1
        taken = {document["status"]["podIP"] for kind, document in self._kinds() if kind == "Pod"}
        host = self._random.choice([each for each in HOSTS if f"10.244.{number}.{each}" not in taken])
        both = [f"10.244.{number}.{host}", f"fd00:10:244:{number}::{host:x}"]
        self._put(
            "Pod",
            space,
            name,
            metadata={"uid": f"pod-{self._pods_made}", "labels": labels},
            spec={"nodeName": node, "containers": [{"name": "app", "image": "app"}]},
            status={"phase": "Running", "podIP": both[0], "podIPs": [{"ip": address} for address in both]},
        )

    def _kinds(self) -> list[tuple[str, Document]]:
        return [(kind, document) for (kind, _, _), document in self._documents.items()]

    def _labels(self) -> dict[str, str]:
        return {key: self._random.choice(values) for key, values in LABELS.items()}

    def _selector(self) -> Document:
        """Of Pods: everything, one label, or an expression."""
        key = self._random.choice(list(LABELS))
        value = self._random.choice(LABELS[key])
        return self._random.choice(
            (
                {},
                {"matchLabels": {key: value}},
                {"matchLabels": {key: value}},
                {"matchExpressions": [{"key": key, "operator": "NotIn", "values": [value]}]},
            )
        )

    def _peer(self) -> Document:
        match self._random.randrange(5):
            case 0:
                return {"namespaceSelector": {"matchLabels": {"team": self._random.choice(TEAMS)}}}
            case 1:
                return {"namespaceSelector": {}, "podSelector": self._selector()}
            case 2:
                number = self._random.choice((1, 2))
                excepted = f"10.244.{number}.{self._random.choice((16, 24, 32))}/29"
                return {"ipBlock": {"cidr": f"10.244.{number}.0/24", "except": [excepted]}}
            case _:
                return {"podSelector": self._selector()}

    def _rules(self, word: str) -> list[Document]:
        rules = []
        for _ in range(self._random.randrange(3)):
            rule: Document = {word: [self._peer() for _ in range(self._random.randrange(1, 3))]}
            match self._random.randrange(3):
                case 0:
                    rule["ports"] = [{"protocol": "UDP", "port": self._random.choice(PORTS)}]
                case 1:
                    rule["ports"] = [{"protocol": "UDP", "port": 85, "endPort": 95}]
            rules.append(rule)
        return rules

    def _policy_spec(self) -> Document:
        types = self._random.choice((["Ingress"], ["Ingress"], ["Egress"], ["Ingress", "Egress"]))
        spec: Document = {"podSelector": self._selector(), "policyTypes": types}
        if "Ingress" in types:
            spec["ingress"] = self._rules("from")
        if "Egress" in types:
            spec["egress"] = self._rules("to")
        return spec


def _home(number: int) -> tuple[str, str]:
    """Namespace and name of the changing Pod *number*."""
    return SPACES[number % 2], f"pod-{number}"
