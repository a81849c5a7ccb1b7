"""What a C-VEN knows of its node: what should be, which Pods are there, and which of them cannot be programmed.

Plain state that the tasks of one C-VEN share on one loop. Whatever changes here marks Pods dirty and costs next to
nothing; `programming` writes them, `acknowledging` judges their connections and says what is realized.
"""

import asyncio
from collections import ChainMap, deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

import structlog

from enforcers.core import layout
from enforcers.core.connections.cutting import Cut
from enforcers.core.difference import Patch, Sets
from enforcers.core.layout import FAMILIES, Family
from enforcers.core.node_state import NodeState
from enforcers.core.patch_text import describe
from enforcers.core.tracked_sets import TrackedSet
from enforcers.kernel.namespaces import HERE, CommandFailed, NoNamespace
from enforcers.kernel.rules.chain_backends import ChainBackendName
from enforcers.kernel.sets.set_backends import BackendName
from enforcers.kernel.sockets import NetlinkRefused
from enforcers.metrics import Metrics
from enforcers.node.cuts import Cuts
from enforcers.node.orders import Orders, covers
from enforcers.node.tampering import Tamperings
from enforcers.pods.placement import NoAddress, Unenforceable
from enforcers.pods.pod import PodEnforcement
from enforcers.runtimes.runtime import Sandbox
from enforcers.settings import EnforcerSettings
from schemas import addresses
from schemas.local import PatchNote
from schemas.policy import Mark, NodeUpdate
from schemas.programs import Direction, Program
from schemas.status import Order, PodState
from streams.channels.reporting import now

TROUBLE: Final = (Unenforceable, NoAddress, NoNamespace, CommandFailed, NetlinkRefused, KeyError, OSError)
"""What is one Pod's trouble. Anything else is a bug and ends the process; rules stand meanwhile."""

UNKNOWN: Final = Direction(isolating=("setting unknown_pods",))
"""For a Pod that the snapshot on disk does not know, if so set: nobody but its own node."""

NOTED: Final = 500
"""Patches that are remembered for whoever asks."""

_log = structlog.get_logger("enforcers.node.local_node")


class LocalNode:
    """The node of a C-VEN with *settings*."""

    def __init__(self, settings: EnforcerSettings, metrics: Metrics, orders: Orders, netns: Path = HERE) -> None:
        self.settings = settings
        self.netns = netns
        """The node's own network namespace."""
        self.metrics = metrics
        self.policy = NodeState()
        """What should be."""
        self.pods: dict[str, PodEnforcement] = {}
        """By the runtime's uid: what is."""
        self.failing: dict[str, str] = {}
        """Uid → why the Pod does not hold what it should."""
        self.tamperings = Tamperings(metrics)
        self.cuts = Cuts(metrics)
        self.from_disk = False
        """Whether it enforces what it kept, since nobody told it anything newer."""
        self.settled = False
        """Whether all that was told adds up to a revision, or is of the snapshot."""
        self.patches: deque[PatchNote] = deque(maxlen=NOTED)
        """The newest that were written, to whichever Pod."""
        self.set_backend: BackendName = "restore" if settings.set_backend == "restore" else "netlink"
        """Of Pods that come from now on."""
        self.chain_backend: ChainBackendName = "netlink" if settings.chain_backend == "netlink" else "restore"
        """The same."""
        self.families: Sequence[Family] = FAMILIES
        """Those that the kernel has; one that it has not counts as realized."""
        self.problems: dict[str, str] = {}
        """What hinders it, by what it is about, beside the troubles of single Pods."""
        self.changed = asyncio.Event()
        """Set when there is something to report."""
        self.work = asyncio.Event()
        """Set when there is something to write or to acknowledge."""
        self.orders = orders
        self._dirty: set[str] = set()
        self._marks: list[Mark] = []
        self._fixed = frozenset(map(addresses.pack, settings.extra_node_addresses))
        self._addresses = TrackedSet(self._fixed)
        self._addressed = False  # whether the node's own addresses were read

    def __repr__(self) -> str:
        return f"<node {self.settings.node}: {len(self.pods)} Pods, {len(self._dirty)} dirty, {len(self.failing)} fail>"

    @property
    def passive(self) -> bool:
        """Whether nothing is written that is not released."""
        return self.settings.observe or self.orders.paused

    @property
    def known(self) -> bool:
        """Whether enough is known to write at all: the complete policy, or the snapshot; and the own addresses."""
        return (self.policy.complete or self.from_disk) and self._addressed

    # --- what is told ------------------------------------------------------------------------------------------------

    def take_policy(self, update: NodeUpdate) -> None:
        """The policy reader told *update*."""
        self.mark_dirty(self.policy.apply(update))
        if update.complete:
            self.from_disk = False
            self.mark_dirty(self.pods)  # rules of before may be there, which nobody asks for any more
        self.settled = update.mark is not None
        if update.mark is not None and self.policy.complete:
            self._marks.append(update.mark)
            self.work.set()

    def take_snapshot(self, update: NodeUpdate) -> None:
        """Enforce what was kept on disk, since nobody tells anything newer."""
        self.from_disk = self.settled = True
        self.policy.apply(update)
        self.mark_dirty(self.pods)

    def take_sandboxes(self, sandboxes: Mapping[str, Sandbox]) -> None:
        """The runtime told all its *sandboxes* by uid."""
        for uid in self.pods.keys() - sandboxes.keys():
            self.pods.pop(uid).close()
            self.failing.pop(uid, None)
            self.tamperings.forget(uid)
        for uid, sandbox in sandboxes.items():
            pod = self.pods.get(uid)
            if pod is None or (pod.sandbox.id, pod.sandbox.netns) != (sandbox.id, sandbox.netns):
                if pod is not None:
                    pod.close()
                    self.tamperings.forget(uid)
                self.pods[uid] = self._enforcement(sandbox)
                self.mark_dirty([uid])
            else:
                moved = set(pod.sandbox.addresses) != set(sandbox.addresses)
                pod.sandbox = sandbox
                if moved:  # or it has them only now: runtimes tell of a Pod before its network is made
                    pod.doubt()
                    self.mark_dirty([uid])
        self.changed.set()

    def take_addresses(self, found: frozenset[bytes]) -> None:
        """The node has the addresses *found*."""
        wanted = found | self._fixed
        self.policy.take_addresses(wanted)
        if self._addresses.change(wanted, self._addresses.members - wanted) or not self._addressed:
            self.mark_dirty(self.pods)
        self._addressed = True

    def look_at_namespaces(self) -> None:
        """Files that name namespaces may have come or gone, whatever the runtime has said by now.

        What is gone is let go of, and nothing else: it is an error once something must be written there, not before.
        """
        self.mark_dirty([uid for uid, pod in self.pods.items() if pod.let_go_if_gone()])

    def _enforcement(self, sandbox: Sandbox) -> PodEnforcement:
        settings = self.settings
        return PodEnforcement(
            sandbox,
            settings.mark,
            self.set_backend,
            chains=self.chain_backend,
            families=self.families,
            foreign_handlers=settings.foreign_handlers,
            node_netns=self.netns,
            cut=self._cut,
        )

    def _cut(self, sandbox: Sandbox, cuts: Sequence[Cut]) -> None:
        if cuts:
            self.cuts.record(sandbox, cuts)
            self.changed.set()

    # --- what is ordered by hand -------------------------------------------------------------------------------------

    def order(self, order: Order) -> None:
        """Obey *order*, given by hand."""
        self.orders.give(order)
        self._reconsider(order)

    def undo(self, release: str | None = None, *, by: str = "", reason: str = "") -> tuple[Order, ...]:
        """End orders as `Orders.undo` does; return them."""
        ended = self.orders.undo(release, by=by, reason=reason)
        for order in ended:
            self._reconsider(order)
        return ended

    def _reconsider(self, order: Order) -> None:
        concerned = [uid for uid, pod in self.pods.items() if covers(order, pod.sandbox)]
        for uid in concerned:  # its trouble was with other rules
            self.failing.pop(uid, None)
        self.mark_dirty(concerned)
        self.changed.set()

    def releasing(self, uid: str) -> Order | None:
        """The order by which the Pod *uid* shall have no rules of ours."""
        return self.orders.releasing(self.pods[uid].sandbox) if uid in self.pods else None

    # --- what has to be done -----------------------------------------------------------------------------------------

    def mark_dirty(self, uids: Iterable[str]) -> None:
        """The kernel of these Pods may have to change."""
        self._dirty.update(uids)
        self.work.set()

    def take_work(self, *, again: bool) -> tuple[set[str], list[Mark]]:
        """The dirty Pods, *again* with those that fail, and the marks that came with what made them so.

        All are taken away. While nothing may be written, or nothing is known, these are the released Pods only: the
        others, and the newest mark, wait.
        """
        if again:
            self._dirty |= self.failing.keys()
        if self.passive or not self.known:
            released = {uid for uid in self._dirty if self.may_write(uid)}
            self._dirty -= released
            self._marks = self._marks[-1:]
            return released, []
        dirty, self._dirty = self._dirty, set()
        marks, self._marks = self._marks, []
        return dirty, marks

    def program_of(self, uid: str) -> Program | None:
        """What the Pod *uid* must enforce; ``None``: nothing."""
        if self.releasing(uid) is not None:
            return None
        program = self.policy.programs.get(uid)
        pod = self.pods.get(uid)
        if program is None and pod is not None and self.from_disk and self.settings.unknown_pods == "isolate":
            return Program(
                uid=uid,
                namespace=pod.sandbox.namespace,
                name=pod.sandbox.name,
                node=self.settings.node,
                ingress=UNKNOWN,
                egress=UNKNOWN,
            )
        return program

    def may_write(self, uid: str) -> bool:
        """Whether the Pod *uid* may be written to now: whatever is known or ordered, if it is released."""
        return (self.known and not self.passive) or self.releasing(uid) is not None

    def may_sweep(self, uid: str) -> bool:
        """Whether the Pod *uid* may lose its rules: its program asks for none, or it is released.

        Not on the word of a snapshot, which may be older than they are. Nor where no program names it any more: a Pod
        runs on that was deleted by force, or whose node the API server has lost, or whose mirror is made anew.
        """
        told = uid in self.policy.programs and not self.from_disk
        return told or self.releasing(uid) is not None

    def sets_of(self, program: Program | None) -> Sets:
        """What *program* names, taken with it: later the node may know other ones. Raises `KeyError`."""
        named = program.sets if program is not None else ()
        return {**{identity: self.policy.sets[identity] for identity in named}, layout.NODE_SET: self._addresses}

    @property
    def all_sets(self) -> Sets:
        """Every set that the node knows."""
        return ChainMap({layout.NODE_SET: self._addresses}, self.policy.sets)

    # --- what has become of it ---------------------------------------------------------------------------------------

    def succeed(self, uid: str, pod: PodEnforcement) -> None:
        """*pod* was programmed."""
        self.failing.pop(uid, None)
        self.settle(uid, pod)

    def settle(self, uid: str, pod: PodEnforcement) -> None:
        """*pod* holds what it should, as far as anyone looked."""
        if not pod.tampered:
            self.tamperings.heal(uid)
        if pod.state is PodState.OPEN:  # nothing of ours is there to be fought about
            self.tamperings.forget(uid)
        elif self.tamperings.trouble(uid):
            pod.state = PodState.CONTESTED
        elif pod.state is PodState.CONTESTED:
            pod.state = PodState.ENFORCED

    def note(self, sandbox: Sandbox, patch: Patch, seconds: float, *, healing: bool) -> None:
        """*patch* was written to the Pod of *sandbox*, where *healing* because someone had changed what is ours."""
        self.metrics.patches.inc()
        self.metrics.patch_seconds.observe(seconds)
        self.patches.append(
            PatchNote(
                time=now(),
                namespace=sandbox.namespace,
                name=sandbox.name,
                what=f"{'put back: ' if healing else ''}{describe(patch)}",
                milliseconds=round(seconds * 1000, 3),
            )
        )

    def fail(self, uid: str, pod: PodEnforcement, error: BaseException) -> None:
        """*pod* could not be programmed or judged; it is tried again."""
        pod.doubt()
        pod.state = PodState.UNENFORCEABLE if isinstance(error, Unenforceable) else PodState.ERROR
        if self.pods.get(uid) is not pod:  # it went away meanwhile, and its trouble with it
            return
        reason = f"{type(error).__name__}: {error}"
        if self.failing.get(uid) != reason:
            _log.error("Pod not programmed", pod=f"{pod.sandbox.namespace}/{pod.sandbox.name}", reason=reason)
        self.failing[uid] = reason
        self.metrics.failures.inc()

    def api_uid(self, uid: str) -> str:
        """The API's id of the Pod that the runtime knows as *uid*: they differ for a static Pod."""
        program = self.policy.programs.get(uid)
        return program.uid if program is not None else uid
