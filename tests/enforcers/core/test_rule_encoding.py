"""What is not known word by word is refused, never left out: a rule that lost a match would admit more."""

import pytest

from enforcers.core.netlink import transaction
from enforcers.core.netlink.rules import Unencodable, encode


@pytest.mark.parametrize(
    "rule",
    [
        "-m socket -j DROP",
        "-m limit --limit 5/sec -j DROP",
        "! -i eth0 -j EW-IN",
        "-i eth+ -j EW-IN",
        "-p tcp ! --syn -j DROP",
        "-m set ! --match-set ew-a src -j DROP",
        "-m tcp ! --dport 80 -j DROP",
        "-p tcp -m tcp --sport 80 -j DROP",
        "-p tcp -m tcp --dport http -j DROP",
        "-p 0 -j DROP",
        "-p all -j DROP",
        "-s 10.0.0.1 -j DROP",
        "-m connmark --mark 5 -j RETURN",
        "-m conntrack --ctstate SNAT -j DROP",
        "-j NFLOG --nflog-group 7",
        "-j LOG",
        "-j CONNMARK --save-mark",
        "",
    ],
)
def test_a_rule_with_a_word_that_is_not_known_is_refused(rule):
    with pytest.raises(Unencodable):
        encode(rule)


@pytest.mark.parametrize(
    "line",
    [
        "-D PREROUTING -i eth0 -j EW-IN",
        "-A PREROUTING -i eth0 -j EW-IN",
        "-I OUTPUT -o eth0 -j EW-OUT",
        ":PREROUTING ACCEPT [0:0]",
        "-F EW-IN",
        "-X MINE",
        "*filter",
        "# a comment",
    ],
)
def test_a_line_that_no_patch_of_ours_has_for_netlink_is_refused(line):
    with pytest.raises(Unencodable):
        transaction.steps({4: f"*mangle\n{line}\nCOMMIT\n"})
