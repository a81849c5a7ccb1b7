"""Services as a node's rules."""

from compose.lab.plan import VirtualPort
from compose.lab.wires.translation import translate

WEB = VirtualPort(
    service="x/web",
    addresses=("10.96.0.1", "fd00:96::1"),
    port=80,
    endpoints=(("10.0.0.1", 8080), ("10.0.0.2", 8080), ("10.0.0.3", 8080), ("fd00::1", 8080)),
)


def rules(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("-A EW-LAB-")]


def test_each_endpoint_takes_its_equal_share_of_what_is_left() -> None:
    v4, v6 = translate([WEB], "n1", new=False)
    match = "-A EW-LAB-SERVICES -d 10.96.0.1 -p tcp --dport 80"
    assert [line for line in rules(v4) if "DNAT" in line] == [
        f"{match} -m statistic --mode random --probability 0.3333333333 -j DNAT --to-destination 10.0.0.1:8080",
        f"{match} -m statistic --mode random --probability 0.5000000000 -j DNAT --to-destination 10.0.0.2:8080",
        f"{match} -j DNAT --to-destination 10.0.0.3:8080",
    ]
    assert [line for line in rules(v6) if "DNAT" in line] == [
        "-A EW-LAB-SERVICES -d fd00:96::1 -p tcp --dport 80 -j DNAT --to-destination [fd00::1]:8080"
    ]


def test_a_family_without_endpoints_is_refused_in_that_family_only() -> None:
    half = VirtualPort(service="x/s", addresses=("10.96.0.1", "fd00:96::1"), port=80, endpoints=(("10.0.0.1", 80),))
    v4, v6 = translate([half], "n1", new=False)
    assert "REJECT" not in v4
    assert "-A EW-LAB-REFUSE -d fd00:96::1 -p tcp --dport 80 -j REJECT --reject-with tcp-reset" in v6


def test_where_each_node_uses_its_own_endpoints_one_without_any_drops() -> None:
    own = VirtualPort(service="x/s", addresses=("10.96.0.1",), port=80, local=(("n1", (("10.0.0.1", 80),)),))
    assert "--to-destination 10.0.0.1:80" in translate([own], "n1", new=False)[0]
    elsewhere, _ = translate([own], "n2", new=False)
    assert "DNAT" not in elsewhere
    assert "-A EW-LAB-REFUSE -d 10.96.0.1 -p tcp --dport 80 -j DROP" in elsewhere


def test_only_a_new_node_gets_the_jumps() -> None:
    assert all("-A PREROUTING -j EW-LAB-SERVICES" in text for text in translate([], "n1", new=True))
    assert not any("PREROUTING" in text for text in translate([WEB], "n1", new=False))


def test_no_built_in_chain_is_ever_declared() -> None:
    for text in translate([WEB], "n1", new=True):
        declared = [line.split()[0] for line in text.splitlines() if line.startswith(":")]
        assert all(name.startswith(":EW-LAB-") for name in declared)
