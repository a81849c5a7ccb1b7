"""Sets by netlink and by the tool: the same promises, kept by both."""

import asyncio
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from compose.lab.capability import user_namespace_obstacles
from enforcers.core.difference import Contents, Membership
from enforcers.core.layout import set_name
from enforcers.core.observation import ObservedSets
from enforcers.kernel.namespaces import CommandFailed, NoNamespace
from enforcers.kernel.sets.set_backends import BackendName
from enforcers.kernel.sockets import NetlinkRefused
from tests.components.presence import missing
from tests.enforcers.kernel.set_scenes import (
    ADDRESSES,
    KEYS,
    NAME,
    Key,
    Scene,
    backend_of,
    blocks_of_everything,
    host,
    hosts,
    many,
    scene,
)

pytestmark = pytest.mark.netns

REFUSED = (NetlinkRefused, CommandFailed)


@pytest.fixture(params=["netlink", "restore"])
def backend(request: pytest.FixtureRequest, capable: None) -> BackendName:
    name: BackendName = request.param
    return name


@pytest.fixture
def given(backend: BackendName) -> Iterator[Scene]:
    with scene(backend) as made:
        yield made


@pytest.mark.parametrize("key", KEYS, ids=lambda key: f"{key[0][0]}{key[1]}")
async def test_a_set_of_any_kind_and_family_holds_what_was_written_however_much(given: Scene, key: Key):
    found = many(key, 9000)

    await given.create(key, *found)
    assert await given.members(key) == frozenset(found)

    await given.change(key, removed=found[::2])
    assert await given.members(key) == frozenset(found[1::2])

    await given.replace(key, *found[:100])
    await given.change(key, added=found[100:])
    assert await given.members(key) == frozenset(found)


async def test_a_set_is_made_with_room_for_its_members(given: Scene):
    await given.create(ADDRESSES, *hosts(1025))

    assert " hashsize 2048 maxelem 1048576" in given.command("ipset", "list", "-terse", NAME)


async def test_a_block_of_everything_and_its_exceptions_are_told_apart(given: Scene):
    for key, members in blocks_of_everything().items():
        await given.create(key, *members)
        assert await given.members(key) == frozenset(members)

        block = members[0]
        await given.change(key, added=[block[:-1] + b"\1"])

        assert await given.members(key) == frozenset({*members[1:], block[:-1] + b"\1"})


async def test_what_is_to_be_replaced_need_not_be_there(given: Scene):
    await given.replace(ADDRESSES, host(1))

    assert await given.sets.read() == ObservedSets({ADDRESSES: frozenset({host(1)})})


async def test_of_several_sets_that_are_made_the_one_that_is_there_holds_no_more_than_the_others(given: Scene):
    sets = [Contents(*key, tuple(many(key, 3))) for key in KEYS]
    await given.create(KEYS[2], *many(KEYS[2], 9)[5:])

    await given.sets.create(sets)

    assert await given.sets.read() == ObservedSets({(each.id, each.family): frozenset(each.members) for each in sets})


async def test_of_several_changes_the_one_that_is_refused_is_named(given: Scene):
    for key in (KEYS[0], KEYS[2]):
        await given.create(key)

    with pytest.raises(REFUSED) as refused:
        await given.sets.change([Membership(*key, added=tuple(many(key, 3))) for key in KEYS[:3]])

    assert set_name(*KEYS[1]) in f"{refused.value} {getattr(refused.value, 'line', '')}"


async def test_what_is_there_already_or_gone_already_is_no_error(given: Scene):
    await given.create(ADDRESSES, host(1))

    await given.change(ADDRESSES, added=[host(1), host(2)], removed=[host(3)])

    assert await given.members(ADDRESSES) == {host(1), host(2)}


async def test_a_change_that_fails_midway_is_applied_in_part_and_reading_tells_which(given: Scene):
    await given.create(ADDRESSES)

    with pytest.raises(REFUSED, match=r"[Nn]ull"):
        await given.change(ADDRESSES, added=[host(1), bytes(4), host(2)])

    assert await given.members(ADDRESSES) == {host(1)}


async def test_a_full_set_refuses_members_saying_so_and_gets_room_when_replaced(given: Scene):
    given.command("ipset", "create", NAME, "hash:ip", "maxelem", "10")

    with pytest.raises(REFUSED, match="full"):
        await given.change(ADDRESSES, added=hosts(100))
    assert await given.members(ADDRESSES) is None

    await given.replace(ADDRESSES, *hosts(100))
    assert await given.members(ADDRESSES) == frozenset(hosts(100))


async def test_a_change_of_no_set_is_refused_by_name(given: Scene):
    with pytest.raises(REFUSED) as refused:
        await given.change(ADDRESSES, added=[host(1)])

    assert NAME in f"{refused.value} {getattr(refused.value, 'line', '')}"


@pytest.mark.parametrize(
    "foreign",
    [
        "hash:ip family inet6",
        "hash:net",
        "hash:ip,port",
        "bitmap:ip range 10.0.0.0/24",
        "list:set",
        "hash:ip timeout 1000",
        "hash:ip netmask 24",
        "hash:ip comment",
        "hash:ip counters",
        "hash:ip forceadd",
        "hash:ip maxelem 5",
    ],
)
@pytest.mark.parametrize("create", [True, False], ids=["created", "replaced"])
async def test_a_set_that_someone_left_under_our_name_is_seen_as_anothers_and_becomes_ours(
    given: Scene, foreign: str, create: bool
):
    with scene("restore") as fresh:
        await fresh.create(ADDRESSES, *hosts(20))
        given.command("ipset", "create", NAME, *foreign.split())
        assert await given.members(ADDRESSES) is None

        await (given.create if create else given.replace)(ADDRESSES, *hosts(20))

        assert given.saved() == fresh.saved()
    assert await given.members(ADDRESSES) == frozenset(hosts(20))


async def test_a_member_that_we_would_never_write_is_noticed(given: Scene):
    tuples = KEYS[4]
    await given.create(tuples)
    given.command("ipset", "add", set_name(*tuples), "10.0.0.1,icmp:8/0")

    assert await given.members(tuples) != frozenset()


async def test_a_set_of_another_type_that_rules_name_is_refused_by_name_and_stays(given: Scene):
    given.command("ipset", "create", NAME, "hash:net")
    given.command("iptables-nft", "-A", "OUTPUT", "-m", "set", "--match-set", NAME, "dst")
    before = [line for line in given.saved() if f" {NAME} " in line]

    with pytest.raises(REFUSED, match=f"{NAME} should be hash:ip family inet, .* is in use"):
        await given.replace(ADDRESSES, host(1))

    assert [line for line in given.saved() if f" {NAME} " in line] == before


@pytest.mark.parametrize("foreign", ["hash:ip", "hash:net family inet6"])
async def test_what_an_interrupted_replacement_left_is_told_of_and_in_nobodys_way(given: Scene, foreign: str):
    await given.create(ADDRESSES, host(1))
    given.command("ipset", "create", f"{NAME}x", *foreign.split())
    assert (await given.sets.read()).leftovers == (f"{NAME}x",)

    await given.replace(ADDRESSES, host(2))

    found = await given.sets.read()
    assert (found.members, found.leftovers) == ({ADDRESSES: {host(2)}}, ())


async def test_a_set_goes_once_no_rule_names_it_any_more(given: Scene):
    await given.create(ADDRESSES)
    with naming(given):
        going = asyncio.create_task(given.sets.destroy(NAME), name="destroy")
        await asyncio.sleep(0)
        assert ADDRESSES in (await given.sets.read()).members

    await going

    assert ADDRESSES not in (await given.sets.read()).members


async def test_a_set_that_rules_go_on_naming_is_not_waited_for_for_ever(given: Scene):
    await given.create(ADDRESSES)

    with naming(given), pytest.raises(REFUSED, match=r"names it|in use"):
        await given.sets.destroy(NAME)


@contextmanager
def naming(given: Scene) -> Iterator[None]:
    rule = ("OUTPUT", "-m", "set", "--match-set", NAME, "dst")
    given.command("iptables-nft", "-A", *rule)
    try:
        yield
    finally:
        given.command("iptables-nft", "-D", *rule)


async def test_to_destroy_what_is_not_there_is_no_error(given: Scene):
    await given.sets.destroy(NAME)


async def test_what_is_not_ours_is_neither_told_of_nor_touched(given: Scene):
    for foreign in ("theirs hash:ip", "e list:set", f"x{NAME} hash:ip"):
        given.command("ipset", "create", *foreign.split())
    given.command("ipset", "add", "theirs", "10.0.0.1")
    before = given.saved()

    await given.create(ADDRESSES, host(1))
    await given.replace(ADDRESSES, host(2))
    assert (await given.sets.read()).members.keys() == {ADDRESSES}
    await given.sets.destroy(NAME)

    assert given.saved() == before


async def test_file_descriptors_may_have_any_number(given: Scene):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 2048:
        missing(f"no more than {hard} files may be open", "ulimit -Hn 4096")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    taken = [os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(1100)]
    try:
        await given.create(ADDRESSES, *hosts(9000))
        assert await given.members(ADDRESSES) == frozenset(hosts(9000))
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.usefixtures("capable")
async def test_others_have_their_turn_between_any_two_writes_by_netlink_however_short():
    wholes = [Contents(*key, many(key, 300)) for key in KEYS]
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    with scene("netlink") as given:
        await given.sets.create(Contents(each.id, each.family, ()) for each in wholes)
        others = asyncio.create_task(take_turns(), name="others")
        await asyncio.sleep(0)
        before = turns
        await given.sets.change([Membership(each.id, each.family, added=each.members) for each in wholes])
        others.cancel()

    assert turns - before >= 2


async def test_netlink_spawns_nothing(capable: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with scene("netlink") as given:
        monkeypatch.setenv("PATH", str(tmp_path))  # there is no program to be found

        await given.create(ADDRESSES, host(1))
        await given.change(ADDRESSES, added=[host(2)], removed=[host(1)])
        await given.replace(ADDRESSES, host(3))
        assert await given.members(ADDRESSES) == {host(3)}
        await given.sets.destroy(NAME)
        assert await given.sets.read() == ObservedSets()


@pytest.mark.parametrize("plain_file", [True, False], ids=["a plain file", "nothing"])
async def test_a_namespace_that_vanished_is_named(backend: BackendName, tmp_path: Path, plain_file: bool):
    path = tmp_path / "gone"
    if plain_file:  # what is left of a namespace's file once it was unmounted
        path.touch()
    with backend_of(backend, path) as sets:
        for attempt in (sets.read(), sets.destroy(NAME)):
            with pytest.raises(NoNamespace, match=str(path)):
                await attempt


WITHOUT_FORCE = """
import asyncio, socket
from enforcers.kernel.sockets import SO_RCVBUFFORCE
from tests.enforcers.kernel.set_scenes import ADDRESSES, hosts, scene

async def main():
    try:
        socket.socket().setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 1 << 20)
    except PermissionError:
        pass
    else:
        raise SystemExit("this process may force its buffers: it shows nothing")
    with scene("netlink") as given:
        await given.create(ADDRESSES, *hosts(50_000))
        await given.change(ADDRESSES, added=hosts(100_000)[50_000:])
        assert await given.members(ADDRESSES) == frozenset(hosts(100_000))

asyncio.run(main())
"""


def test_buffers_of_the_usual_size_suffice_for_100_000_members(capable: None):
    """As the root of a user namespace has them: the kernel lets nobody else go beyond the machine's limit."""
    if found := user_namespace_obstacles():
        missing("; ".join(each.what for each in found), "; ".join(each.remedy for each in found))

    done = subprocess.run(
        ["unshare", "-Urn", sys.executable, "-c", WITHOUT_FORCE], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
