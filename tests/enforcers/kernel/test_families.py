"""A kernel without a family, or with one that is switched off. No kernel at hand lacks one, so a tool says it does."""

from pathlib import Path

import pytest

from enforcers.core.layout import DEFAULT_MARK, FAMILIES
from enforcers.kernel.namespaces import CommandFailed
from enforcers.kernel.rules.families import families
from enforcers.pods.pod import PodEnforcement
from tests.enforcers.pod_world import ALLOW, both, enforced, sets

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]


def says(monkeypatch: pytest.MonkeyPatch, folder: Path, message: str, *tools: str) -> None:
    """*tools* end with *message*, in the words of iptables-nft 1.8.9 where a transaction fails."""
    folder.mkdir(exist_ok=True)
    for name in tools:
        tool = folder / name
        tool.write_text(f"#!/bin/sh\necho '{name} v1.8.9 (nf_tables): {message}' >&2\nexit 4\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")


UNSUPPORTED = "line 3: TABLE_ADD failed (Operation not supported): table mangle"


async def test_this_kernel_has_both():
    assert await families() == (FAMILIES, "")


async def test_a_family_that_the_kernel_lacks_is_left_out_and_noted(monkeypatch, tmp_path):
    says(monkeypatch, tmp_path, UNSUPPORTED, "ip6tables-nft-restore")

    found, note = await families()

    assert found == (4,)
    assert "ip6tables-nft" in note
    assert "Operation not supported" in note


async def test_any_other_trouble_is_no_missing_family(monkeypatch, tmp_path):
    says(monkeypatch, tmp_path, "line 3: TABLE_ADD failed (Permission denied): table mangle", "ip6tables-nft-restore")

    with pytest.raises(CommandFailed, match="Permission denied"):
        await families()


async def test_a_kernel_with_neither_is_trouble_of_every_pod_and_not_two_missing_families(monkeypatch, tmp_path):
    says(monkeypatch, tmp_path, UNSUPPORTED, "iptables-nft-restore", "ip6tables-nft-restore")

    assert await families() == (FAMILIES, "")


async def test_the_family_that_is_there_is_enforced_alone_and_realized(world, monkeypatch, tmp_path):
    says(monkeypatch, tmp_path, UNSUPPORTED, "ip6tables-nft-restore")
    world.listen("web", 80)
    pod = PodEnforcement(world.sandbox(), DEFAULT_MARK, families=(4,))
    world.sockets.callback(pod.close)

    assert await pod.realize(ALLOW, sets(clients=both("a")))
    assert not await pod.realize(ALLOW, sets(clients=both("a")))

    assert (world.reaches("a", "web", 80), world.reaches("b", "web", 80)) == (True, False)
    assert "EW-" not in world.rules(family=6)
    assert "-6" not in world.command("web", "ipset", "list", "-n")


async def test_a_pod_in_which_ipv6_is_switched_off_is_enforced_in_both_families(world):
    world.command("web", "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1")
    world.listen("web", 80)

    await enforced(world, ALLOW, sets(clients=both("a")))

    assert (world.reaches("a", "web", 80), world.reaches("b", "web", 80)) == (True, False)
    assert "EW-IN-NEW" in world.rules(family=6)
