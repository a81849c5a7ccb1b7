"""Cases that are written in IPv4, in IPv6."""

from pathlib import Path

from compose.checking.suites.families import in_ipv6
from tests.compose.checking.suites.test_case_files import short

IN_IPV4 = """
case: c
pods: {x/a: , x/b: {ip: 10.1.0.5}}
policies:
  x/p: {podSelector: {}, egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [192.0.2.128/25]}}]}]}
services: {x/s: {ports: [{port: 80}], endpoints: [x/a]}}
allow: [192.0.2.1 -> x/b 80]
"""


def test_every_address_and_block_moves_and_keeps_its_place_among_the_others(tmp_path: Path) -> None:
    (case,) = map(in_ipv6, short(tmp_path, IN_IPV4))
    objects = {action.object["kind"]: action.object for action in case.steps[0].actions}
    assert objects["Pod"]["status"]["podIPs"] == [{"ip": "fd04::a01:5"}]
    assert objects["NetworkPolicy"]["spec"]["egress"] == [
        {"to": [{"ipBlock": {"cidr": "::/0", "except": ["fd04::c000:280/121"]}}]}
    ]
    assert objects["EndpointSlice"]["addressType"] == "IPv6"
    assert case.steps[0].cells[0].source == "fd04::c000:201"


def test_nodes_that_a_case_takes_for_granted_move_too(tmp_path: Path) -> None:
    (case,) = map(in_ipv6, short(tmp_path, IN_IPV4))
    assert [node["status"]["addresses"][0]["address"] for node in case.initial] == ["fd04::ac12:2", "fd04::ac12:3"]


def test_a_case_that_tells_the_families_apart_means_what_it_says(tmp_path: Path) -> None:
    (case,) = short(tmp_path, 'case: c\npods: {x/a: {ip: [10.1.0.1, "fd00::1"]}}\n')
    assert in_ipv6(case) is case
