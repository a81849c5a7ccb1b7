"""The inventory fold: what each report says."""

import msgspec
import pytest

from processors.core.reading import Fact, Poison
from schemas.events import ClusterInfo
from schemas.reports import AnyReport, Segmentation, Trouble
from tests.processors.core.inventory_world import Selected, endpoint, gone, new, node, settle, slice_of, taken, there

POD = there(
    "Pod",
    "web-7d4f-x2x",
    "shop",
    metadata={
        "labels": {"app": "web", "pod-template-hash": "7d4f"},
        "ownerReferences": [{"kind": "ReplicaSet", "name": "web-7d4f", "controller": True}],
    },
    spec={
        "nodeName": "n1",
        "initContainers": [
            {"name": "setup", "image": "i", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
            {"name": "proxy", "image": "p", "restartPolicy": "Always", "securityContext": {"privileged": True}},
        ],
        "containers": [
            {"name": "web", "image": "w:1", "ports": [{"containerPort": 8080, "name": "http"}]},
            {"name": "plain", "image": "x", "securityContext": {"capabilities": {"drop": ["ALL"]}}},
        ],
    },
    status={
        "phase": "Running",
        "podIP": "10.0.0.1",
        "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [
            {"name": "web", "ready": True, "restartCount": 2, "state": {"running": {}}},
            {"name": "plain", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        ],
        "initContainerStatuses": [{"name": "setup", "state": {"terminated": {"exitCode": 3}}}],
    },
)


def test_a_pod_is_described_with_its_owners_addresses_and_containers():
    fold = new(Selected(shop=["NetworkPolicy/shop/a", "NetworkPolicy/shop/b"]))
    fold.fold([POD])
    report = taken(fold)["container-workload.shop.web-7d4f-x2x"]

    assert report.owners == ("ReplicaSet/web-7d4f", "Deployment/web")
    assert report.addresses == ("10.0.0.1", "fd00::1")
    assert report.ready
    assert [(c.name, c.kind, c.state, c.restarts) for c in report.containers] == [
        ("setup", "init", "terminated: exit code 3", 0),
        ("proxy", "sidecar", "", 0),
        ("web", "container", "running", 2),
        ("plain", "container", "waiting: CrashLoopBackOff", 0),
    ]
    assert report.containers[2].ports == ("http:8080/TCP",)
    assert report.segmentation is Segmentation.SEGMENTED
    assert report.policies == ("NetworkPolicy/shop/a", "NetworkPolicy/shop/b")
    assert report.caveats == (
        "advisory: container setup has NET_ADMIN and can edit its own rules",
        "advisory: container proxy is privileged and can edit its own rules",
        "bypassable by raw sockets: container web has NET_RAW",
    )


def test_a_pod_that_its_node_lets_others_into_says_by_which_services():
    segmenting = Selected(shop=["NetworkPolicy/shop/a"])
    segmenting.exposed["shop", "plain"] = tuple(f"shop/s{number}" for number in range(1, 8))
    fold = new(segmenting)
    fold.fold([there("Pod", "plain", "shop", spec={"nodeName": "n1"})])
    (caveat,) = taken(fold)["container-workload.shop.plain"].caveats
    services = "shop/s1, shop/s2, shop/s3, shop/s4, shop/s5 and 2 more"
    assert caveat == f"exposed through node: by {services}; its own node may always connect"


@pytest.mark.parametrize(
    ("namespace", "spec", "phase", "expected"),
    [
        ("shop", {"nodeName": "n"}, "Running", Segmentation.SEGMENTED),
        ("open", {"nodeName": "n"}, "Running", Segmentation.OPEN),
        ("idle", {"nodeName": "n"}, "Running", Segmentation.IDLE),
        ("shop", {"nodeName": "n", "hostNetwork": True}, "Running", Segmentation.HOST_NETWORK),
        ("shop", {}, "Pending", Segmentation.UNSCHEDULED),
        ("shop", {"nodeName": "n"}, "Succeeded", Segmentation.FINISHED),
    ],
)
def test_segmentation_says_honestly_how_a_pod_is_segmented(namespace, spec, phase, expected):
    fold = new(Selected(shop=["NetworkPolicy/shop/a"], idle=["NetworkPolicy/idle/a"]))
    fold.fold([there("Pod", "p", namespace, spec=spec, status={"phase": phase})])
    assert taken(fold)[f"container-workload.{namespace}.p"].segmentation is expected


def test_a_hand_made_replica_set_has_no_deployment():
    owner = [{"kind": "ReplicaSet", "name": "web-7d4f", "controller": True}]
    fold = new()
    fold.fold([there("Pod", "p", "shop", metadata={"ownerReferences": owner})])
    assert taken(fold)["container-workload.shop.p"].owners == ("ReplicaSet/web-7d4f",)


def test_back_ends_come_from_all_slices_of_a_service_once_and_by_readiness():
    fold = new()
    service = there(
        "Service",
        "web",
        "shop",
        spec={"clusterIP": "10.9.0.1", "clusterIPs": ["10.9.0.1", "fd09::1"], "selector": {"app": "web"},
              "ports": [{"port": 80, "targetPort": "http", "nodePort": 30080}]},
    )  # fmt: skip
    fold.fold(
        [
            slice_of("web", "web-1", endpoint("10.0.0.9"), endpoint("10.0.0.2", ready=False)),
            service,
            slice_of(
                "web", "web-2", endpoint("10.0.0.9"), endpoint("10.0.0.1", ready=False, serving=True, terminating=True)
            ),
            slice_of("other", "other-1", endpoint("10.0.0.7")),
        ]
    )
    report = taken(fold)["virtual-service.shop.web"]
    assert report.addresses == ("10.9.0.1", "fd09::1")
    assert [(b.address, b.state) for b in report.backends] == [
        ("10.0.0.9", "ready"),
        ("10.0.0.1", "terminating"),
        ("10.0.0.2", "not ready"),
    ]
    assert report.backends[0].target == "Pod/shop/10.0.0.9"
    assert report.backends_total == {"ready": 1, "terminating": 1, "not ready": 1}
    assert (report.ports[0].target, report.ports[0].node_port) == ("http", 30080)

    fold.fold([slice_of("other", "web-1", endpoint("10.0.0.9"))])  # a slice may be handed to another Service
    fold.fold([gone("EndpointSlice", "web-2", "shop")])
    assert taken(fold)["virtual-service.shop.web"].backends == ()


def test_headless_external_and_selectorless_services_are_told_apart():
    fold = new()
    fold.fold(
        [
            there("Service", "headless", "shop", spec={"clusterIP": "None", "selector": {"a": "b"}}),
            there("Service", "elsewhere", "shop", spec={"type": "ExternalName", "externalName": "example.org"}),
            there("Service", "by-hand", "shop", spec={"clusterIP": "10.9.0.2"}),
            there(
                "Service", "balanced", "shop",
                spec={"type": "LoadBalancer", "clusterIP": "10.9.0.3", "externalIPs": ["192.0.2.1"]},
                status={"loadBalancer": {"ingress": [{"ip": "192.0.2.2"}, {"hostname": "lb.example"}]}},
            ),
        ]
    )  # fmt: skip
    reports = {key.rpartition(".")[2]: report for key, report in taken(fold).items()}
    assert (reports["headless"].headless, reports["headless"].addresses) == (True, ())
    assert (reports["elsewhere"].external_name, reports["elsewhere"].selectorless) == ("example.org", False)
    assert (reports["by-hand"].selectorless, reports["by-hand"].addresses) == (True, ("10.9.0.2",))
    assert reports["balanced"].external_addresses == ("192.0.2.1", "192.0.2.2", "lb.example")


def test_a_node_is_described_with_what_runs_on_it():
    fold = new()
    fold.fold([node("n1.example", ready="False"), there("Pod", "p", "shop", spec={"nodeName": "n1.example"})])
    report = taken(fold)["workload.n1_example"]
    assert (report.machine_id, report.kernel, report.os, report.runtime) == ("m", "6.1", "Debian", "containerd://1.7")
    assert (report.ready, report.reason, report.pods) == (False, "KubeletNotReady", 1)
    assert report.addresses == (("InternalIP", "192.0.2.1"),)

    fold.fold([there("Pod", "p", "shop", spec={"nodeName": "n1.example"}, status={"phase": "Failed"})])
    assert taken(fold)["workload.n1_example"].pods == 0


def test_the_summary_counts_and_a_profile_counts_its_own():
    fold = new(Selected(shop=["NetworkPolicy/shop/a"]))
    fold.fold(
        [
            Fact("Cluster", "", "-", "", ClusterInfo(version="v1.34.1", service_ranges=("10.96.0.0/16",)), 1),
            there("Namespace", "shop", status={"phase": "Active"}, metadata={"labels": {"team": "x"}}),
            node("n1"),
            node("n2", pod_range="10.244.1.0/24"),
            there("Pod", "p", "shop", spec={"nodeName": "n1"}),
            there("Pod", "q", "shop", spec={"nodeName": "n1", "hostNetwork": True}),
            there("Service", "web", "shop"),
            there("NetworkPolicy", "a", "shop", spec={"podSelector": {}}),
        ]
    )
    fold.wait_for(["Service"])
    reports = taken(fold)
    summary, profile = reports["summary"], reports["profile.shop"]
    assert summary.counts == {
        "Namespace": 1, "Node": 2, "NetworkPolicy": 1, "Service": 1, "EndpointSlice": 0, "Pod": 2,
    }  # fmt: skip
    assert (summary.version, summary.service_ranges) == ("v1.34.1", ("10.96.0.0/16",))
    assert summary.pod_ranges == ("10.244.0.0/23",)
    assert summary.runtimes == {"containerd://1.7": 2}
    assert summary.segmentation == {"segmented": 1, "host network": 1}
    assert (summary.synced, summary.waiting_for) == (False, ("Service",))
    assert (profile.pods, profile.services, profile.policies) == (2, 1, ("a",))
    assert profile.labels == {"team": "x"}

    fold.wait_for([])
    assert list(taken(fold)) == ["summary"]


def test_what_is_wrong_is_named_in_the_summary_until_it_is_mended():
    segmenting = Selected()
    fold = new(segmenting)
    segmenting.problems["NetworkPolicy/shop/a"] = ("its selector is unreadable",)
    segmenting.warnings["Service/shop/web"] = ("partial",)
    fold.touch([("shop", "other")])
    fold.fold_poison([Poison(7, "Pod/shop/p", "cut in half")])
    summary = taken(fold)["summary"]
    assert summary.warnings == (Trouble("Service/shop/web", "partial"),)
    assert [(e.object, e.message) for e in summary.errors] == [
        ("NetworkPolicy/shop/a", "its selector is unreadable"),
        ("Pod/shop/p", "cannot be read or used: cut in half"),
    ]
    fold.fold([msgspec.structs.replace(there("Pod", "p", "shop"), offset=8)])
    assert [error.object for error in taken(fold)["summary"].errors] == ["NetworkPolicy/shop/a"]


def test_a_pod_is_described_again_when_the_policies_that_select_it_change():
    segmenting = Selected()
    fold = new(segmenting)
    fold.fold([there("Namespace", "shop"), there("Pod", "p", "shop", spec={"nodeName": "n"})])
    assert taken(fold)["profile.shop"].segmentation == {"no policy": 1}
    segmenting.policies["shop"] = ["NetworkPolicy/shop/a"]
    fold.touch([("shop", "p")])
    changes = taken(fold)
    assert sorted(changes) == ["container-workload.shop.p", "profile.shop", "summary"]
    assert changes["profile.shop"].segmentation == {"segmented": 1}


def test_a_cluster_may_select_a_pod_by_more_policies_than_a_report_can_hold():
    policies = [f"NetworkPolicy/shop/{number:05}" for number in range(10_000)]
    fold = new(Selected(shop=policies))
    fold.fold([there("Pod", "p", "shop", spec={"nodeName": "n"})])
    report = taken(fold)["container-workload.shop.p"]
    assert len(report.policies) == 500
    assert report.policies_total == 10_000


def test_what_is_taken_in_slices_is_the_whole():
    facts = [there("Pod", f"p{number}", "shop", spec={"nodeName": "n1"}) for number in range(10)]
    fold = new()
    fold.fold([there("Namespace", "shop"), node("n1"), *facts])
    sliced: dict[str, AnyReport | None] = {}
    while fold.dirty:
        changes = fold.take_changes(limit=3)
        assert len(changes) <= 3
        sliced |= changes
    assert sliced == settle([there("Namespace", "shop"), node("n1"), *facts])
