"""From the API server's lines to projected structs."""

import json

import msgspec
import pytest

from producers.core.captures import list_kind
from producers.core.decoding import Bookmark, Failure, decode_failure, decode_line, decode_page
from producers.core.observations import Observed, Unreadable
from producers.core.reflector import project
from schemas.events import EventType
from schemas.objects import Pod
from schemas.unreadable import UNREADABLE
from tests.components.conformance import CONFORMANCE
from tests.producers.objects import SECRETS, bookmark, error, line, pod

RECORDED = CONFORMANCE / "data" / "watch"


def test_a_watch_line_becomes_a_struct_of_the_fields_that_are_used():
    seen = decode_line("Pod", line("MODIFIED", pod("web", app="a")))
    assert isinstance(seen, Observed)
    assert seen.type is EventType.MODIFIED
    assert isinstance(seen.object, Pod)
    assert seen.object.metadata.labels == {"app": "a"}
    assert seen.object.spec.containers is not None
    assert seen.object.spec.containers[0].ports is not None
    assert seen.object.spec.containers[0].ports[0].name == "http"
    assert seen.object.status.pod_ips is not None
    assert seen.object.status.pod_ips[0].ip == "10.0.0.1"


def test_nothing_but_the_projection_is_kept():
    seen = decode_line("Pod", line("ADDED", pod("web")))
    assert isinstance(seen, Observed)
    kept = project(seen.object).object
    assert not [secret for secret in SECRETS if secret.encode() in kept]
    assert b"mirror-of-a-static-pod" in kept


def test_a_resource_version_alone_makes_no_difference():
    first, second = (decode_line("Pod", line("ADDED", pod("web", version=version))) for version in ("1", "2"))
    assert isinstance(first, Observed)
    assert isinstance(second, Observed)
    assert project(first.object).object == project(second.object).object
    assert project(second.object).resource_version == "2"


def test_bookmarks_and_errors_are_told_apart():
    assert decode_line("Pod", bookmark("7")) == Bookmark("7")
    assert decode_line("Pod", bookmark("7", list_complete=True)) == Bookmark("7", list_complete=True)
    assert decode_line("Pod", error(410, "Expired", "too old")) == Failure(
        code=410, reason="Expired", message="too old"
    )


def test_an_error_says_how_long_to_wait():
    body = {"code": 429, "reason": "TooManyRequests", "message": "slow", "details": {"retryAfterSeconds": 3}}
    assert decode_failure(json.dumps(body).encode(), 429).retry_after_seconds == 3
    assert decode_failure(b"upstream connect error", 503) == Failure(code=503, message="upstream connect error")


def test_an_unreadable_object_is_named_by_its_metadata():
    item = pod("web")
    item["spec"]["containers"] = "none"
    bad = decode_line("Pod", line("MODIFIED", item), "line 3")
    assert isinstance(bad, Unreadable)
    assert (bad.namespace, bad.name, bad.resource_version) == ("shop", "web", "1")
    assert "$.object.spec.containers" in bad.reason


def test_the_deletion_of_an_unreadable_object_is_still_a_deletion():
    item = pod("web")
    item["spec"]["containers"] = "none"
    gone = decode_line("Pod", line("DELETED", item))
    assert isinstance(gone, Observed)
    assert gone.type is EventType.DELETED
    assert gone.object.metadata.name == "web"


@pytest.mark.parametrize(
    "broken", [b'{"type":"ADDED","obj', b"[]", b"\xff\xfe", b'{"type":"ADDED","object":{"metadata":1}}']
)
def test_what_has_no_name_is_found_by_its_place(broken: bytes):
    bad = decode_line("Pod", broken, "watch of Pod, line 3")
    assert isinstance(bad, Unreadable)
    assert (bad.name, bad.place) == ("", "watch of Pod, line 3")


NESTED = b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}"


@pytest.mark.parametrize("type_", ["ADDED", "BOOKMARK", "ERROR", "DELETED"])
def test_what_is_nested_beyond_reason_is_found_by_its_place(type_: str):
    bad = decode_line("Pod", b'{"type":"%s","object":%s}' % (type_.encode(), NESTED), "watch of Pod, line 3")
    assert isinstance(bad, Unreadable)
    assert bad.place == "watch of Pod, line 3"
    assert "recursion" in bad.reason
    with pytest.raises(UNREADABLE):
        decode_page("Pod", b'{"metadata":{},"items":[%s]}' % NESTED)
    assert decode_failure(NESTED, 500).message.startswith('{"a":[')
    assert list_kind(NESTED) == ""


def test_a_bad_item_does_not_spoil_its_page():
    body = {
        "metadata": {"resourceVersion": "9", "continue": "t"},
        "items": [pod("a"), {"metadata": {"name": 1}}, pod("b")],
    }
    page = decode_page("Pod", json.dumps(body).encode())
    assert [item.metadata.name for item in page.items] == ["a", "b"]
    assert [bad.place for bad in page.unreadable] == ["item 2 of the list"]
    assert (page.resource_version, page.next_token) == ("9", "t")


def test_a_page_that_is_none_is_refused():
    with pytest.raises(msgspec.MsgspecError):
        decode_page("Pod", b"<html>")


@pytest.mark.conformance
def test_real_recorded_streams_and_lists_are_read_whole():
    lines = [(path, each) for path in sorted(RECORDED.glob("*.jsonl")) for each in path.read_bytes().splitlines()]
    kinds = [type(decode_line("Pod", each)) for _, each in lines]
    assert len(kinds) > 20
    assert set(kinds) == {Observed, Bookmark}
    for path in RECORDED.glob("*podlist*.json"):
        page = decode_page("Pod", path.read_bytes())
        assert page.items
        assert page.unreadable == []
