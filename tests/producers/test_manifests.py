"""Manifests: read as the API server would, told when they are wrong, followed when they change."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from producers.core.manifests import Ignored, made_uid, read_document
from producers.errors import SourceInvalid
from producers.manifest_source import ManifestSource
from producers.writing import feed
from schemas.objects import Namespace, NetworkPolicy, Pod, Service
from streams.log import Log
from tests.components.waiting import until
from tests.producers.reading import history, known
from tests.producers.running import complete, kubelink

POLICY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny}
spec:
  podSelector:
  ingress:
  - from: [{podSelector: {}}]
    ports: [{port: 80}]
"""


def read(document: Any) -> Any:
    (item,) = read_document(document)
    return item


def test_what_the_api_server_would_fill_in_is_filled_in():
    policy = read({"kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": {"ingress": [{"ports": [{"port": 1}]}]}})
    assert isinstance(policy, NetworkPolicy)
    assert policy.metadata.namespace == "default"
    assert policy.metadata.uid == made_uid("NetworkPolicy", "default", "p")
    spec = msgspec.json.decode(policy.spec)
    assert spec == {"policyTypes": ["Ingress"], "ingress": [{"ports": [{"protocol": "TCP", "port": 1}]}]}


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ({}, ["Ingress"]),
        ({"egress": []}, ["Ingress"]),
        ({"egress": [{}]}, ["Ingress", "Egress"]),
        ({"policyTypes": ["Egress"]}, ["Egress"]),
    ],
)
def test_policy_types_follow_the_rules_that_are_there(spec: dict[str, Any], types: list[str]):
    policy = read({"kind": "NetworkPolicy", "metadata": {"name": "p"}, "spec": spec})
    assert msgspec.json.decode(policy.spec)["policyTypes"] == types


def test_a_namespace_carries_its_name_as_a_label_and_belongs_to_none():
    space = read({"kind": "Namespace", "metadata": {"name": "shop", "namespace": "x", "labels": {"a": "b"}}})
    assert isinstance(space, Namespace)
    assert space.metadata.labels == {"a": "b", "kubernetes.io/metadata.name": "shop"}
    assert space.metadata.namespace == ""
    assert space.status.phase == "Active"


def test_the_version_changes_with_the_content_only():
    one, same, other = (
        read({"kind": "Pod", "metadata": {"name": "p"}, "spec": {"nodeName": node}}) for node in ("n1", "n1", "n2")
    )
    assert one == same
    assert one.metadata.resource_version != other.metadata.resource_version


def test_null_means_absent_and_a_service_targets_its_own_port():
    service = read({"kind": "Service", "metadata": {"name": "s", "labels": None}, "spec": {"ports": [{"port": 80}]}})
    assert isinstance(service, Service)
    assert service.metadata.labels is None
    assert service.spec.ports is not None
    assert service.spec.ports[0].target_port == 80


def test_lists_are_read_item_by_item_and_other_kinds_are_named():
    pod = {"metadata": {"name": "p"}}
    assert isinstance(read({"kind": "PodList", "items": [pod]}), Pod)
    mixed = list(read_document({"kind": "List", "items": [{"kind": "Pod", **pod}, {"kind": "Deployment", **pod}]}))
    assert isinstance(mixed[0], Pod)
    assert mixed[1] == Ignored("Deployment", "p")


async def test_a_bad_document_is_named_and_stops_nothing_else(log: Log, tmp_path: Path):
    (tmp_path / "a.yaml").write_text(f"{POLICY}---\njust text\n---\nkind: Pod\nmetadata: {{name: web}}\n")
    (tmp_path / "b.json").write_text(json.dumps({"kind": "Pod", "metadata": {"name": "api", "labels": {"v": 1.0}}}))
    (tmp_path / "c.yml").write_text("kind: Pod\nmetadata: {name: db}\n---\n{unclosed")
    (tmp_path / ".hidden.yaml").write_text("nonsense: [")
    writer = await feed(log, ManifestSource([tmp_path], follow=False), cluster="test")
    assert set(await known(log)) == {"NetworkPolicy/default/deny", "Pod/default/web", "Pod/default/db"}
    problems = writer.reflector.problems
    assert "plain text" in problems[f"{tmp_path}/a.yaml, document 2"]
    assert "expected `str`, got `float`" in problems["Pod/default/api"].lower()
    assert "b.json" in problems["Pod/default/api"]
    assert "not YAML" in problems[f"{tmp_path}/c.yml, document 2"]


async def test_changes_of_files_become_events_and_what_is_in_none_any_more_is_gone(log: Log, tmp_path: Path):
    file = tmp_path / "shop.yaml"
    file.write_text(POLICY)
    async with kubelink(log, ManifestSource([tmp_path], poll_seconds=0.02)) as link:
        await complete(link)
        (tmp_path / "more").mkdir()
        (tmp_path / "more" / "pod.yaml").write_text("kind: Pod\nmetadata: {name: web}\n")
        await until_known(log, {"NetworkPolicy/default/deny", "Pod/default/web"})
        file.unlink()
        await until_known(log, {"Pod/default/web"})


@pytest.mark.parametrize(
    "text", ["a: " + "[" * 100_000, "- " * 100_000, '{"a":' * 600 + "1" + "}" * 600], ids=["flow", "blocks", "json"]
)
async def test_a_file_nested_beyond_reason_is_named_and_stops_nothing_else(log: Log, tmp_path: Path, text: str):
    (tmp_path / "deep.yaml").write_text(text)
    (tmp_path / "pod.yaml").write_text("kind: Pod\nmetadata: {name: a}\n")
    async with kubelink(log, ManifestSource([tmp_path], poll_seconds=0.02)) as link:
        await complete(link)
        assert "nested" in link.state.problems[str(tmp_path / "deep.yaml")]
        assert set(await known(log)) == {"Pod/default/a"}


async def test_a_slip_of_the_pen_deletes_nothing_until_it_is_mended(log: Log, tmp_path: Path):
    file = tmp_path / "shop.yaml"
    file.write_text(POLICY)
    async with kubelink(log, ManifestSource([file], poll_seconds=0.02)) as link:
        await complete(link)
        file.write_text(POLICY + "---\n{unclosed")
        await until(
            "the mistake to be told", lambda: any("not YAML" in reason for reason in link.state.problems.values())
        )
        assert set(await known(log)) == {"NetworkPolicy/default/deny"}
        file.write_text("kind: Pod\nmetadata: {name: web}\n")
        await until_known(log, {"Pod/default/web"})
        assert link.state.problems == {}


async def test_the_same_manifests_again_write_no_object(log: Log, tmp_path: Path):
    (tmp_path / "shop.yaml").write_text(POLICY)
    await feed(log, ManifestSource([tmp_path], follow=False), cluster="test")
    before = len(await history(log))
    await feed(log, ManifestSource([tmp_path], follow=False), cluster="test")
    assert {event.kind for event in (await history(log))[before:]} == {"Epoch", "Sync"}


async def test_a_path_that_does_not_exist_is_refused_at_the_start(log: Log, tmp_path: Path):
    with pytest.raises(SourceInvalid, match="nowhere"):
        await feed(log, ManifestSource([tmp_path / "nowhere"], follow=False), cluster="test")


async def until_known(log: Log, keys: set[str]) -> None:
    async def as_expected() -> bool:
        return set(await known(log)) == keys

    await until(f"the log to know {keys}", as_expected)
