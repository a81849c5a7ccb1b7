"""Objects as a layout, and what a control plane would have added."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from compose.lab.cluster.control_plane import ControlPlane
from compose.lab.cluster.endpoints import endpoint_slices
from compose.lab.cluster.manifests import InvalidManifest, read_manifests
from compose.lab.cluster.reading import pod_addresses, read_layout
from compose.lab.plan import make_plan
from schemas.objects import EndpointSlice, KubernetesObject, Namespace, Node, Pod, Service


def pod(name: str, **fields: Any) -> Pod:
    status = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], **fields.pop("status", {})}
    meta = {"name": name, "namespace": "x", "labels": fields.pop("labels", {"app": "web"}), **fields.pop("meta", {})}
    return msgspec.convert({"metadata": meta, "spec": fields, "status": status}, Pod)


def service(**spec: Any) -> Service:
    return msgspec.convert({"metadata": {"name": "web", "namespace": "x"}, "spec": spec}, Service)


def endpoint_slice(conditions: dict[str, bool], *addresses: str) -> EndpointSlice:
    return msgspec.convert(
        {
            "metadata": {"name": "web-1", "namespace": "x", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4",
            "endpoints": [{"addresses": [address], "conditions": conditions} for address in addresses],
            "ports": [{"name": "http", "port": 8080}],
        },
        EndpointSlice,
    )


WEB = service(clusterIP="10.96.0.1", selector={"app": "web"}, ports=[{"name": "http", "port": 80, "targetPort": 8080}])


def endpoints(*slices: EndpointSlice) -> tuple[tuple[str, int], ...]:
    return read_layout([WEB, *slices]).services[0].endpoints


def test_a_finished_pod_has_no_network_whatever_address_it_still_shows() -> None:
    objects = [
        pod("old", status={"phase": "Succeeded", "podIP": "10.0.0.1"}),
        pod("new", status={"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
    ]
    assert [(each.name, each.addresses) for each in read_layout(objects).pods] == [("new", ("10.0.0.1", "fd00::1"))]


def test_ports_of_sidecars_count_and_those_of_other_init_containers_do_not() -> None:
    item = pod(
        "p",
        containers=[{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 80}]}],
        initContainers=[
            {"name": "side", "restartPolicy": "Always", "ports": [{"containerPort": 53, "protocol": "UDP"}]},
            {"name": "once", "ports": [{"containerPort": 9}]},
        ],
    )
    assert read_layout([item]).pods[0].ports == (("TCP", 80), ("UDP", 53))


def test_endpoints_are_the_ready_ones_and_unknown_is_ready() -> None:
    ready, unknown = endpoint_slice({"ready": True}, "10.0.0.1"), endpoint_slice({}, "10.0.0.2")
    not_ready = endpoint_slice({"ready": False}, "10.0.0.3")
    assert endpoints(ready, unknown, not_ready) == (("10.0.0.1", 8080), ("10.0.0.2", 8080))


def test_where_none_is_ready_those_that_serve_while_they_end() -> None:
    ending = endpoint_slice({"ready": False, "serving": True, "terminating": True}, "10.0.0.1")
    ended = endpoint_slice({"ready": False, "serving": False, "terminating": True}, "10.0.0.2")
    ready = endpoint_slice({"ready": True}, "10.0.0.3")
    assert endpoints(ending, ended) == (("10.0.0.1", 8080),)
    assert endpoints(ending, ready) == (("10.0.0.3", 8080),)


@pytest.mark.parametrize("spec", [{"clusterIP": "None"}, {"type": "ExternalName", "externalName": "example.org"}])
def test_a_service_without_a_virtual_address_is_none_of_the_nodes_business(spec: dict[str, str]) -> None:
    assert read_layout([service(**spec, ports=[{"port": 80}])]).services == ()


def test_named_target_ports_are_resolved_pod_by_pod() -> None:
    named = service(clusterIP="10.96.0.1", selector={"app": "web"}, ports=[{"port": 80, "targetPort": "http"}])

    def listening(number: int) -> list[dict[str, Any]]:
        return [{"ports": [{"name": "http", "containerPort": number}]}]

    pods = [
        pod("a", status={"podIP": "10.0.0.1"}, containers=listening(8080)),
        pod("b", status={"podIP": "10.0.0.2"}, containers=listening(9090)),
        pod("c", status={"podIP": "10.0.0.3"}, containers=[{}]),
    ]
    found = read_layout([named, *endpoint_slices(named, pods)]).services[0].endpoints
    assert set(found) == {("10.0.0.1", 8080), ("10.0.0.2", 9090)}


def test_endpoints_follow_labels_readiness_and_deletion() -> None:
    address = {"podIP": "10.0.0.1"}
    unready = {**address, "conditions": [{"type": "Ready", "status": "False"}]}
    deleted = {"deletionTimestamp": "2026-01-01T00:00:00Z"}

    def ready(item: Pod) -> list[bool | None]:
        return [each.conditions.ready for made in endpoint_slices(WEB, [item]) for each in made.endpoints or ()]

    assert ready(pod("a", status=address)) == [True]
    assert ready(pod("a", status=unready)) == [False]
    assert ready(pod("a", status=address, meta=deleted)) == [False]
    assert ready(pod("a", status=address, labels={"app": "other"})) == []
    assert ready(pod("a")) == []


def complete(control_plane: ControlPlane, *objects: KubernetesObject) -> dict[str, Pod]:
    return {item.metadata.name: item for item in control_plane.complete(objects) if isinstance(item, Pod)}


def bare(name: str) -> Pod:
    return msgspec.convert({"metadata": {"name": name, "namespace": "x", "labels": {"app": "web"}}}, Pod)


def test_a_bare_pod_gets_a_node_both_addresses_and_runs() -> None:
    done = complete(ControlPlane(), bare("a"), bare("b"))
    assert [item.spec.node_name for item in done.values()] == ["node-1", "node-2"]
    assert pod_addresses(done["a"]) == ("10.244.1.10", "fd00:10:244:1::a")
    assert done["a"].status.phase == "Running"
    assert done["a"].metadata.uid


def test_what_was_given_stays_with_its_object() -> None:
    control_plane = ControlPlane()
    first = complete(control_plane, bare("a"), bare("b"), bare("c"))
    second = complete(control_plane, bare("new"), bare("c"), bare("b"))
    assert second["b"] == first["b"]
    assert second["c"] == first["c"]
    addresses = [address for item in second.values() for address in pod_addresses(item)]
    assert len(set(addresses)) == len(addresses)


def test_what_objects_state_is_kept() -> None:
    stated = pod("a", nodeName="mine", status={"podIP": "192.168.1.1"})
    node = msgspec.convert(
        {"metadata": {"name": "mine"}, "status": {"addresses": [{"type": "InternalIP", "address": "172.18.0.9"}]}}, Node
    )
    objects = ControlPlane().complete([stated, node, WEB])
    done = next(item for item in objects if isinstance(item, Pod))
    assert (done.spec.node_name, pod_addresses(done), done.status.host_ip) == ("mine", ("192.168.1.1",), "172.18.0.9")
    assert [item.metadata.name for item in objects if isinstance(item, Node)] == ["mine"]
    assert next(item for item in objects if isinstance(item, Service)).spec.cluster_ip == "10.96.0.1"


def test_used_namespaces_exist_and_carry_their_name() -> None:
    namespaces = [item for item in ControlPlane().complete([bare("a")]) if isinstance(item, Namespace)]
    assert [item.metadata.labels for item in namespaces] == [{"kubernetes.io/metadata.name": "x"}]


def test_the_completed_nodes_are_those_of_the_plan() -> None:
    objects = ControlPlane().complete([bare("a"), bare("b")])
    layout = read_layout(objects)
    assert {node.name: node.addresses for node in make_plan("t", layout).nodes} == {
        node.name: node.addresses for node in layout.nodes
    }


def test_manifests_of_all_shapes_are_read(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(
        "kind: Namespace\nmetadata: {name: x, creationTimestamp: 2026-01-01T00:00:00Z}\n---\n---\n"
        "kind: Deployment\nmetadata: {name: web, namespace: x}\n"
        "spec: {replicas: 2, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c}]}}}\n---\n"
        "kind: ConfigMap\nmetadata: {name: ignored}\n"
    )
    (tmp_path / "b.json").write_text('{"kind": "List", "items": [{"kind": "Pod", "metadata": {"name": "p"}}]}')
    (tmp_path / "c.yml").write_text("kind: PodList\nitems: [{metadata: {name: q}}]")
    (tmp_path / "notes.txt").write_text("not a manifest")

    found = read_manifests([tmp_path])
    named = [(type(item).__name__, item.metadata.namespace, item.metadata.name) for item in found]
    assert named == [
        ("Namespace", "", "x"),
        ("Pod", "x", "web-0"),
        ("Pod", "x", "web-1"),
        ("Pod", "default", "p"),
        ("Pod", "default", "q"),
    ]


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("kind: Pod\nmetadata: {name: p}\nspec: {containers: 7}", "Pod default/p: Expected"),
        ("kind: Pod\nmetadata: {}", "a Pod without metadata.name"),
        ("kind: [", "while parsing"),
    ],
)
def test_a_manifest_that_cannot_be_read_is_named(tmp_path: Path, text: str, why: str) -> None:
    (tmp_path / "bad.yaml").write_text(f"kind: Pod\nmetadata: {{name: good}}\n---\n{text}\n")
    with pytest.raises(InvalidManifest, match=why) as raised:
        read_manifests([tmp_path / "bad.yaml"])
    assert raised.value.document in (1, 2)
    assert raised.value.file.name == "bad.yaml"
