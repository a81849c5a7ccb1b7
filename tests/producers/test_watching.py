"""What to ask the API server next, and what its answers mean."""

import json
from typing import Any

from producers.core.decoding import Failure
from producers.core.observations import ListBegun, ListComplete, Observed, Trouble, Unreadable
from producers.core.watching import Pause, Watch
from tests.producers.objects import bookmark, error, line, pod


def listed(version: str = "10") -> Watch:
    """A watch whose streaming list is complete."""
    watch = Watch("Pod")
    watch.request(300)
    watch.opened()
    watch.lines([line("ADDED", pod("a")), bookmark(version, list_complete=True)])
    return watch


def query(watch: Watch) -> dict[str, str]:
    return dict(watch.request(300).query)


def page(*pods: dict[str, Any], next_token: str = "", version: str = "20") -> bytes:
    return json.dumps({"metadata": {"resourceVersion": version, "continue": next_token}, "items": list(pods)}).encode()


def test_a_streaming_list_ends_with_its_bookmark_and_goes_on_as_a_watch():
    watch = Watch("Pod")
    assert query(watch) == {
        "watch": "1",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "300",
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
    }
    assert watch.opened() == [ListBegun("Pod")]
    first = watch.lines([line("ADDED", pod("a", version="99"))])
    assert watch.version == ""  # an object's version is none of the list's
    second = watch.lines([bookmark("10", list_complete=True), line("ADDED", pod("b", version="11"))])
    assert [type(each) for each in (*first, *second)] == [Observed, ListComplete, Observed]
    assert query(watch)["resourceVersion"] == "11"


def test_a_bookmark_moves_the_version_and_is_no_event():
    watch = listed()
    assert watch.lines([bookmark("12")]) == []
    assert watch.version == "12"


def test_a_version_that_is_too_old_means_a_new_list():
    for tell in ("line", "status"):
        watch = listed()
        if tell == "line":
            watch.lines([error(410, "Expired")])
            assert watch.refused
            _, pause = watch.ended()
        else:
            _, pause = watch.failed(Failure(code=410))
        assert pause is Pause.BACKOFF
        assert watch.version == ""
        assert query(watch)["sendInitialEvents"] == "true"


def test_too_many_requests_keep_the_version_and_wait_as_told():
    watch = listed()
    assert watch.failed(Failure(code=429, message="storage is (re)initializing", retry_after_seconds=1)) == (
        [],
        Pause.AS_TOLD,
    )
    assert watch.told_seconds == 1
    assert watch.version == "10"


def test_a_server_that_refuses_streaming_lists_is_asked_for_pages():
    for failure in (Failure(code=422), Failure(code=400)):
        watch = Watch("Pod")
        watch.request(300)
        watch.failed(failure)
        assert query(watch) == {"limit": "500"}


def test_an_error_within_the_streaming_list_leads_to_pages_too():
    watch = Watch("Pod")
    watch.request(300)
    watch.opened()
    watch.lines([error(500, "InternalError", "RequestWatchProgress is disabled")])
    assert watch.ended() == ([], Pause.NONE)
    assert query(watch) == {"limit": "500"}


def test_pages_are_one_list():
    watch = Watch("Pod", streaming_lists=False)
    watch.request(300)
    first = watch.page(page(pod("a"), next_token="t1"))
    assert query(watch) == {"limit": "500", "continue": "t1"}
    second = watch.page(page(pod("b")))
    assert [type(each) for each in (*first, *second)] == [ListBegun, Observed, Observed, ListComplete]
    assert query(watch)["resourceVersion"] == "20"


def test_a_page_token_that_expired_means_the_list_in_one_piece():
    watch = Watch("Pod", streaming_lists=False)
    watch.request(300)
    watch.page(page(pod("a"), next_token="t1"))
    watch.failed(Failure(code=410))
    assert query(watch) == {}
    assert isinstance(watch.page(page(pod("a"), pod("b")))[0], ListBegun)


def test_silence_in_a_watch_is_no_trouble_and_in_a_list_a_sign_of_an_old_server():
    watch = listed()
    watch.request(300)
    watch.opened()
    assert watch.broken("timed out", silent=True) == ([], Pause.NONE)
    assert watch.version == "10"
    watch = Watch("Pod")
    watch.request(300)
    watch.opened()
    assert watch.broken("timed out", silent=True) == ([], Pause.NONE)
    assert not watch.streaming_lists


def test_a_server_that_does_not_even_answer_is_trouble():
    watch = listed()
    watch.request(300)
    seen, pause = watch.broken("timed out", silent=True)
    assert pause is Pause.BACKOFF
    assert [type(each) for each in seen] == [Trouble]


def test_what_is_forbidden_names_the_missing_rule_until_it_is_over():
    watch = Watch("NetworkPolicy")
    watch.request(300)
    seen, pause = watch.failed(Failure(code=403))
    assert pause is Pause.QUIET
    assert 'apiGroups: ["networking.k8s.io"], resources: ["networkpolicies"], verbs: ["list", "watch"]' in str(seen[0])
    assert watch.opened() == [ListBegun("NetworkPolicy"), Trouble("NetworkPolicy")]


def test_a_version_that_is_refused_again_and_again_is_given_up():
    watch = listed()
    for _ in range(3):
        assert watch.version
        watch.request(300)
        watch.opened()
        watch.lines([error(504, "Timeout", "Too large resource version")])
        assert watch.ended()[1] is Pause.BACKOFF
    assert watch.version == ""


def test_a_line_cut_in_half_is_reported_and_dropped():
    watch = listed()
    (trouble,) = watch.cut(line("ADDED", pod("b"))[:100])
    assert isinstance(trouble, Trouble)
    assert "watch of Pod" in trouble.subject
    assert "cut off after 100 bytes" in trouble.reason
    assert watch.version == "10"


def test_an_unreadable_line_moves_on_and_is_told():
    watch = listed()
    item = pod("b", version="13")
    item["spec"] = []
    (bad,) = watch.lines([line("ADDED", item)])
    assert isinstance(bad, Unreadable)
    assert watch.version == "13"


def test_an_object_larger_than_an_api_server_stores_is_named_and_kept():
    item = pod("b")
    item["metadata"]["annotations"]["big"] = "x" * 5_000_000
    seen = listed().lines([line("ADDED", item)])
    assert isinstance(seen[0], Observed)
    assert isinstance(seen[1], Trouble)
    assert seen[1].subject == "Pod/shop/b"
