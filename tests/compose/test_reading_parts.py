"""The parts of the reading commands that need nothing running."""

from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from compose.reading import output, schema
from compose.reading.columns import HEADINGS, row, summary
from compose.reading.event_log import confirmed
from compose.reading.event_log.ranges import When
from compose.reading.joining import NOTHING, Spoken, joined
from compose.reading.policy_text import text
from compose.reading.selecting import label_test
from schemas.addresses import TCP, pack
from schemas.programs import Direction, PortRange, Program, Rule, Virtual
from schemas.reports import (
    Backend,
    ContainerState,
    ContainerWorkload,
    Profile,
    Summary,
    Trouble,
    VirtualPort,
    VirtualService,
    Workload,
)
from schemas.sets import SetKind, endpoint, set_id
from schemas.status import (
    HEARTBEAT_SECONDS,
    OFFLINE_AFTER,
    Component,
    ContainerDetail,
    Cut,
    CvenStatus,
    Enforcement,
    KubelinkStatus,
    PodDetail,
    PodException,
    PodState,
    ProcessorStatus,
    RuntimeStatus,
    encode_enforcement,
)
from streams.channels.status import Heard
from streams.log import Record


@pytest.mark.parametrize(
    ("selector", "fits", "fails"),
    [
        ("", {}, None),
        ("app=web", {"app": "web"}, {"app": "db"}),
        ("app==web,tier!=x", {"app": "web"}, {"app": "web", "tier": "x"}),
        ("app", {"app": ""}, {}),
        ("!app", {}, {"app": "web"}),
        ("app in (web, db)", {"app": "db"}, {"app": "x"}),
        ("app notin (web,db),tier", {"tier": ""}, {"app": "web", "tier": ""}),
    ],
)
def test_labels_are_selected_as_kubectl_does(selector, fits, fails):
    assert label_test(selector)(fits)
    assert fails is None or not label_test(selector)(fails)


@pytest.mark.parametrize("selector", ["a b", "=x", "a in b", "!"])
def test_what_is_no_selector_is_refused(selector):
    with pytest.raises(click.BadParameter, match="not a label selector"):
        label_test(selector)


def test_an_instant_is_said_as_such_or_as_how_long_ago():
    def when(value: str) -> int:
        return When().convert(value, None, None)

    assert when("2026-01-02T14:05:00Z") == when("2026-01-02T14:05:00") == when("2026-01-02T15:05:00+01:00")
    assert when("1h") < datetime.now(UTC).timestamp() * 1000 - 3_500_000
    with pytest.raises(click.BadParameter, match="neither an instant"):
        when("yesterday")


def test_columns_stand_in_line_with_what_was_printed_before():
    assert output.aligned([("A", "LONG"), ("bb", "")]) == ["A   LONG", "bb  -"]
    assert output.aligned([("x", "y")], output.widths([("wide one", "z")])) == ["x         y"]


def test_every_row_has_its_headings():
    reports = (
        Workload(name="n", addresses=(("InternalIP", "192.0.2.1"),)),
        ContainerWorkload(namespace="s", name="p", owners=("ReplicaSet/a-1", "Deployment/a")),
        VirtualService(
            namespace="s", name="v", ports=(VirtualPort(port=80, node_port=30080),),
            backends=(Backend(state="ready", address="10.0.0.1"),), backends_total={"ready": 1},
        ),
        Profile(namespace="s"),
    )  # fmt: skip
    for report in reports:
        normal, more = HEADINGS[type(report)]
        assert len(row(report, NOTHING, False)) == len(normal)
        assert len(row(report, NOTHING, True)) == len(normal) + len(more)


def test_a_pod_that_could_not_be_programmed_says_why_when_wide():
    unable = PodException(uid="u", namespace="s", name="p", reason="no iptables there")
    detail = PodDetail(uid="u", namespace="s", name="p", state=PodState.ERROR)
    heard = {
        (Component.CVEN, "n1"): Heard(CvenStatus(node="n1", heartbeat="", exceptions=(unable,)), 100.0),
        (Component.RUNTIME, "n1"): Heard(RuntimeStatus(node="n1", pods=(detail,)), 100.0),
    }
    report = ContainerWorkload(namespace="s", name="p", uid="u", node="n1")

    cells = row(report, Spoken(heard, 101.0, 7), True)
    assert "error" in cells
    assert "no iptables there" in cells


def test_what_is_wrong_with_a_pod_that_holds_its_rules_is_told_when_wide_and_in_json():
    detail = PodDetail(uid="u", namespace="s", name="p", state=PodState.ENFORCED, problems=("its table is full",))
    report, spoken = said_of_a_pod(detail, now=101.0)

    cells = wide_cells(report, spoken)
    assert (cells["ENFORCEMENT"], cells["TROUBLE"]) == ("enforced", "its table is full")
    assert joined(report, spoken)["status"]["problems"] == ("its table is full",)


def test_containers_are_as_the_api_server_says_and_the_runtime():
    told = (ContainerDetail(name="web", state="exited", restarts=3), ContainerDetail(name="log", state="running"))
    detail = PodDetail(uid="u", namespace="s", name="p", containers=told)
    heard = {(Component.RUNTIME, "n1"): Heard(RuntimeStatus(node="n1", pods=(detail,)), 100.0)}
    containers = (
        ContainerState(name="web", state="waiting: CrashLoopBackOff", restarts=2),
        ContainerState(name="log", state="running"),
        ContainerState(name="new"),
    )
    report = ContainerWorkload(namespace="s", name="p", uid="u", node="n1", containers=containers)

    expected = "web (waiting: CrashLoopBackOff; exited; 3 restarts), log (running), new (unknown)"
    assert expected in row(report, Spoken(heard, 101.0, 7), True)


def said_of_a_pod(detail: PodDetail, now: float) -> tuple[ContainerWorkload, Spoken]:
    """By an enforcer that was heard last at 100 s, and told of its Pods long before."""
    heard = {
        (Component.CVEN, "n1"): Heard(CvenStatus(node="n1", heartbeat=""), 100.0),
        (Component.RUNTIME, "n1"): Heard(RuntimeStatus(node="n1", pods=(detail,)), 1.0),
    }
    return ContainerWorkload(namespace="s", name="p", uid="u", node="n1"), Spoken(heard, now, 7)


def wide_cells(report: ContainerWorkload, spoken: Spoken) -> dict[object, object]:
    normal, more = HEADINGS[ContainerWorkload]
    return dict(zip((*normal, *more), row(report, spoken, True), strict=True))


def test_a_pod_whose_enforcer_is_offline_is_not_called_enforced_but_its_last_word_is_repeated():
    detail = PodDetail(uid="u", namespace="s", name="p", state=PodState.ENFORCED, bypassable=True)
    report, spoken = said_of_a_pod(detail, now=100.0 + OFFLINE_AFTER * HEARTBEAT_SECONDS)

    cells, last = wide_cells(report, spoken), "its node's enforcer is offline and last said: enforced"
    assert (cells["ENFORCEMENT"], cells["TROUBLE"]) == ("unknown", last)
    status = joined(report, spoken)["status"]
    assert (status["state"], status["problems"]) == ("unknown", (last,))


def test_a_pod_is_not_called_enforced_where_its_enforcer_was_never_heard():
    detail = PodDetail(uid="u", namespace="s", name="p", state=PodState.ENFORCED)
    report, spoken = said_of_a_pod(detail, now=101.0)
    unheard = {place: heard for place, heard in spoken.heard.items() if place[0] is not Component.CVEN}

    assert wide_cells(report, Spoken(unheard, 101.0, 7))["ENFORCEMENT"] == "unknown"


def test_the_summary_counts_what_enforcers_made_of_their_pods_but_not_what_an_offline_one_said():
    here = CvenStatus(node="n1", heartbeat="", pods={PodState.ENFORCED: 3, PodState.ADVISORY: 1}, bypassable=2)
    there = CvenStatus(node="n2", heartbeat="", pods={PodState.ENFORCED: 2, PodState.UNENFORCEABLE: 1})
    lost = CvenStatus(node="n3", heartbeat="", pods={PodState.ENFORCED: 50})
    heard = {
        (Component.CVEN, "n1"): Heard(here, 100.0),
        (Component.CVEN, "n2"): Heard(there, 100.0),
        (Component.CVEN, "n3"): Heard(lost, 1.0),
    }
    spoken = Spoken(heard, 101.0, 7)

    status = joined(Summary(cluster="c"), spoken)["status"]
    assert (status["pods"], status["bypassable"]) == ({"advisory": 1, "enforced": 5, "unenforceable": 1}, 2)
    text = "advisory 1, enforced 5, unenforceable 1 (2 bypassable by raw sockets)"
    assert any(text in line for line in summary(Summary(cluster="c"), spoken))


def test_the_summary_shows_components_their_lag_and_what_is_wrong():
    heard = {
        (Component.CVEN, "n1"): Heard(
            CvenStatus(node="n1", heartbeat="", realized=6, exceptions=(PodException(uid="u", reason="no"),)), 100.0
        ),
        (Component.KUBELINK, "k"): Heard(KubelinkStatus(name="k", heartbeat="", leading=True, epoch=3), 40.0),
        (Component.PROCESSOR, "p"): Heard(ProcessorStatus(name="p", heartbeat="", problems=("too old",)), 0.0),
    }
    report = Summary(cluster="c", errors=(Trouble("Pod/s/p", "wrong"),), errors_total=1)
    lines = "\n".join(summary(report, Spoken(heard, 101.0, 7)))
    assert "realized 6 of 7, 1 exception" in lines
    assert "leading, epoch 3" in lines
    assert "degraded" in lines or "offline" in lines
    assert "processor p: too old" in lines
    assert "Pod/s/p: wrong" in lines
    components = joined(report, Spoken(heard, 101.0, 7))["status"]["components"]
    assert [one["connectivity"] for one in components] == ["online", "offline", "offline"]


def test_a_program_reads_as_a_person_would_say_it():
    allowed, vip, ports = (set_id(kind, "x") for kind in (SetKind.TUPLES, SetKind.ADDRESSES, SetKind.TUPLES))
    ports = set_id(SetKind.TUPLES, "ports")
    program = Program(
        uid="u", namespace="s", name="p", node="n",
        ingress=Direction(isolating=("NetworkPolicy/s/deny",)),
        egress=Direction(
            isolating=("NetworkPolicy/s/out",),
            own_node=False,
            rules=(Rule(id="r", policy="NetworkPolicy/s/out", sets=None, ports=(PortRange(TCP, 80, 90),)),),
            virtual=Virtual(addresses=vip, ports=ports, allowed=(allowed,)),
        ),
    )  # fmt: skip
    sets = {
        allowed: frozenset({endpoint(pack("10.9.0.1"), TCP, 80)}),
        vip: frozenset({pack("10.9.0.1")}),
        ports: frozenset(),
    }
    said = "\n".join(text(program, sets))
    assert [" ".join(line.split()) for line in said.splitlines()[2:12]] == [
        "",
        "Ingress: isolated by NetworkPolicy/s/deny",
        "allow from its own node on any port always",
        "block whatever else on any port it is isolated",
        "",
        "Egress: isolated by NetworkPolicy/s/out",
        f"allow to Services {allowed} (1) as listed all endpoints are allowed",
        "block to other Services (1 address) on any port not all endpoints are allowed",
        "allow to anyone on 80-90/TCP NetworkPolicy/s/out (rule r)",
        "block whatever else on any port it is isolated",
    ]
    assert "10.9.0.1:80/TCP" in said


def test_a_program_of_many_policies_and_members_fits_a_terminal():
    peers = set_id(SetKind.ADDRESSES, "many")
    many = tuple(f"NetworkPolicy/payments-production/a-policy-with-a-long-name-{number}" for number in range(9))
    rule = Rule(id="qz5fkq2mxnwzgpkd", policy=many[0], sets=(peers,), ports=(PortRange(TCP, 80, 80),))
    program = Program(uid="u", namespace="s", name="p", node="n", ingress=Direction(isolating=many, rules=(rule,)))
    lines = list(text(program, {peers: frozenset(pack(f"2001:db8:abcd:1234::{last:x}") for last in range(100))}))
    assert max(len(line) for line in lines if "(rule " not in line) <= 120
    assert " ".join("\n".join(lines).split()).count("a-policy-with-a-long-name-8") == 1


def test_the_documents_table_of_the_reports_is_what_the_schema_says():
    written = (Path(__file__).parents[2] / "docs" / "reports.md").read_text()
    assert CliRunner().invoke(schema.schema, ["reports"]).output == written


def test_a_row_of_what_was_confirmed_tells_of_each_cut_once():
    """Records repeat it as long as it is among the newest."""
    cuts = [
        Cut(
            time="t",
            pod="shop/web",
            connection=f"TCP 10.0.0.{host} → 10.0.0.9 port 80",
            reason="no rule",
            rule="default-1",
            policies=("p",),
        )
        for host in (1, 2)
    ]
    show = confirmed.shown("*", "table")
    rows = [
        show(Record(offset, 0, "n1", encode_enforcement(Enforcement(node="n1", heartbeat="", cuts=tuple(told)))))
        for offset, told in enumerate((cuts[:1], cuts))
    ]
    assert "cut shop/web: TCP 10.0.0.1 → 10.0.0.9 port 80: no rule (default-1 of p)" in rows[0]
    assert "10.0.0.1" not in rows[1]
    assert "cut shop/web: TCP 10.0.0.2 → 10.0.0.9 port 80: no rule (default-1 of p)" in rows[1]
