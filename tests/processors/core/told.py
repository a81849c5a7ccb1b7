"""A policy fold that is told objects in few words, one batch at a time."""

from collections.abc import Iterable

from processors.core.policy_fold import PolicySettings
from schemas.programs import Program
from tests.processors.core.worlds import Change, Object, Player, Writer, key_of


def pod(name: str, address: str, namespace: str = "shop", **labels: str) -> Object:
    return {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace, "uid": f"{namespace}-{name}", "labels": labels},
        "spec": {"nodeName": "n1"},
        "status": {"phase": "Running", "podIPs": [{"ip": address}]},
    }


def node_at(name: str, *addresses: str) -> Object:
    return {
        "kind": "Node",
        "metadata": {"name": name, "namespace": "", "uid": name},
        "status": {"addresses": [{"type": "InternalIP", "address": address} for address in addresses]},
    }


def policy(name: str, spec: object, uid: str = "1", namespace: str = "shop") -> Object:
    return {"kind": "NetworkPolicy", "metadata": {"name": name, "namespace": namespace, "uid": uid}, "spec": spec}


def service(endpoints: Iterable[str], **spec: object) -> list[Object]:
    labels = {"kubernetes.io/service-name": "web"}
    return [
        {
            "kind": "Service",
            "metadata": {"name": "web", "namespace": "shop", "uid": "web"},
            "spec": {"clusterIPs": ["10.96.0.1"], "ports": [{"port": 80}], **spec},
        },
        {
            "kind": "EndpointSlice",
            "metadata": {"name": "web-1", "namespace": "shop", "uid": "web-1", "labels": labels},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address]} for address in endpoints],
            "ports": [{"port": 80}],
        },
    ]


def changes(*objects: Object) -> list[Change]:
    return [(key_of(found), found) for found in objects]


class Told(Player):
    """A fold that is told objects one batch at a time."""

    def __init__(self, *objects: Object, settings: PolicySettings | None = None) -> None:
        super().__init__(settings or PolicySettings())
        self.writer = Writer()
        self.play(self.writer.opening())
        self.told = self.tell(*objects)

    def tell(self, *objects: Object) -> frozenset[tuple[str, str]]:
        """Returns who was touched."""
        return self.play(self.writer.write(changes(*objects))).touched

    def untell(self, *keys: str) -> frozenset[tuple[str, str]]:
        return self.play(self.writer.write([(key, None) for key in keys])).touched

    def program(self, name: str) -> Program:
        (found,) = (program for program in self.fold.policy().programs.values() if program.name == name)
        return found
