"""Case files: what they say, and what is said about one that cannot be read."""

import json
from pathlib import Path

import pytest

from compose.checking.suites.cases import Case, CaseError, Cell
from compose.checking.suites.files import read_cases
from compose.checking.suites.history import History
from compose.checking.suites.short_form import read_line
from schemas.addresses import TCP, UDP
from schemas.events import EventType, decode_event
from schemas.objects import decode_object


def short(tmp_path: Path, text: str) -> list[Case]:
    path = tmp_path / "case.yaml"
    path.write_text(text)
    return list(read_cases(path))


def suite(tmp_path: Path, **more: object) -> Case:
    data = {
        "id": "s/1",
        "name": "a case",
        "initial": {"namespaces": [{"kind": "Namespace", "metadata": {"name": "x"}}], "pods": []},
        "steps": [{"actions": [], "probe": {}, "expected": {"tcp/80": {"x/a->x/b": "allowed"}}}],
        **more,
    }
    path = tmp_path / "suite.jsonl"
    path.write_text(json.dumps(data) + "\n\n")
    (case,) = read_cases(path)
    return case


def test_a_line_may_name_several_ports_and_protocols() -> None:
    assert list(read_line("x/a -> service:x/b 80, 53/UDP", allowed=True)) == [
        Cell("x/a", "service:x/b", TCP, 80, allowed=True),
        Cell("x/a", "service:x/b", UDP, 53, allowed=True),
    ]


def test_a_file_holds_a_case_per_document_and_the_document_is_the_first_step(tmp_path: Path) -> None:
    one, two = short(
        tmp_path,
        "case: one\npods: {x/a: , x/b: }\nallow: [x/a -> x/b 80]\nsteps: [{deny: [x/a -> x/b 81]}]\n---\ncase: two\n",
    )
    assert [[cell.port for cell in step.cells] for step in one.steps] == [[80], [81]]
    assert (one.id, one.name, two.id) == ("case/1", "one", "case/2")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("case: [", "is not YAML"),
        ("- a list", "is not a mapping"),
        ("case: c\npolicy: {}", "unknown word 'policy'"),
        ("case: c\npods: {x/a: {label: {}}}", "unknown word 'label'"),
        ("case: c\npods: {a: }", "'a' is not namespace/name"),
        ("case: c\nsteps: [{allowed: []}]", "unknown word 'allowed'"),
        ("case: c\nallow: [x/a to x/b 80]", "is not SOURCE -> DESTINATION PORT"),
        ("case: c\ndeny: [x/a -> x/b http]", "'http' is not PORT[/PROTOCOL]"),
    ],
)
def test_what_cannot_be_read_is_said_with_file_and_place(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(CaseError, match=r"case\.yaml") as caught:
        short(tmp_path, text)
    assert says in str(caught.value)


def test_a_line_of_a_suite_that_is_no_case_is_named_by_its_number(tmp_path: Path) -> None:
    path = tmp_path / "suite.jsonl"
    path.write_text('\n{"id": "x"}\n')
    with pytest.raises(CaseError, match="line 2"):
        list(read_cases(path))


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CaseError, match=r"neither in \.jsonl nor in \.yaml"):
        read_cases(tmp_path / "case.txt")


def test_a_disputed_verdict_is_replaced_and_the_case_says_so(tmp_path: Path) -> None:
    case = suite(tmp_path, disputed={"oracle": "blocked", "reason": "because"})
    assert not case.steps[0].cells[0].allowed
    assert case.notes == ("disputed, judged as blocked: because",)


def test_a_case_with_policy_tiers_is_not_supported(tmp_path: Path) -> None:
    tier = {"kind": "create_cluster_policy", "object": {"kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}}}
    case = suite(tmp_path, steps=[{"actions": [tier], "expected": {}}])
    assert case.unsupported == "needs ClusterNetworkPolicy"


def test_pods_that_name_no_node_are_spread_over_two(tmp_path: Path) -> None:
    (case,) = short(tmp_path, "case: c\npods: {x/a: , x/b: , x/c: {node: elsewhere}}")
    history = History(case)
    history.entries(case.steps[0].actions)
    nodes = [item["spec"]["nodeName"] for item in history.objects.values() if item["kind"] == "Pod"]
    assert nodes == ["node-1", "node-2", "elsewhere"]


def test_a_deletion_carries_the_last_state_and_its_tombstone_follows(tmp_path: Path) -> None:
    (case,) = short(tmp_path, "case: c\npods: {x/a: {labels: {app: a}}}\nsteps: [{delete: [Pod/x/a]}]")
    history = History(case)
    *_, added = history.entries(case.steps[0].actions)
    deleted, tombstone = history.entries(case.steps[1].actions)
    assert added.value is not None
    assert deleted.value is not None
    before, event = decode_event(added.value), decode_event(deleted.value)
    assert event.type is EventType.DELETED
    assert event.uid == before.uid
    assert decode_object("Pod", event.object).metadata.labels == {"app": "a"}
    assert (tombstone.key, tombstone.value) == (deleted.key, None)


def test_resource_versions_rise_and_a_name_that_comes_again_has_another_uid(tmp_path: Path) -> None:
    (case,) = short(
        tmp_path,
        "case: c\npods: {x/a: }\nsteps: [{delete: [Pod/x/a]}, {pods: {x/a: }}, {pods: {x/a: {phase: Failed}}}]",
    )
    history = History(case)
    seen = []
    for step in case.steps:
        history.entries(step.actions)
        if found := history.objects.get("Pod/x/a"):
            seen.append((int(found["metadata"]["resourceVersion"]), found["metadata"]["uid"]))
    versions, uids = [version for version, _ in seen], [uid for _, uid in seen]
    assert versions == sorted(set(versions))
    assert uids[0] != uids[1] == uids[2]


def test_deleting_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    (case,) = short(tmp_path, "case: c\ndelete: [Pod/x/a]")
    with pytest.raises(ValueError, match="Pod/x/a: cannot be deleted"):
        History(case).entries(case.steps[0].actions)


def test_a_service_has_a_slice_for_each_family_and_set_of_target_ports(tmp_path: Path) -> None:
    (case,) = short(
        tmp_path,
        """
case: c
pods: {x/a: {ports: {http: 80}}, x/b: {ports: {http: 81}}, x/c: {ip: "fd00::1", ports: {http: 80}}}
services: {x/s: {ports: [{port: 80, targetPort: http}], endpoints: [x/a, x/b, x/c]}}
steps: [{services: {x/s: {endpoints: [x/a]}}}]
""",
    )
    history = History(case)

    def slices() -> list[tuple[str, int]]:
        found = [item for item in history.objects.values() if item["kind"] == "EndpointSlice"]
        return [(item["addressType"], item["ports"][0]["port"]) for item in found]

    history.entries(case.steps[0].actions)
    assert slices() == [("IPv4", 80), ("IPv4", 81), ("IPv6", 80)]
    history.entries(case.steps[1].actions)
    assert slices() == [("IPv4", 80)]
