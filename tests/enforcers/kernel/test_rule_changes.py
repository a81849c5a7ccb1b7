"""One socket hears of rule changes in every namespace that has a number: which, how many, by whom."""

from contextlib import aclosing

import pytest

from enforcers.kernel import sockets
from enforcers.kernel.namespace_ids import NamespaceIds
from enforcers.kernel.rules.rule_changes import Changes, hear_rule_changes

pytestmark = pytest.mark.netns


async def test_a_change_is_told_once_with_its_namespace_its_number_and_its_author(world):
    with NamespaceIds() as ids:
        web, other = ids.id_of(world.path("web")), ids.id_of(world.path("a"))
    async with aclosing(hear_rule_changes()) as heard:
        assert await anext(heard) == Changes()
        world.command("web", "nft", "add table inet t; add chain inet t c; add rule inet t c counter")
        world.command("web", "ip6tables-nft", "-t", "mangle", "-N", "MINE")
        world.command("a", "iptables-nft-restore", text="*mangle\n:MINE - [0:0]\nCOMMIT\n")

        found = [each for each in (await anext(heard)).changes if each.namespace in (web, other)]

        assert [(each.namespace, each.generation.process) for each in found] == [
            (web, "nft"),
            (web, "ip6tables-nft"),
            (other, "iptables-nft-re"),
        ]
        assert found[1].generation.number == found[0].generation.number + 1
        assert all(each.generation.pid > 0 for each in found)


async def test_what_could_not_be_kept_is_said_to_be_lost_and_what_follows_is_heard(world, monkeypatch):
    monkeypatch.setattr(sockets, "BUFFER_BYTES", 4096)
    with NamespaceIds() as ids:
        web = ids.id_of(world.path("web"))
    async with aclosing(hear_rule_changes()) as heard:
        await anext(heard)
        world.command("web", "nft", "-i", text="add table inet t\ndelete table inet t\n" * 100)
        assert (await anext(heard)).lost

        world.command("web", "nft", "add table inet t")
        assert web in {each.namespace for each in (await anext(heard)).changes}
