"""Taking turns by a Kubernetes Lease.

It only keeps two Kubelinks from replacing each other all the time. What keeps them apart is the epoch: a holder that
is paused, or cut off from the API server while it still reaches the log, can do no harm.
"""

import asyncio
import random
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final, Self

import msgspec

from producers.api_connection import Access, ApiConnection
from producers.core.decoding import decode_failure
from producers.core.election import Election, Lease
from producers.errors import AccessInvalid, ApiUnreachable
from producers.writing import Clock, timestamp
from schemas.unreadable import UNREADABLE

_ROOT: Final = "/apis/coordination.k8s.io/v1/namespaces"
_RULE: Final = 'apiGroups: ["coordination.k8s.io"], resources: ["leases"], verbs: ["get", "create", "update"]'


class _Meta(msgspec.Struct, rename="camel"):
    resource_version: str = ""


class _Spec(msgspec.Struct, rename="camel"):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class _Object(msgspec.Struct):
    metadata: _Meta
    spec: _Spec = msgspec.field(default_factory=_Spec)


class LeaseTurn:
    """A `producers.kubelink.Turn` by the Lease *name* in *namespace*. Entered as an async context manager.

    A holder that could not renew within *renew_within_seconds* gives up before others may take over, which they may
    *lease_seconds* after its last renewal.
    """

    def __init__(
        self,
        access: Access,
        *,
        namespace: str,
        name: str,
        identity: str,
        lease_seconds: float = 15.0,
        renew_within_seconds: float = 10.0,
        retry_seconds: float = 2.0,
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._api = ApiConnection(access)
        self._namespace = namespace
        self._name = name
        self._lease_seconds = lease_seconds
        self._renew_within_seconds = renew_within_seconds
        self._retry_seconds = retry_seconds
        self._clock = clock
        self._monotonic = monotonic
        self._uniform = uniform
        self._election = Election(identity)
        self.holder = ""
        """Who holds it, as read last."""
        self.problem = ""
        """Why the Lease cannot be used, for as long as that lasts."""

    def __repr__(self) -> str:
        return f"LeaseTurn({self._namespace}/{self._name}, held by {self.holder!r})"

    async def __aenter__(self) -> Self:
        """Raises `AccessInvalid`."""
        await self._api.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._api.__aexit__(kind, error, trace)

    async def comes(self) -> None:
        """See `Turn.comes`."""
        while True:
            if await self._try():
                return
            await asyncio.sleep(self._uniform(0.8, 1.2) * self._retry_seconds)

    async def passes(self) -> None:
        """See `Turn.passes`: renew until another one holds it, or the API server has been away for too long."""
        renewed = self._monotonic()
        while True:
            await asyncio.sleep(self._retry_seconds)
            left = self._renew_within_seconds - (self._monotonic() - renewed)
            if left <= 0:
                return  # this process stood still
            started = self._monotonic()
            try:
                async with asyncio.timeout(left):
                    held = await self._try()
            except TimeoutError:
                return
            if held:
                renewed = started
            elif self.holder not in ("", self._election.identity):
                return

    async def give_up(self) -> None:
        """See `Turn.give_up`. As good as it can: if it fails the Lease runs out by itself."""
        try:
            async with asyncio.timeout(self._retry_seconds):
                lease = await self._read()
                if lease is not None and lease.holder == self._election.identity:
                    await self._write(lease, holder="", transitions=lease.transitions)
        except (ApiUnreachable, TimeoutError) as error:
            self.problem = f"could not be given back: {error}"

    async def _try(self) -> bool:
        """Take or renew it if it is free; return whether it is ours now."""
        generation = self._api.generation
        try:
            lease = await self._read()
            if lease is not None:
                self.holder = lease.holder
                if not self._election.free(lease, self._monotonic()):
                    return False
                changes = bool(lease.resource_version) and lease.holder != self._election.identity
                holder = self._election.identity
                if await self._write(lease, holder=holder, transitions=lease.transitions + changes):
                    self.holder = holder
                    return True
            if self.problem.startswith("401"):
                await self._api.renew(generation)
        except (ApiUnreachable, AccessInvalid) as error:
            self.problem = str(error)
        return False

    async def _read(self) -> Lease | None:
        """The Lease; one without version where there is none yet; ``None`` if it cannot be told."""
        status, body = await self._api.call("GET", f"{_ROOT}/{self._namespace}/leases/{self._name}")
        if status == 404:
            self.problem = ""
            return Lease()
        if status != 200:
            self._refused(status, body)
            return None
        try:
            found = msgspec.json.decode(body, type=_Object)
        except UNREADABLE as error:
            self.problem = f"the Lease cannot be read: {error}"
            return None
        self.problem = ""
        spec = found.spec
        return Lease(
            holder=spec.holder_identity or "",
            renew_time=spec.renew_time or "",
            resource_version=found.metadata.resource_version,
            transitions=spec.lease_transitions or 0,
            duration_seconds=float(spec.lease_duration_seconds or self._lease_seconds),
        )

    async def _write(self, lease: Lease, *, holder: str, transitions: int) -> bool:
        """Create or replace it, if nobody else did since it was read."""
        now = timestamp(self._clock())
        collection = f"{_ROOT}/{self._namespace}/leases"
        meta: dict[str, Any] = {"name": self._name, "namespace": self._namespace}
        if lease.resource_version:
            meta["resourceVersion"] = lease.resource_version
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": meta,
            "spec": {
                "holderIdentity": holder,
                "leaseDurationSeconds": max(1, round(self._lease_seconds)),
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        }
        method, path = ("PUT", f"{collection}/{self._name}") if lease.resource_version else ("POST", collection)
        status, answer = await self._api.call(method, path, body)
        if status in (200, 201):
            self.problem = ""
            return True
        if status != 409:  # somebody was quicker: no problem
            self._refused(status, answer)
        return False

    def _refused(self, status: int, body: bytes) -> None:
        failure = decode_failure(body, status)
        needs = f"; the Role in {self._namespace} needs {{{_RULE}}}" if status == 403 else ""
        self.problem = f"{status}: {failure.message}{needs}"
