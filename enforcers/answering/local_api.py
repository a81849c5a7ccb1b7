"""What the enforcer answers to whoever stands on its node: `eastwest node`, over a unix socket that root may open.

It needs neither NATS nor the runtime: it says what the enforcer knows and what the kernel holds, and obeys orders.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
import structlog
from aiohttp import web

from enforcers.answering.local_socket import EnforcerAtWork, claimed
from enforcers.cven import Cven
from enforcers.kernel import tables
from enforcers.node.local_node import TROUBLE
from enforcers.pods.pod import PodEnforcement
from schemas.local import (
    COUNT,
    NodeState,
    PatchNote,
    PodCounters,
    PodLine,
    ProgramView,
    SetLine,
    Trouble,
    Verification,
)
from schemas.programs import Program
from schemas.status import Order
from streams.channels.reporting import VERSION, now

AT_ONCE: Final = 8
"""Pods that are read at a time."""

_log = structlog.get_logger("enforcers.answering.local_api")

T = TypeVar("T")

Chosen = tuple[str, PodEnforcement]
"""A Pod, by the runtime's uid."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class LocalApi:
    """Answers for *cven*."""

    def __init__(self, cven: Cven) -> None:
        self._cven = cven
        self._node = cven.node

    def application(self) -> web.Application:
        made = web.Application(middlewares=[_say_what_is_wrong])
        made.add_routes(
            [
                web.get("/", self._state),
                web.get("/pods", self._pods),
                web.get("/programs", self._programs),
                web.get("/sets", self._sets),
                web.get("/counters", self._counters),
                web.get("/patches", self._patches),
                web.get("/verify", self._verify),
                web.post("/orders", self._order),
                web.delete("/orders", self._undo),
            ]
        )
        return made

    async def _state(self, _: web.Request) -> web.Response:
        node = self._node
        return _json(
            NodeState(
                node=node.settings.node,
                version=VERSION,
                realized=self._cven.revision,
                known=node.known,
                from_disk=node.from_disk,
                observing=node.settings.observe,
                orders=node.orders.given,
                pods=dict(self._cven.states()),
                sets_by=node.set_backend,
                chains_by=node.chain_backend,
                problems=(*node.problems.values(), *self._cven.standing.problems()),
            )
        )

    async def _pods(self, request: web.Request) -> web.Response:
        reasons = {each.uid: each.reason for each in self._cven.standing.exceptions()}
        return _json([self._line(uid, pod, reasons) for uid, pod in self._chosen(request)])

    def _line(self, uid: str, pod: PodEnforcement, reasons: Mapping[str, str]) -> PodLine:
        node, program, standing = self._node, self._node.policy.programs.get(uid), self._cven.standing
        directions = (program.ingress, program.egress) if program is not None else ()
        seen = pod.connections.inspected
        return PodLine(
            namespace=pod.sandbox.namespace,
            name=pod.sandbox.name,
            uid=node.api_uid(uid),
            state=standing.state_of(uid),
            bypassable=standing.is_bypassable(uid),
            rules=sum(len(direction.rules) for direction in directions if direction),
            sets=len(program.sets) if program is not None else 0,
            patches=pod.writes,
            connections=seen.connections,
            connections_limit=seen.limit,
            reason=reasons.get(node.api_uid(uid), ""),
            problems=pod.problems,
            netns=str(pod.sandbox.netns),
        )

    async def _programs(self, request: web.Request) -> web.Response:
        found = [(uid, self._node.policy.programs.get(uid)) for uid, _ in self._chosen(request)]
        return _json([self._view(program) for _, program in found if program is not None])

    def _view(self, program: Program) -> ProgramView:
        sets = self._node.policy.sets
        return ProgramView(
            program=program,
            sets={name: tuple(sorted(sets[name].members)) for name in sorted(program.sets) if name in sets},
        )

    async def _sets(self, request: web.Request) -> web.Response:
        policy = self._node.policy
        programs = [policy.programs[uid] for uid, _ in self._chosen(request) if uid in policy.programs]
        names = sorted({name for program in programs for name in program.sets})
        return _json(
            [
                SetLine(
                    id=name,
                    members=len(policy.sets[name].members) if name in policy.sets else 0,
                    pods=sum(name in program.sets for program in programs),
                )
                for name in names
            ]
        )

    async def _counters(self, request: web.Request) -> web.Response:
        async def count(uid: str, pod: PodEnforcement) -> PodCounters:
            where = pod.sandbox
            try:
                counters = await tables.counters(where.netns, self._node.policy.programs.get(uid))
            except TROUBLE as error:
                return PodCounters(namespace=where.namespace, name=where.name, error=str(error))
            return PodCounters(namespace=where.namespace, name=where.name, counters=tuple(counters))

        return _json(await asyncio.gather(*self._in_turns(self._chosen(request), count)))

    async def _patches(self, request: web.Request) -> web.Response:
        chosen = {(pod.sandbox.namespace, pod.sandbox.name) for _, pod in self._chosen(request)}
        everything = not request.query.get("pod") and not request.query.get("namespace")
        notes: list[PatchNote] = list(self._node.patches)
        return _json([each for each in notes if everything or (each.namespace, each.name) in chosen])

    async def _verify(self, request: web.Request) -> web.StreamResponse:
        chosen = self._chosen(request)
        response = web.StreamResponse(headers={COUNT: str(len(chosen)), "Content-Type": "application/jsonl"})
        await response.prepare(request)
        with suppress(ConnectionResetError):  # whoever asked has seen enough
            for done in asyncio.as_completed(self._in_turns(chosen, self._compare)):
                await response.write(msgspec.json.encode(await done) + b"\n")
        return response

    async def _compare(self, uid: str, pod: PodEnforcement) -> Verification:
        node, where = self._node, pod.sandbox
        try:
            if not node.known:
                raise KeyError("what it should hold is not known yet")
            program = node.program_of(uid)
            found = await pod.verify(program, node.sets_of(program))
        except TROUBLE as error:
            return Verification(namespace=where.namespace, name=where.name, error=str(error))
        return Verification(namespace=where.namespace, name=where.name, differences=tuple(found))

    async def _order(self, request: web.Request) -> web.Response:
        order = msgspec.json.decode(await request.read(), type=Order)
        covered = [uid for uid, pod in self._node.pods.items() if order.covers(pod.sandbox.namespace, pod.sandbox.name)]
        if not covered:
            self._reject_mistyped(order.release)
        order = msgspec.structs.replace(order, since=now())
        self._node.order(order)
        self._node.orders.keep()
        return _json({"order": order, "pods": len(covered)})

    def _reject_mistyped(self, release: str) -> None:
        """Raise LookupError where *release*, which covers no Pod that is here, can only mean one that is.

        A namespace may well have no Pod here yet.
        """
        here = [f"{pod.sandbox.namespace}/{pod.sandbox.name}" for pod in self._node.pods.values()]
        if "/" in release:
            raise LookupError(f"no Pod {release} on {self._node.settings.node}")
        if meant := [each for each in here if each.endswith(f"/{release}")]:
            raise LookupError(f"{release} is no namespace with Pods here; name the Pod as {' or '.join(sorted(meant))}")

    async def _undo(self, request: web.Request) -> web.Response:
        release = request.query.get("release")
        ended = self._node.undo(release, by=request.query.get("by", ""), reason=request.query.get("reason", ""))
        if release is not None and not ended:
            raise LookupError(
                f"{release} is not released; ordered now: {', '.join(map(str, self._node.orders.given)) or '-'}"
            )
        self._node.orders.keep()
        return _json(ended)

    def _chosen(self, request: web.Request) -> list[Chosen]:
        """The Pods that the query names (``pod``: ``namespace/name``, a name or a uid; ``namespace``), sorted.

        Raises LookupError where a Pod is named that is not here.
        """
        wanted, scope = request.query.get("pod", ""), request.query.get("namespace", "")
        space, slash, name = wanted.rpartition("/")
        scope = space if slash else scope
        everything = sorted(self._node.pods.items(), key=lambda item: (item[1].sandbox.namespace, item[1].sandbox.name))
        found = [
            (uid, pod)
            for uid, pod in everything
            if (not scope or pod.sandbox.namespace == scope)
            and (not name or name in (pod.sandbox.name, uid, self._node.api_uid(uid)))
        ]
        if wanted and not found:
            raise LookupError(f"no Pod {wanted} on {self._node.settings.node}")
        return found

    def _in_turns(
        self, pods: Sequence[Chosen], ask: Callable[[str, PodEnforcement], Awaitable[T]]
    ) -> list[Awaitable[T]]:
        turns = asyncio.Semaphore(AT_ONCE)

        async def one(uid: str, pod: PodEnforcement) -> T:
            async with turns:
                return await ask(uid, pod)

        return [one(uid, pod) for uid, pod in pods]


@asynccontextmanager
async def serving_locally(path: Path, api: LocalApi) -> AsyncGenerator[None]:
    """Serve *api* on the unix socket *path*. Raises `EnforcerAtWork` where somebody answers there.

    Where it cannot be made, enforcement goes on without it.
    """
    runner = web.AppRunner(api.application(), access_log=None, shutdown_timeout=1.0)
    with ExitStack() as stack:
        try:
            listening = stack.enter_context(claimed(path))
        except EnforcerAtWork:
            raise
        except OSError as error:
            _log.error("`eastwest node` cannot ask this enforcer", socket=str(path), reason=str(error))
            yield
            return
        await runner.setup()
        try:
            await web.SockSite(runner, listening).start()
            yield
        finally:
            await runner.cleanup()


@web.middleware
async def _say_what_is_wrong(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except LookupError as error:
        return _json(Trouble(str(error.args[0])), status=404)
    except msgspec.MsgspecError as error:
        return _json(Trouble(f"not an order: {error}"), status=400)
    except OSError as error:
        return _json(Trouble(f"obeyed, but not kept over a restart: {error}"), status=500)


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), status=status, content_type="application/json")
