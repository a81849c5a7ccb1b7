"""Reports and status, joined: what the cluster is, and what its nodes and components say of themselves."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from compose.reading.output import counted
from schemas.reports import AnyReport, ContainerWorkload, Summary, Workload
from schemas.status import (
    Component,
    Connectivity,
    CvenStatus,
    KubelinkStatus,
    PodDetail,
    PodState,
    ProcessorStatus,
    RuntimeStatus,
)
from streams.channels.status import Heard, Place


class Spoken(msgspec.Struct, frozen=True):
    """Everything that was said, at one moment."""

    heard: Mapping[Place, Heard]
    now: float
    """Seconds since the Unix epoch."""
    desired: int = -1
    """Newest revision that is complete in the policy stream; -1: none."""

    def cven(self, node: str) -> tuple[CvenStatus, Connectivity] | None:
        """What the enforcer of *node* said last, and whether it still speaks."""
        found = self.heard.get((Component.CVEN, node))
        if found is None or not isinstance(found.status, CvenStatus):
            return None
        return found.status, found.connectivity(self.now)

    def detail(self, workload: ContainerWorkload) -> PodDetail | None:
        """What its node's runtime and enforcer say of a Pod; of an offline enforcer's word only that it was the last.

        The word on Pods has no heartbeat: whether it still holds is known by the enforcer's own.
        """
        found = self.heard.get((Component.RUNTIME, workload.node))
        if found is None or not isinstance(found.status, RuntimeStatus):
            return None
        detail = next((pod for pod in found.status.pods if pod.uid == workload.uid), None)
        cven = self.cven(workload.node)
        if detail is None or (cven is not None and cven[1] is not Connectivity.OFFLINE):
            return detail
        last = f"its node's enforcer is offline and last said: {detail.state}"
        return replace(detail, state=PodState.UNKNOWN, bypassable=False, problems=(last, *detail.problems))

    def trouble(self, workload: ContainerWorkload) -> str:
        """Why a Pod does not hold what it should, and what is wrong though it does; empty: nothing is known against it.

        Both by its node's enforcer.
        """
        cven, detail = self.cven(workload.node), self.detail(workload)
        exceptions = cven[0].exceptions if cven is not None else ()
        reasons = [each.reason for each in exceptions if each.uid == workload.uid]
        return "; ".join([*reasons, *(detail.problems if detail is not None else ())])


NOTHING = Spoken({}, 0.0)


def joined(report: AnyReport, spoken: Spoken) -> dict[str, Any]:
    """*report* as a mapping, with what was said about its object under ``status``."""
    found: dict[str, Any] = msgspec.to_builtins(report)
    if isinstance(report, Summary):
        states, bypassable = enforcement(spoken)
        found["status"] = {
            "desired_revision": spoken.desired,
            "pods": states,
            "bypassable": bypassable,
            "components": components(spoken),
        }
    elif isinstance(report, Workload):
        found["status"] = _of_node(report, spoken)
    elif isinstance(report, ContainerWorkload):
        detail = spoken.detail(report)
        found["status"] = msgspec.to_builtins(detail) if detail is not None else None
    return found


def _of_node(report: Workload, spoken: Spoken) -> dict[str, Any] | None:
    if (cven := spoken.cven(report.name)) is None:
        return None
    status, connectivity = cven
    return {**msgspec.to_builtins(status), "connectivity": str(connectivity), "desired_revision": spoken.desired}


def enforcement(spoken: Spoken) -> tuple[dict[str, int], int]:
    """Pods by what the enforcers made of their programs, and how many of those with rules may send packets past them.

    What an offline enforcer said last is not counted: nothing is known of it.
    """
    states: Counter[str] = Counter()
    bypassable = 0
    for heard in spoken.heard.values():
        status = heard.status
        if isinstance(status, CvenStatus) and heard.connectivity(spoken.now) is not Connectivity.OFFLINE:
            states.update({str(state): count for state, count in status.pods.items()})
            bypassable += status.bypassable
    return dict(sorted(states.items())), bypassable


def components(spoken: Spoken) -> list[dict[str, Any]]:
    """Every component with version, heartbeat and lag, by kind and name."""
    return [
        {
            "component": str(component),
            "name": name,
            "version": getattr(heard.status, "version", ""),
            "connectivity": str(heard.connectivity(spoken.now)),
            "heard_seconds_ago": round(max(0.0, spoken.now - heard.stored_at), 1),
            "says": said(heard, spoken.desired),
            "problems": list(getattr(heard.status, "problems", ())),
        }
        for (component, name), heard in sorted(spoken.heard.items())
        if component is not Component.RUNTIME
    ]


def said(heard: Heard, desired: int) -> str:
    """The one line that tells most about a component."""
    match heard.status:
        case CvenStatus(realized=realized, exceptions=exceptions, observing=observing, paused=paused, orders=orders):
            role = "observing" if observing else "paused" if paused else f"realized {realized} of {desired}"
            released = sum(bool(order.release) for order in orders)
            found = [counted(len(exceptions), "exception")] if exceptions else []
            found += [counted(released, "release by hand", "releases by hand")] if released else []
            return ", ".join([role, *found])
        case KubelinkStatus(leading=leading, epoch=epoch, lag_seconds=lag):
            return f"{'leading' if leading else 'standing by'}, epoch {epoch}, lag {lag:.1f}s"
        case ProcessorStatus(owner=owner, revision=revision, lag=lag):
            return f"{'owner' if owner else 'standing by'}, revision {revision}, lag {lag}"
        case _:
            return ""
