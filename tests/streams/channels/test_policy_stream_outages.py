"""The policy stream through deaths of the server, with and without its store."""

import asyncio
import contextlib
import secrets

import pytest

from schemas import names
from streams.errors import BusUnavailable, Fenced, OutcomeUnknown, ReadFailed
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import read_stream
from tests.components.waiting import until
from tests.streams.channels.policy_world import A, B, Enforcer, Owner, addresses, policy_of, program

pytestmark = pytest.mark.nats


@pytest.fixture
def cluster():
    return f"c-{secrets.token_hex(4)}"


def wanted(revision):
    programs = [program(f"u{number}", A, *([B] if number % 2 else [])) for number in range(revision % 7, 300)]
    return policy_of(*programs, a=addresses(revision, 2000 + revision), b=addresses(0, revision))


async def _ends_unknown(owner):
    with pytest.raises((OutcomeUnknown, Fenced)):
        await owner.writer.run()


async def _sends_until_it_fails(owner, first):
    """Pipeline revisions without end; return the last one tried."""
    revision = first
    with contextlib.suppress(OutcomeUnknown, Fenced):
        while True:
            revision += 1
            await owner.want(wanted(revision), revision)
    return revision


async def _takes_over(owner):
    async def attempt():
        await owner.take_over()
        return True

    await until("a take-over", attempt, ignoring=(BusUnavailable, ReadFailed, Fenced), within_seconds=30)


@pytest.mark.parametrize("store", ["kept", "lost"])
async def test_a_server_killed_in_mid_pipeline_ends_in_the_wanted_state(nats, cluster, store):
    async with NatsBus(nats.url) as bus, NatsBus(nats.url) as node, asyncio.timeout(60):
        owner = Owner(bus, cluster, acknowledge_within_seconds=2)
        async with Enforcer(node, cluster, jitter_seconds=0.1).working() as enforcer:
            await owner.take_over()
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(_ends_unknown(owner), name="marks")
                await owner.publish(wanted(1), 1)
                await enforcer.realized(1)
                sending = tasks.create_task(_sends_until_it_fails(owner, 1), name="sending")
                await until("some revisions", lambda: enforcer.mark.revision >= 5)
                await nats.kill()
                if store == "lost":
                    await nats.wipe()
                standing = dict(enforcer.programs)
                await nats.start()
            last = sending.result()
            assert enforcer.mark.revision <= last
            assert enforcer.programs.keys() >= standing.keys() - {f"u{number}" for number in range(7)}

            await _takes_over(owner)
            if store == "lost":
                assert owner.published.mark is None
                assert owner.published.policy.programs == {}
            async with asyncio.TaskGroup() as tasks:
                marking = tasks.create_task(owner.writer.run(), name="marks")
                await owner.publish(wanted(last + 1), last + 1)
                await enforcer.realized(last + 1)
                marking.cancel()
            desired = wanted(last + 1)
            assert enforcer.programs == {uid: item for (_, uid), item in desired.programs.items()}
            assert enforcer.sets == desired.sets


async def test_a_lost_store_takes_nothing_from_a_node_until_all_is_written_again(nats, cluster):
    async with NatsBus(nats.url) as bus, NatsBus(nats.url) as node, Enforcer(node, cluster).working() as enforcer:
        async with Owner(bus, cluster).owning() as owner:
            await owner.publish(policy_of(program("u1", A), program("u2", A), a=addresses(0, 9)), 5)
            await enforcer.realized(5)
        await nats.kill()
        await nats.wipe()
        await nats.start()
        await until("a reconnect", lambda: node.generation and bus.generation)

        owner = Owner(bus, cluster, "second")
        await _takes_over(owner)
        assert owner.published.mark is None
        async with asyncio.TaskGroup() as tasks:
            marking = tasks.create_task(owner.writer.run(), name="marks")
            assert enforcer.programs.keys() == {"u1", "u2"}
            await owner.publish(policy_of(program("u1", A), a=addresses(0, 8)), 6)
            await enforcer.realized(6)
            marking.cancel()
        assert enforcer.programs == {"u1": program("u1", A)}, "what is not written again goes with the mark"
        assert enforcer.sets == {A: addresses(0, 8)}
        assert enforcer.completes == 2


async def test_a_node_without_a_mark_is_told_nothing_may_be_swept(nats, cluster):
    async with NatsBus(nats.url) as bus, Enforcer(bus, cluster).working() as enforcer:
        owner = Owner(bus, cluster)
        await owner.take_over()
        await owner.want(policy_of(program("u1", A), a=addresses(0, 2)), 1)  # its marks never go out
        await until("the program acts on arrival", lambda: enforcer.programs)
        assert enforcer.completes == 0
        assert enforcer.mark is None
        async with owner.owning():
            await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
            await enforcer.realized(1)
        assert enforcer.completes == 1


async def test_a_read_that_does_not_end_well_is_never_an_empty_one(nats, cluster):
    everything = names.policy_subjects(cluster)
    stream = names.policy_stream(cluster)
    async with NatsBus(nats.url, answer_within_seconds=0.5) as bus, asyncio.timeout(60):
        with pytest.raises(ReadFailed):  # no such stream: status 404
            await read_stream(bus, stream, everything, last_only=True)
        with pytest.raises(ReadFailed):
            await bus.last_message(stream, names.mark_subject(cluster))

        owner = Owner(bus, cluster)
        await owner.take_over()
        assert await bus.last_message(stream, names.mark_subject(cluster)) is None
        assert await read_stream(bus, stream, names.program_subject(cluster, "n", "*"), last_only=True) == []
        with pytest.raises(ReadFailed):  # a filter that the server refuses
            await read_stream(bus, stream, "policy..x", last_only=True)

        await nats.kill()
        with pytest.raises(ReadFailed):
            await read_stream(bus, stream, everything, last_only=True)
        with pytest.raises(ReadFailed):
            await bus.last_message(stream, names.fence_subject(cluster))
        with pytest.raises((BusUnavailable, ReadFailed)):
            await owner.take_over()
        await nats.start()


async def test_a_read_proves_that_it_reached_a_sequence_even_where_its_subjects_did_not_change(nats, cluster):
    async with NatsBus(nats.url) as bus, asyncio.timeout(30), Owner(bus, cluster).owning() as owner:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
        mark = await bus.last_message(names.policy_stream(cluster), names.mark_subject(cluster))
        found = await read_stream(
            bus,
            names.policy_stream(cluster),
            names.program_subject(cluster, "node-1", "*"),
            last_only=True,
            include=int(mark.headers["Nats-Sequence"]),
            proven=True,
        )
        assert [message.subject for message in found] == [names.program_subject(cluster, "node-1", "u1")]
