"""Two Kubelinks and one log: turns by a Lease, safety by epochs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from producers.core.election import Election, Lease
from producers.errors import Replaced
from producers.kubelink import Kubelink, Phase
from producers.lease import LeaseTurn
from producers.manifest_source import ManifestSource
from producers.writing import Clock
from streams.log import Log
from tests.components.kubernetes.control_plane import ControlPlane
from tests.components.waiting import until
from tests.producers.reading import known
from tests.producers.running import complete, kubelink
from tests.producers.test_api_server import access, create, namespace, source, until_pods


def test_a_lease_is_free_only_when_nothing_in_it_has_changed_for_as_long_as_it_runs():
    election = Election("me")
    held = Lease(holder="other", renew_time="t1", duration_seconds=15)
    assert not election.free(held, 100)
    assert not election.free(held, 114.9)
    assert not election.free(Lease(holder="other", renew_time="t2", duration_seconds=15), 115)
    assert not election.free(Lease(holder="other", renew_time="t2", duration_seconds=15), 129)
    assert election.free(Lease(holder="other", renew_time="t2", duration_seconds=15), 130)


def test_a_lease_of_nobody_or_of_oneself_is_free_at_once():
    assert Election("me").free(Lease(), 0)
    assert Election("me").free(Lease(holder="me", renew_time="t", duration_seconds=15), 0)


async def test_without_turns_the_replaced_one_stops_and_says_who_it_was(log: Log, tmp_path: Path):
    first = Kubelink(log, ManifestSource([tmp_path]), cluster="test", look_seconds=0.02)
    running = asyncio.create_task(first.run(asyncio.Event()))
    await complete(first)
    async with kubelink(log, ManifestSource([tmp_path])) as second:
        with pytest.raises(Replaced, match="another Kubelink writes"):
            await running
        await complete(second)
        assert second.state.epoch > 0


def quick_turn(server: ControlPlane, name: str, identity: str, **clocks: Clock) -> LeaseTurn:
    """Turns that pass within seconds."""
    return LeaseTurn(
        access(server),
        namespace="default",
        name=name,
        identity=identity,
        lease_seconds=2.0,
        renew_within_seconds=1.4,
        retry_seconds=0.3,
        **clocks,
    )


@contextlib.asynccontextmanager
async def candidate(
    server: ControlPlane, log: Log, identity: str, name: str
) -> AsyncIterator[tuple[Kubelink, LeaseTurn]]:
    turn = quick_turn(server, name, identity)
    async with turn, kubelink(log, source(server), turn=turn) as link:
        yield link, turn


@pytest.mark.apiserver
async def test_the_second_waits_and_takes_over_when_the_first_stops(apiserver: ControlPlane, log: Log):
    async with candidate(apiserver, log, "second", "kl-stop") as (second, turn):
        await complete(second)
        epoch = second.state.epoch
        async with candidate(apiserver, log, "third", "kl-stop") as (third, _):
            await until("the other one to be seen as holder", lambda: turn.holder == "second")
            assert (third.state.phase, third.state.ready) == (Phase.STANDBY, True)
            lease = await apiserver.api("GET", "/apis/coordination.k8s.io/v1/namespaces/default/leases/kl-stop")
            assert lease["spec"]["holderIdentity"] == "second"
            assert second.state.epoch == epoch


@pytest.mark.apiserver
async def test_after_a_kill_the_second_takes_over_and_misses_nothing(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    turn = quick_turn(apiserver, "kl-kill", "first")
    async with turn:
        first = Kubelink(log, source(apiserver), cluster="test", turn=turn)
        # A killed process gives nothing back: neither may this one.
        turn.give_up = _nothing  # type: ignore[method-assign]
        running = asyncio.create_task(first.run(asyncio.Event()))
        await complete(first)
        await create(apiserver, space, "one")
        async with candidate(apiserver, log, "second", "kl-kill") as (second, _):
            await until_pods(log, space, "one")
            running.cancel()
            await asyncio.wait((running,))
            await create(apiserver, space, "two")
            await complete(second)
            await until_pods(log, space, "one", "two")


async def _nothing() -> None:
    return None


@pytest.mark.apiserver
async def test_a_paused_holder_gives_up_when_it_wakes_and_writes_nothing(apiserver: ControlPlane, log: Log):
    space = await namespace(apiserver)
    time_lost = 0.0

    def clock() -> float:
        return asyncio.get_running_loop().time() + time_lost

    turn = quick_turn(apiserver, "kl-pause", "first", monotonic=clock)
    async with turn, kubelink(log, source(apiserver), turn=turn) as first:
        await complete(first)
        before = first.state.epoch
        time_lost = 60.0  # as if the process had been stopped for a minute
        await until("the sleeper to give up", lambda: first.state.epoch != before)
        await complete(first, epoch_after=before)
        await create(apiserver, space, "one")
        await until_pods(log, space, "one")
        assert f"Namespace/-/{space}" in await known(log)


@pytest.mark.apiserver
async def test_a_lease_that_rbac_forbids_is_named(apiserver: ControlPlane, log: Log):
    reader = access(apiserver, token=apiserver.reader_token)
    async with (
        LeaseTurn(reader, namespace="default", name="kl-no", identity="me", retry_seconds=0.1) as turn,
        kubelink(log, source(apiserver), turn=turn) as link,
    ):
        await until("the refusal to be told", lambda: "leases" in link.state.problems.get("Lease", ""))
        assert link.state.phase is Phase.STANDBY
