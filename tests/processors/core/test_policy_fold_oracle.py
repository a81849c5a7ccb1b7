"""What is open at virtual addresses, against the plain definition: every endpoint behind it passes, or is one's own."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from processors.core.segmentation.virtual_addresses.services import Services, Target
from schemas import addresses, sets, verdict
from schemas.objects import EndpointSlice, Node, Service, decode_object
from schemas.policy import Policy
from schemas.programs import Program, Virtual
from schemas.verdict import Flow
from tests.processors.core.test_policy_fold_laws import LAW, cut
from tests.processors.core.worlds import Change, Player, Writer, histories, newest


def doors_of(history: list[Change]) -> tuple[dict[bytes, list[tuple[Target, ...]]], dict[str, frozenset[bytes]]]:
    """The endpoints behind each virtual tuple, once for every Service that claims it; and the nodes' addresses.

    One of every address of the own node is also claimed by whoever claims it at the address of some node.
    """
    services, keys = Services(), []
    for key, found in newest(history).items():
        kind, namespace, name = key.split("/")
        if found is None or kind not in ("Service", "EndpointSlice", "Node"):
            continue
        match decode_object(kind, msgspec.json.encode(found)):
            case Service() as service:
                services.put_service((namespace, name), service)
                keys.append((namespace, name))
            case EndpointSlice() as found_slice:
                services.put_slice((namespace, name), found_slice)
            case Node() as node:
                services.put_node(name, node)
    doors: dict[bytes, list[tuple[Target, ...]]] = {}
    for ref in keys:
        for door in services.view(ref).doors:
            for item in door.tuples:
                doors.setdefault(item, []).append(door.targets)
    for node_address in services.nodes_at:
        for item in [item for item in doors if item[:-3] == node_address and sets.here(item) in doors]:
            doors[sets.here(item)] += doors[item]
    return doors, services.nodes


def passes(program: Program, target: Target, policy: Policy, own: frozenset[bytes]) -> bool:
    """Whether *program* lets its Pod go to *target* directly."""
    if target.address in own:
        return True
    plain = msgspec.structs.replace(program.egress, virtual=None)
    direct = msgspec.structs.replace(program, egress=plain)
    flow = Flow(b"", target.address, target.protocol, target.port)
    return verdict.judge_egress(direct, flow, lambda identity: policy.sets.get(identity, ())).allowed


def addresses_of(history: list[Change], program: Program) -> frozenset[bytes]:
    """What the Pod claims; enough, since a Pod that another one took the address from is left out below."""
    found = newest(history)[f"Pod/{program.namespace}/{program.name}"]
    assert found is not None
    return frozenset(addresses.pack(item["ip"]) for item in found["status"]["podIPs"])


def contested(history: list[Change]) -> frozenset[bytes]:
    """Addresses that several Pods claim: whose they are is another test's question."""
    seen: list[bytes] = []
    for key, found in newest(history).items():
        if found is not None and key.startswith("Pod/"):
            seen += {addresses.pack(item["ip"]) for item in found["status"]["podIPs"]}
    return frozenset(address for address in seen if seen.count(address) > 1)


@LAW
@given(histories(), st.data())
def test_a_virtual_tuple_is_open_iff_all_behind_it_is(history: list[Change], data: st.DataObject) -> None:
    writer, player = Writer(), Player()
    for records in cut(data, [*writer.opening(), *writer.write(history)]):
        player.play(records)
    policy = player.fold.policy()
    doors, nodes = doors_of(history)
    unclear = contested(history)
    for program in policy.programs.values():
        if program.egress is None:
            continue
        virtual = program.egress.virtual
        assert isinstance(virtual, Virtual)
        open_to_it = {item for identity in virtual.allowed for item in policy.sets[identity]}
        own = addresses_of(history, program) | nodes.get(program.node, frozenset())
        for item, claims in doors.items():
            if any(target.address in unclear for targets in claims for target in targets):
                continue
            expected = all(
                targets and all(passes(program, target, policy, own) for target in targets) for targets in claims
            )
            assert (item in open_to_it) is expected
        assert open_to_it <= doors.keys()
