"""The policy stream between real writers, a real nats-server and real readers."""

import asyncio
import secrets
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from schemas import names
from schemas.policy import PART_MEMBERS
from streams.core.difference import difference
from streams.errors import Fenced, MarkWouldGoBack, OutcomeUnknown, ProgramTooLarge, ReadFailed
from streams.nats.nats_bus import NatsBus
from streams.nats.stream_reading import read_stream
from tests.components.nats_server import NatsServer
from tests.components.waiting import until
from tests.streams.channels.policy_world import A, B, Enforcer, FaultyBus, Owner, addresses, policy_of, program

pytestmark = pytest.mark.nats


@pytest_asyncio.fixture
async def bus(nats: NatsServer) -> AsyncIterator[NatsBus]:
    async with NatsBus(nats.url) as bus:
        yield bus


@pytest_asyncio.fixture
async def faulty(nats: NatsServer) -> AsyncIterator[FaultyBus]:
    async with FaultyBus(nats.url) as bus:
        yield bus


@pytest.fixture
def cluster():
    return f"c-{secrets.token_hex(4)}"


async def stream_state(bus, cluster):
    return (await bus.call(f"STREAM.INFO.{names.policy_stream(cluster)}"))["state"]


async def test_what_is_sent_arrives_whole_and_changes_arrive_as_changes(bus, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(bus, cluster).working() as enforcer:
        assert owner.published.mark is None
        await owner.publish(policy_of(program("u1", A), program("u2", node="node-2"), a=addresses(0, 100)), 7)
        await enforcer.realized(7)
        assert enforcer.programs == {"u1": program("u1", A)}, "only its own node's"
        assert enforcer.sets == {A: addresses(0, 100)}
        assert enforcer.mark.time == "t7"
        catch_ups, fetches = enforcer.reader.catch_ups, enforcer.reader.fetches

        await owner.publish(policy_of(program("u1", A), a=addresses(1, 102)), 8)
        await enforcer.realized(8)
        assert enforcer.sets == {A: addresses(1, 102)}
        await owner.publish(policy_of(program("u1", B), b=addresses(5, 6)), 9)
        await enforcer.realized(9)
        assert enforcer.programs == {"u1": program("u1", B)}
        assert enforcer.sets == {B: addresses(5, 6)}
        await owner.publish(policy_of(), 10)
        await enforcer.realized(10)
        assert (enforcer.programs, enforcer.sets) == ({}, {})
        assert enforcer.reader.catch_ups == catch_ups, "nothing was lost, so nothing is read again"
        assert enforcer.reader.fetches == fetches + 1, "only the set that was new to the node"


async def test_a_paused_owner_can_write_nothing_after_another_took_over(bus, faulty, cluster):
    paused, second = Owner(faulty, cluster, "paused"), Owner(bus, cluster, "second")
    faulty.lose = (f"live.policy.{cluster}.fence",)  # else it would know before it tries
    async with Enforcer(bus, cluster).working() as enforcer:
        await paused.take_over()
        async with second.owning():
            await second.publish(policy_of(program("u1", A), a=addresses(0, 3)), 5)
            await enforcer.realized(5)
            before = await stream_state(bus, cluster)
            await paused.want(policy_of(program("u1", A), program("u2", A), a=addresses(0, 900)), 6)
            with pytest.raises(Fenced):
                await paused.writer.run()
            with pytest.raises(Fenced):
                await paused.want(policy_of(), 7)
            await second.publish(policy_of(program("u1", A), a=addresses(0, 4)), 6)
            await enforcer.realized(6)
            after = await stream_state(bus, cluster)
        assert enforcer.programs == {"u1": program("u1", A)}
        assert enforcer.sets == {A: addresses(0, 4)}
        heartbeats = 4
        assert after["last_seq"] - before["last_seq"] <= 2 + heartbeats


async def test_an_idle_owner_learns_at_once_that_another_took_over(bus, cluster):
    idle = Owner(bus, cluster, "idle", heartbeat_seconds=60)
    await idle.take_over()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_ends_fenced(idle), name="idle owner's marks")
        await Owner(bus, cluster, "second").take_over()


async def test_an_owner_replaced_in_mid_pipeline_leaves_nothing_half_believed(bus, cluster):
    first, second = Owner(bus, cluster, "first"), Owner(bus, cluster, "second")
    wanted = policy_of(*(program(f"u{number}", A, B) for number in range(3000)), a=addresses(0, 50), b=addresses(9, 99))
    async with Enforcer(bus, cluster).working() as enforcer:
        await first.take_over()
        async with asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(first.want(wanted, 3), name="first owner")
            taking = tasks.create_task(second.take_over(), name="second owner")
            running = tasks.create_task(_ends_fenced(first), name="first owner's marks")
        del sending, taking, running
        assert second.published.mark is None, "a revision whose messages were refused was never marked"
        async with second.owning():
            await second.publish(wanted, 3)
            await enforcer.realized(3)
        assert len(enforcer.programs) == 3000
        assert enforcer.sets == wanted.sets


async def _ends_fenced(owner):
    with pytest.raises((Fenced, OutcomeUnknown)):
        await owner.writer.run()


async def test_taking_over_publishes_only_the_difference(bus, cluster):
    wanted = policy_of(*(program(f"u{number}", A) for number in range(200)), a=addresses(0, 5000))
    async with Owner(bus, cluster, "first").owning() as first:
        await first.publish(wanted, 10)
    async with Owner(bus, cluster, "second").owning() as second:
        assert second.published.policy == wanted
        assert second.published.mark.revision == 10
        before = await stream_state(bus, cluster)
        change = await second.publish(policy_of(*wanted.programs.values(), a=addresses(1, 5000)), 11)
        assert (len(change.sets), change.programs, change.gone) == (1, (), ())
        after = await stream_state(bus, cluster)
        assert after["last_seq"] - before["last_seq"] == 2, "one delta and one mark"


async def test_a_mark_never_goes_back(bus, cluster):
    async with Owner(bus, cluster, "first").owning() as first:
        await first.publish(policy_of(), 10)
        with pytest.raises(MarkWouldGoBack):
            await first.want(policy_of(program("u1")), 9)
    async with Owner(bus, cluster, "second").owning() as second:
        with pytest.raises(MarkWouldGoBack):
            await second.want(policy_of(), 9)
        await second.publish(policy_of(), 10)


async def test_a_program_above_the_servers_limit_is_named_and_nothing_of_its_change_is_sent(bus, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(bus, cluster).working() as enforcer:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
        huge = program("u2", policy="NetworkPolicy/shop/" + "x" * bus.max_payload)
        with pytest.raises(ProgramTooLarge) as caught:
            await owner.writer.send((await _change(owner, huge)), 2, "")
        assert (caught.value.node, caught.value.uid) == ("node-1", "u2")
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 3)), 2)
        await enforcer.realized(2)
        assert enforcer.sets == {A: addresses(0, 3)}


async def _change(owner, item):
    return difference(policy_of(program("u1", A), item, a=addresses(0, 9)), owner.policy)


async def test_the_mark_is_repeated_as_a_heartbeat(bus, cluster):
    beating = Owner(bus, cluster, heartbeat_seconds=0.05)
    async with beating.owning() as owner, Enforcer(bus, cluster).working() as enforcer:
        await owner.publish(policy_of(), 4)
        await enforcer.realized(4)
        heard = enforcer.updates
        await until("five heartbeats", lambda: enforcer.updates >= heard + 5)
        assert enforcer.mark.revision == 4
        assert enforcer.reader.catch_ups == 1


async def test_a_lost_acknowledgement_is_an_unknown_outcome_and_no_mark(bus, faulty, cluster):
    async with Enforcer(bus, cluster).working() as enforcer:
        async with Owner(faulty, cluster).owning() as owner:
            await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
        await enforcer.realized(1)

        owner = Owner(faulty, cluster, acknowledge_within_seconds=0.3)
        await owner.take_over()
        faulty.lose = ("_INBOX.",)
        await owner.want(policy_of(program("u1", A), a=addresses(0, 3)), 2)
        with pytest.raises(OutcomeUnknown):
            await owner.writer.run()
        with pytest.raises(OutcomeUnknown):
            await owner.writer.settled()
        assert faulty.lost
        faulty.lose = ()
        assert enforcer.mark.revision == 1, "what is not known to be stored is not marked"

        async with owner.owning():
            change = await owner.publish(policy_of(program("u1", A), a=addresses(0, 3)), 2)
            assert not change, "it had been stored after all"
            await enforcer.realized(2)
        assert enforcer.sets == {A: addresses(0, 3)}


async def test_a_node_that_missed_the_last_message_is_told_by_the_mark(bus, faulty, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(faulty, cluster).working() as enforcer:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
        await enforcer.realized(1)

        faulty.lose = (f"live.policy.{cluster}.set.", f"live.policy.{cluster}.pod.")
        await owner.publish(policy_of(program("u1", A), program("u2", A), a=addresses(0, 3)), 2)
        await enforcer.realized(2)
        assert faulty.lost == 2
        assert enforcer.programs.keys() == {"u1", "u2"}
        assert enforcer.sets == {A: addresses(0, 3)}
        assert enforcer.reader.catch_ups == 1, "two things were fetched, not everything"


async def test_a_missed_mark_makes_the_node_read_everything(bus, faulty, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(faulty, cluster).working() as enforcer:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
        await enforcer.realized(1)
        faulty.lose = (f"live.policy.{cluster}.",)
        await owner.publish(policy_of(program("u2", A), a=addresses(0, 3)), 2)
        await until("the mark is lost as well", lambda: faulty.lost >= 4)
        faulty.lose = ()
        await owner.publish(policy_of(program("u2", A), a=addresses(0, 4)), 3)
        await enforcer.realized(3)
        assert enforcer.programs.keys() == {"u2"}
        assert enforcer.sets == {A: addresses(0, 4)}
        assert enforcer.completes == 2


async def test_no_revision_is_realized_before_its_messages_whatever_their_order(bus, faulty, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(faulty, cluster).working() as enforcer:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 2)), 1)
        await enforcer.realized(1)
        for revision in range(2, 40):
            faulty.hold = (f"live.policy.{cluster}.set.", f"live.policy.{cluster}.pod.")[revision % 2 :]
            await owner.publish(
                policy_of(program("u1", A), program(f"u{revision}", A), a=addresses(revision, 3 * revision)), revision
            )
            await faulty.release()
            await enforcer.realized(revision)
            assert enforcer.programs.keys() == {"u1", f"u{revision}"}
            assert enforcer.sets == {A: addresses(revision, 3 * revision)}
        assert enforcer.reader.catch_ups == 1


async def test_fifty_thousand_messages_in_one_revision(bus, cluster):
    spread = [program(f"u{number}", A, node=f"node-{number % 500}") for number in range(50_000)]
    async with Owner(bus, cluster).owning() as owner, Enforcer(bus, cluster).working() as enforcer:
        await owner.publish(policy_of(*spread, a=addresses(0, 9)), 1)
        await enforcer.realized(1)
        assert len(enforcer.programs) == 100
        assert enforcer.mark.changed is None, "a mark that long names nothing, and readers check all"
        assert (await stream_state(bus, cluster))["num_subjects"] == 50_003


async def test_two_thousand_programs_on_one_node(bus, cluster):
    wanted = policy_of(*(program(f"u{number}", A, B) for number in range(2000)), a=addresses(0, 500), b=addresses(1, 9))
    async with Owner(bus, cluster).owning() as owner:
        await owner.publish(wanted, 1)
        async with Enforcer(bus, cluster).working() as enforcer:
            await enforcer.realized(1)
            assert len(enforcer.programs) == 2000
            assert enforcer.updates == 1, "a catch-up is one update"
            assert enforcer.completes == 1


async def test_a_set_grows_over_parts_and_no_member_is_missing_meanwhile(bus, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(bus, cluster).working() as enforcer:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, PART_MEMBERS)), 1)
        await enforcer.realized(1)
        shrunk = []
        watched = enforcer.apply

        def apply(update):
            watched(update)
            if not addresses(0, 100) <= enforcer.sets[A]:
                shrunk.append(update)

        enforcer.apply = apply
        for revision, size in ((2, PART_MEMBERS + 1), (3, 3 * PART_MEMBERS), (4, 100)):
            await owner.publish(policy_of(program("u1", A), a=addresses(0, size)), revision)
            await enforcer.realized(revision)
            assert enforcer.sets == {A: addresses(0, size)}
        assert not shrunk
        await owner.take_over()
        assert owner.policy.sets == {A: addresses(0, 100)}


async def test_deltas_are_rolled_up_before_they_outweigh_their_part(bus, cluster):
    async with Owner(bus, cluster).owning() as owner, Enforcer(bus, cluster).working() as enforcer:
        await owner.publish(policy_of(program("u1", A), a=addresses(0, 10)), 1)
        for revision in range(2, 500):
            await owner.want(policy_of(program("u1", A), a=addresses(revision, revision + 10)), revision)
        await owner.writer.settled()
        await enforcer.realized(499)
        assert enforcer.sets == {A: addresses(499, 509)}
        state = await stream_state(bus, cluster)
        assert state["messages"] <= 64 + 5
        assert enforcer.reader.catch_ups == 1


async def test_of_many_who_take_over_at_once_at_most_one_owns(bus, cluster):
    owners = [Owner(bus, cluster, f"owner-{number}") for number in range(6)]
    results = await asyncio.gather(*(owner.take_over() for owner in owners), return_exceptions=True)
    overtaken = (Fenced, ReadFailed)  # the latter: another's fence replaced the own one during the read
    assert all(isinstance(result, overtaken) for result in results if isinstance(result, BaseException))
    ends = await asyncio.gather(*(_sends(owner) for owner in owners))
    assert sum(ends) <= 1
    await owners[0].take_over()
    assert await _sends(owners[0])
    assert await asyncio.gather(*(_sends(owner) for owner in owners[1:])) == [False] * 5


async def _sends(owner):
    """Whether *owner* can publish and mark."""
    alone = False
    try:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(owner.writer.run(), name="marks")
            await owner.publish(policy_of(program("u1")), 1)
            alone = True
            running.cancel()
    except* (Fenced, OutcomeUnknown):
        alone = False
    return alone


async def test_a_read_among_messages_that_are_replaced_all_the_time_lacks_none(bus, nats, cluster):
    owner = Owner(bus, cluster)
    await owner.take_over()
    names_of = [f"u{number}" for number in range(20)]
    read = 0

    async def replace_all_the_time():
        revision = 0
        while read < 20:
            revision += 1
            fresh = [program(uid, policy=f"NetworkPolicy/shop/p{revision}") for uid in names_of]
            await owner.want(policy_of(*fresh), revision)
            await asyncio.sleep(0.005)  # a pace at which a read meets some replacements

    async with NatsBus(nats.url) as node, asyncio.TaskGroup() as tasks:
        tasks.create_task(replace_all_the_time(), name="replacing")
        await until("the first programs", lambda: owner.policy.programs)
        while read < 20:
            try:
                found = await read_stream(
                    node,
                    names.policy_stream(cluster),
                    names.program_subject(cluster, "node-1", "*"),
                    last_only=True,
                )
            except ReadFailed:
                found = None  # it says so
            if found:
                assert len({message.subject for message in found}) == 20
            read += 1
