"""Chains go by netlink only where the tool itself lists the same of both."""

import pytest

from enforcers.kernel.rules import chain_trial
from enforcers.kernel.rules.chain_trial import choose_chain_backend, trial

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("capable")]


async def test_a_kernel_and_tools_that_agree_give_netlink():
    assert await trial() == ""
    assert await choose_chain_backend("auto") == ("netlink", "")


async def test_one_rule_that_the_tool_reads_otherwise_gives_the_tool_and_says_which(monkeypatch):
    encode = chain_trial.transaction.steps

    def wrong(tables):
        return encode({family: text.replace("--ctdir REPLY", "--ctdir ORIGINAL") for family, text in tables.items()})

    monkeypatch.setattr(chain_trial.transaction, "steps", wrong)

    backend, trouble = await choose_chain_backend("auto")

    assert backend == "restore"
    assert "iptables-nft-save differs in" in trouble
    assert "--ctdir" in trouble


async def test_without_the_tool_there_is_nothing_to_compare_with(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    backend, trouble = await choose_chain_backend("auto")

    assert backend == "restore"
    assert "iptables-nft-restore" in trouble


async def test_what_is_asked_for_by_name_is_not_tried(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))

    assert await choose_chain_backend("netlink") == ("netlink", "")
    assert await choose_chain_backend("restore") == ("restore", "")
