"""Random programs of operations on sets: two namespaces, one driven by each backend, end alike."""

import asyncio
from collections.abc import Iterator
from ipaddress import ip_network

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcers.core.layout import Family, set_name
from enforcers.core.set_rendering import differences
from schemas.addresses import SCTP, TCP, UDP, WIDTHS
from schemas.sets import SetKind, block, endpoint, kind_of
from tests.enforcers.kernel.set_scenes import KEYS, Key, Scene, host, scene

pytestmark = pytest.mark.netns

Members = frozenset[bytes]
Operation = tuple[str, Key, Members]


def members_of(which: SetKind, family: Family) -> st.SearchStrategy[Members]:
    """Few different ones, so that operations meet; of a block either it or its exception."""
    some_hosts = st.integers(1, 6).map(lambda number: host(number, family))
    if which is SetKind.ADDRESSES:
        return st.frozensets(some_hosts)
    if which is SetKind.TUPLES:
        protocols, ports = st.sampled_from((TCP, UDP, SCTP)), st.sampled_from((0, 80))
        return st.frozensets(st.builds(endpoint, some_hosts, protocols, ports))
    lengths = st.sampled_from((1, 8, 29, 8 * WIDTHS[family]))
    blocks = st.builds(lambda *parts: ip_network(parts, strict=False), some_hosts, lengths)
    return st.dictionaries(blocks, st.booleans()).map(
        lambda chosen: frozenset(block(network, exception=exception) for network, exception in chosen.items())
    )


def operations_on(key: Key) -> st.SearchStrategy[Operation]:
    verbs = st.sampled_from(("create", "replace", "change", "change", "destroy"))
    return st.tuples(verbs, st.just(key), members_of(kind_of(key[0]), key[1]))


PROGRAMS = st.lists(st.sampled_from(KEYS).flatmap(operations_on), min_size=1, max_size=10)


async def perform(on: Scene, operation: Operation, there: Members | None) -> None:
    """*there*: what the set holds; ``None``: there is none."""
    verb, key, members = operation
    if verb == "destroy":
        await on.sets.destroy(set_name(*key))
    elif verb == "change" and there is not None:
        added, removed = differences(key[0], there, members)
        await on.change(key, added=added, removed=removed)
    else:
        await (on.replace if verb == "replace" else on.create)(key, *sorted(members))


async def play(program: list[Operation], netlink: Scene, tool: Scene) -> None:
    held: dict[Key, Members] = {}
    for operation in program:
        verb, key, members = operation
        for on in (netlink, tool):
            await perform(on, operation, held.get(key))
        if verb == "destroy":
            held.pop(key, None)
        else:
            held[key] = members
        assert (await netlink.sets.read()).members == held
    assert (await tool.sets.read()).members == held
    assert netlink.saved() == tool.saved()
    for key in held:
        for on in (netlink, tool):
            await on.sets.destroy(set_name(*key))


@pytest.fixture(scope="module")
def both(capable: None) -> Iterator[tuple[Scene, Scene]]:
    with scene("netlink") as netlink, scene("restore") as tool:
        yield netlink, tool


@given(PROGRAMS)
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_program_of_operations_ends_alike_by_netlink_and_by_the_tool(both: tuple[Scene, Scene], program):
    for each in both:  # what a failed example left
        each.command("ipset", "destroy")
    asyncio.run(play(program, *both))
