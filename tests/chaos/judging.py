"""What had to happen to every datagram: each state of the log by the interpreter, and the datagrams against them.

The log is folded one record at a time, so that every state it ever described is judged, not only those between changes.

Each end of a connection is enforced by itself, as soon as its own node knows: while a change is under way the source
may follow one state and the destination another. So a datagram is surely denied where one end denies it in every state
that may be in force, and surely allowed where both allow it in all of them. Where every state denies, but not by the
same end, one may pass in between; such are counted too.
"""

from bisect import bisect_right
from collections.abc import Iterable, Set
from itertools import permutations
from operator import itemgetter
from typing import Final, NamedTuple

import msgspec

from processors.core.cluster_fold import ClusterFold
from processors.settings import ProcessorSettings
from schemas.addresses import UDP, pack
from schemas.events import EventType, decode_event
from schemas.objects import Pod, decode_object
from schemas.policy import Policy
from schemas.verdict import Flow, judge_egress, judge_ingress
from streams.log import Record
from tests.chaos.history import PORTS
from tests.chaos.prober import Prober

CLOCK_SECONDS: Final = 0.005
"""Kafka's milliseconds and ours."""


class Pair(NamedTuple):
    """Who asks whom, by uid, and where."""

    source: str
    destination: str
    version: int
    port: int


class Verdict(NamedTuple):
    """Whether each end allows."""

    source: bool
    destination: bool


class States:
    """The verdict of every state on every pair, and when each Pod first had a program."""

    def __init__(self, cluster: str, records: Iterable[Record]) -> None:
        self.first_program: dict[str, int] = {}
        self._revisions: list[int] = []
        self._times: list[float] = []
        self._changes: dict[Pair, list[tuple[int, Verdict]]] = {}
        self._pods: dict[str, dict[int, bytes]] = {}
        self._judged: Set[str] = frozenset()
        self.fold = ClusterFold(cluster, ProcessorSettings(cluster=cluster).policy)
        for record in records:
            self._advance(record)

    def newest_at(self, seconds: float) -> int:
        """The newest revision that was in the log at that time."""
        return self._revisions[bisect_right(self._times, seconds + CLOCK_SECONDS) - 1]

    def verdicts(self, pair: Pair, first: int, last: int) -> set[Verdict]:
        """Every verdict of the states from revision *first* to *last*; empty where the first knows no such pair."""
        changes = self._changes.get(pair, [])
        start = bisect_right(changes, first, key=itemgetter(0)) - 1
        if start < 0:
            return set()
        return {verdict for revision, verdict in changes[start:] if revision <= last}

    def _advance(self, record: Record) -> None:
        self._revisions.append(record.offset)
        self._times.append(max(record.timestamp / 1000, self._times[-1] if self._times else 0))
        if record.value is not None:
            event = decode_event(record.value)
            if event.kind == "Pod" and event.type is not EventType.DELETED:
                self._know(decode_object("Pod", event.object), event.uid)
        if self.fold.advance([record]).change:
            self._judge(self.fold.policy(), record.offset)

    def _know(self, pod: Pod | object, uid: str) -> None:
        assert isinstance(pod, Pod)
        found = [pack(item.ip) for item in pod.status.pod_ips or ()]
        self._pods[uid] = {4 if len(address) == 4 else 6: address for address in found}

    def _judge(self, policy: Policy, revision: int) -> None:
        programs = {uid: program for (_, uid), program in policy.programs.items()}
        for uid in programs:
            self.first_program.setdefault(uid, revision)

        def members(identity: str) -> frozenset[bytes]:
            return policy.sets.get(identity, frozenset())

        pairs = [
            Pair(source, destination, version, port)
            for source, destination in permutations(programs.keys() | self._judged, 2)
            for version in (4, 6)
            for port in PORTS
        ]
        for pair in pairs:
            flow = Flow(
                self._pods[pair.source][pair.version], self._pods[pair.destination][pair.version], UDP, pair.port
            )
            verdict = Verdict(
                judge_egress(programs.get(pair.source), flow, members).allowed,
                judge_ingress(programs.get(pair.destination), flow, members).allowed,
            )
            changes = self._changes.setdefault(pair, [])
            if not changes or changes[-1][1] != verdict:
                changes.append((revision, verdict))
        self._judged = programs.keys()


class Findings(msgspec.Struct):
    """Of datagrams whose fate was certain when they were sent."""

    denied: int = 0
    leaked: list[str] = []
    between: list[str] = []
    """Passed, though every state in force denied them, one by this end and one by that."""
    between_for_ever: int = 0
    """How many of these every state to the end of the log denied."""
    allowed: int = 0
    lost: list[str] = []


def judge(prober: Prober, states: States) -> Findings:
    """Hold every datagram against all states that could be in force while it passed."""
    found = Findings()
    got = dict(prober.arrived)
    newest = [states.newest_at(volley.ended) for volley in prober.volleys]
    for number, sent in enumerate(prober.sent):
        if sent.volley >= len(prober.volleys):
            continue
        volley = prober.volleys[sent.volley]
        receiver = got.get(number, sent.destination)
        ends = (sent.source, receiver)
        counts = all(
            volley.settled.get(uid, -1) >= states.first_program.get(uid, 1 << 62) and uid not in volley.excepted
            for uid in ends
        )
        if not counts:
            continue
        pair = Pair(sent.source, receiver, sent.version, sent.port)
        verdicts = states.verdicts(pair, volley.realized, newest[sent.volley])
        if not verdicts:
            continue
        where = f"{pair} in volley {sent.volley}, revisions {volley.realized} to {newest[sent.volley]}"
        if not any(one.source for one in verdicts) or not any(one.destination for one in verdicts):
            found.denied += 1
            if number in got:
                found.leaked.append(where)
        elif all(one.source and one.destination for one in verdicts):
            found.allowed += 1
            if number not in got:
                found.lost.append(where)
        elif number in got and not any(one.source and one.destination for one in verdicts):
            found.between.append(where)
            later = states.verdicts(pair, volley.realized, states.fold.revision)
            found.between_for_ever += not any(one.source and one.destination for one in later)
    return found
