"""Reading specifications: whatever stands in one, reading ends, and what cannot be read is said."""

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from processors.core.segmentation.policies import read_spec

WORDS = st.sampled_from(
    (
        *("podSelector", "policyTypes", "ingress", "egress", "from", "to", "ports", "ipBlock", "cidr", "except"),
        *("namespaceSelector", "matchLabels", "matchExpressions", "key", "operator", "values", "port", "endPort"),
        *("protocol", "In", "Exists", "TCP", "Ingress", "Egress", "10.0.0.0/8", "fd00::/8", "::/0", "x"),
    )
)
LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | WORDS
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4))
RULES = st.lists(st.dictionaries(st.sampled_from(("from", "to", "ports")), VALUES, max_size=2) | VALUES, max_size=3)
SPECS = st.fixed_dictionaries(
    {}, optional={"podSelector": VALUES, "policyTypes": VALUES, "ingress": RULES | VALUES, "egress": RULES | VALUES}
)


@given(SPECS | VALUES)
def test_no_specification_breaks_the_reading(spec: object) -> None:
    found = read_spec(msgspec.json.encode(spec))
    assert found.subject is not None or found.problems
    assert found.ingress is not None or found.egress is not None


@given(st.binary(max_size=60))
def test_what_is_no_json_selects_nothing_and_says_why(raw: bytes) -> None:
    found = read_spec(raw)
    assert found.subject is not None or found.problems


def test_a_specification_nested_beyond_reason_is_a_problem_of_its_policy() -> None:
    found = read_spec(b'{"podSelector":' + b"[" * 100_000 + b"]" * 100_000 + b"}")
    assert found.subject is None
    assert found.problems
