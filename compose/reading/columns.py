"""The tables of the five reports: which columns, in which order, and what more when wide."""

from collections.abc import Sequence

from compose.reading.joining import Spoken, components, enforcement
from compose.reading.output import age, aligned, counted
from schemas.reports import (
    AnyReport,
    ContainerState,
    ContainerWorkload,
    Profile,
    Summary,
    VirtualService,
    Workload,
)
from schemas.status import ContainerDetail, PodDetail

Row = Sequence[object]

HEADINGS: dict[type[AnyReport], tuple[Row, Row]] = {
    Workload: (
        ("NAME", "READY", "ENFORCER", "REALIZED", "PODS", "ADDRESS", "AGE"),
        ("KUBELET", "KERNEL", "OS", "RUNTIME", "POD RANGES", "EXCEPTIONS"),
    ),
    ContainerWorkload: (
        ("NAMESPACE", "NAME", "READY", "PHASE", "SEGMENTATION", "ENFORCEMENT", "ADDRESS", "NODE", "AGE"),
        ("OWNER", "TROUBLE", "CONTAINERS", "ADDRESSES", "POLICIES", "SELECTED BY", "CAVEATS"),
    ),
    VirtualService: (
        ("NAMESPACE", "NAME", "TYPE", "ADDRESSES", "PORTS", "BACK-ENDS", "AGE"),
        ("SELECTOR", "TARGETS"),
    ),
    Profile: (
        ("NAMESPACE", "PHASE", "MODE", "PODS", "SEGMENTED", "SERVICES", "POLICIES", "AGE"),
        ("LABELS", "VISIBILITY", "NAMES"),
    ),
}


def heading(type_: type[AnyReport], wide: bool) -> Row:
    normal, more = HEADINGS[type_]
    return (*normal, *more) if wide else normal


def row(report: AnyReport, spoken: Spoken, wide: bool) -> Row:
    """One line of *report*'s table. A summary is no table: see `summary`."""
    match report:
        case Workload():
            normal, more = _workload(report, spoken)
        case ContainerWorkload():
            normal, more = _container_workload(report, spoken)
        case VirtualService():
            normal, more = _virtual_service(report, spoken)
        case Profile():
            normal, more = _profile(report, spoken)
        case _:
            raise TypeError(f"{type(report).__name__} has no row")
    return (*normal, *more) if wide else normal


def _workload(report: Workload, spoken: Spoken) -> tuple[Row, Row]:
    cven = spoken.cven(report.name)
    realized = f"{cven[0].realized}/{spoken.desired}" if cven else ""
    internal = [address for type_, address in report.addresses if type_ == "InternalIP"]
    ready = "yes" if report.ready else f"no: {report.reason}"
    return (
        report.name, ready, cven[1] if cven else "none", realized, report.pods, ",".join(internal),
        _age(report, spoken),
    ), (
        report.kubelet, report.kernel, report.os, report.runtime, ",".join(report.pod_ranges),
        len(cven[0].exceptions) if cven else "",
    )  # fmt: skip


def _container_workload(report: ContainerWorkload, spoken: Spoken) -> tuple[Row, Row]:
    detail = spoken.detail(report)
    enforced = f"{detail.state}{' (bypassable)' if detail.bypassable else ''}" if detail else ""
    return (
        report.namespace, report.name, "yes" if report.ready else "no",
        "Terminating" if report.terminating else report.phase, report.segmentation, enforced,
        report.addresses[0] if report.addresses else "", report.node, _age(report, spoken),
    ), (
        report.owners[-1] if report.owners else "", spoken.trouble(report),
        _containers(report, detail), ",".join(report.addresses),
        report.policies_total,
        ",".join(policy.rpartition("/")[2] for policy in report.policies), "; ".join(report.caveats),
    )  # fmt: skip


def _containers(report: ContainerWorkload, detail: PodDetail | None) -> str:
    """``web (waiting: CrashLoopBackOff; exited; 3 restarts)``: as the API server says, and the runtime."""
    told = {each.name: each for each in detail.containers} if detail else {}
    return ", ".join(_container(each, told.get(each.name)) for each in report.containers)


def _container(each: ContainerState, told: ContainerDetail | None) -> str:
    restarts = max(each.restarts, told.restarts if told else 0)
    states = [each.state, told.state if told else "", counted(restarts, "restart") if restarts else ""]
    return f"{each.name} ({'; '.join(dict.fromkeys(filter(None, states))) or 'unknown'})"


def _virtual_service(report: VirtualService, spoken: Spoken) -> tuple[Row, Row]:
    kind = "headless" if report.headless else report.external_name
    ports = [
        f"{port.port}/{port.protocol}" + (f" (node {port.node_port})" if port.node_port else "")
        for port in report.ports
    ]
    counts = ", ".join(f"{count} {state}" for state, count in report.backends_total.items())
    selector = ",".join(f"{key}={value}" for key, value in sorted(report.selector.items()))
    return (
        report.namespace, report.name, report.type, kind or ",".join((*report.addresses, *report.external_addresses)),
        ",".join(ports), counts or "none", _age(report, spoken),
    ), (
        selector or ("none: by hand" if report.selectorless else ""),
        ", ".join(f"{backend.address} ({backend.state})" for backend in report.backends),
    )  # fmt: skip


def _profile(report: Profile, spoken: Spoken) -> tuple[Row, Row]:
    labels = ",".join(f"{key}={value}" for key, value in sorted(report.labels.items()))
    return (
        report.namespace, report.phase, report.mode, report.pods, report.segmentation.get("segmented", 0),
        report.services, report.policies_total, _age(report, spoken),
    ), (labels, report.visibility, ",".join(report.policies))  # fmt: skip


def _age(report: Workload | ContainerWorkload | VirtualService | Profile, spoken: Spoken) -> str:
    return age(report.created, spoken.now)


def summary(report: Summary, spoken: Spoken) -> list[str]:
    """The cluster on a page."""
    counts = report.counts
    ready = f"{report.nodes_ready} of {counts.get('Node', 0)} ready"
    facts: list[Row] = [
        ("Cluster", report.cluster),
        ("Kubernetes", f"{report.version} {report.platform}".strip()),
        ("Container runtimes", ", ".join(f"{name} ({nodes})" for name, nodes in report.runtimes.items())),
        ("Pod ranges", ", ".join(report.pod_ranges)),
        ("Service ranges", ", ".join(report.service_ranges)),
        ("Nodes", ready),
        ("Objects", ", ".join(f"{kind} {count}" for kind, count in counts.items())),
        ("Pods", ", ".join(f"{state} {count}" for state, count in report.segmentation.items())),
        ("Enforcement", _enforcement(spoken)),
        ("In step", "yes" if report.synced else f"waiting for {', '.join(report.waiting_for) or 'Kubelink'}"),
        ("Revision", spoken.desired if spoken.desired >= 0 else ""),
    ]
    lines = aligned(facts)
    if found := components(spoken):
        heads = ("COMPONENT", "NAME", "VERSION", "STATE", "HEARD", "SAYS")
        rows = [
            (
                one["component"],
                one["name"],
                one["version"],
                one["connectivity"],
                f"{one['heard_seconds_ago']}s ago",
                one["says"],
            )
            for one in found
        ]
        lines += ["", *aligned([heads, *rows])]
        lines += [f"{one['component']} {one['name']}: {problem}" for one in found for problem in one["problems"]]
    for title, troubles, total in (
        ("Errors", report.errors, report.errors_total),
        ("Warnings", report.warnings, report.warnings_total),
    ):
        if troubles:
            lines += ["", f"{title} ({total})", *(f"  {trouble.object}: {trouble.message}" for trouble in troubles)]
    return lines


def _enforcement(spoken: Spoken) -> str:
    states, bypassable = enforcement(spoken)
    text = ", ".join(f"{state} {count}" for state, count in states.items())
    return f"{text} ({bypassable} bypassable by raw sockets)" if bypassable else text
