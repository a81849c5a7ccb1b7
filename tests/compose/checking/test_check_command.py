"""`eastwest check` as people and build servers meet it: what it prints, writes and returns."""

import json
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.compose.checking.playing_cases import case, check, summary

pytestmark = [pytest.mark.nats, pytest.mark.timeout(60)]

WRONG = {"tcp/80": {"shop/client->shop/web": "blocked", "shop/stranger->shop/web": "allowed"}}


def wrong(folder: Path) -> Path:
    """A case that expects the opposite of what its policy says."""
    right = json.loads(case(folder).read_text())
    return case(folder, steps=[{**right["steps"][0], "expected": WRONG}])


def test_a_case_that_comes_out_right_is_only_counted(tmp_path: Path) -> None:
    done = check(case(tmp_path))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "cases 1, steps 1, cells 2, wrong 0, unsupported 0\n"


def test_a_wrong_cell_is_printed_with_the_rule_or_the_policies_that_decided(tmp_path: Path) -> None:
    done = check(wrong(tmp_path))
    assert done.returncode == 1
    title, admitted, isolated, total = done.stdout.splitlines()
    assert title == f"{tmp_path / 'suite.jsonl'}: one: only the client"
    assert "shop/client -> shop/web 80/TCP should be blocked, is allowed: rule " in admitted
    assert admitted.endswith(" of NetworkPolicy/shop/web allows it")
    assert isolated.endswith(
        "shop/stranger -> shop/web 80/TCP should be allowed, is blocked: "
        "no rule allows it; isolated by NetworkPolicy/shop/web"
    )
    assert total == "cases 1, steps 1, cells 2, wrong 2, unsupported 0"


@pytest.mark.netns
def test_packets_find_a_wrong_expectation_too_and_say_what_the_programs_say(tmp_path: Path) -> None:
    done = check(wrong(tmp_path), "--engine", "packets")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "shop/client -> shop/web 80/TCP should be blocked, is reachable: the programs say allowed: " in done.stdout
    assert "shop/stranger -> shop/web 80/TCP should be allowed, is blocked: the programs say blocked: " in done.stdout
    assert done.stdout.splitlines()[-1] == "cases 1, steps 1, cells 2, wrong 2, unsupported 0"


@pytest.mark.netns
def test_packets_are_enforced_by_the_backend_that_is_asked_for_and_in_ipv6_if_so_asked(tmp_path: Path) -> None:
    expected = "cases 1, steps 1, cells 2, wrong 0, unsupported 0"
    assert summary(check(case(tmp_path), "--engine", "packets", "--set-backend", "restore", "-6")) == expected


def test_a_backend_without_packets_is_a_mistake_and_said_to_be_one(tmp_path: Path) -> None:
    done = check(case(tmp_path), "--set-backend", "restore")
    assert (done.returncode, "without --engine packets" in done.stderr) == (2, True)


def test_a_wrong_cell_in_ipv6_is_as_wrong(tmp_path: Path) -> None:
    done = check(wrong(tmp_path), "-6")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (1, "cases 1, steps 1, cells 2, wrong 2, unsupported 0")


def test_a_disputed_verdict_is_judged_as_its_oracle_says_and_that_is_printed(tmp_path: Path) -> None:
    steps = json.loads(wrong(tmp_path).read_text())["steps"]
    steps[0]["expected"] = {"tcp/80": {"shop/stranger->shop/web": "allowed"}}
    done = check(case(tmp_path, steps=steps, disputed={"oracle": "blocked", "reason": "upstream errs"}))
    assert done.returncode == 0
    assert "disputed, judged as blocked: upstream errs" in done.stdout


def test_a_tier_case_is_unsupported_and_never_passed(tmp_path: Path) -> None:
    tier = {"kind": "create_cluster_policy", "object": {"kind": "ClusterNetworkPolicy", "metadata": {"name": "p"}}}
    report = tmp_path / "report.xml"
    done = check(case(tmp_path, steps=[{"actions": [tier], "expected": WRONG}]), "--junit", report)
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "unsupported, 1 case: needs ClusterNetworkPolicy",
        "cases 1, steps 0, cells 0, wrong 0, unsupported 1",
    ]
    (skipped,) = ElementTree.parse(report).iterfind("testsuite/testcase/skipped")
    assert skipped.get("message") == "needs ClusterNetworkPolicy"


def test_junit_has_a_suite_per_file_and_a_failure_with_the_wrong_cells(tmp_path: Path) -> None:
    good = tmp_path / "good.yaml"
    good.write_text("case: open\npods: {x/a: , x/b: }\nallow: [x/a -> x/b 80]\n")
    report = tmp_path / "report.xml"
    assert check(wrong(tmp_path), good, "--junit", report).returncode == 1
    bad, fine = ElementTree.parse(report).iterfind("testsuite")
    assert (bad.get("tests"), bad.get("failures"), fine.get("tests"), fine.get("failures")) == ("1", "1", "1", "0")
    (failure,) = bad.iterfind("testcase/failure")
    assert failure.get("message") == "2 of 2 cells wrong"
    assert "shop/client -> shop/web 80/TCP should be blocked" in (failure.text or "")


def test_json_tells_every_case_and_the_sums(tmp_path: Path) -> None:
    done = check(wrong(tmp_path), "-o", "json")
    found = json.loads(done.stdout)
    assert found["summary"] == {"cases": 1, "steps": 1, "cells": 2, "wrong": 2, "unsupported": 0}
    (one,) = found["cases"]
    assert [cell["cell"] for cell in one["wrong"]] == [
        "shop/client -> shop/web 80/TCP",
        "shop/stranger -> shop/web 80/TCP",
    ]


def test_cases_are_chosen_by_id_name_and_tag(tmp_path: Path) -> None:
    path = tmp_path / "two.yaml"
    path.write_text("case: the first\n---\ncase: the second\n")
    tagged = case(tmp_path, tags=["egress"])
    for pattern, cases in (("FIRST", 1), ("two/*", 2), ("the *", 2), ("egress", 1), ("nothing", 0)):
        assert summary(check(path, tagged, "--only", pattern)).startswith(f"cases {cases}, "), pattern


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("broken.jsonl", '{"id": 1}\n', "broken.jsonl: line 1: not a case: "),
        ("broken.jsonl", '{"selector": {}, "match": "perhaps"}\n', "broken.jsonl: line 1: not a selector vector: "),
        ("broken.yaml", "case: c\nrules: {}\n", "broken.yaml: document 1 (c): the case: unknown word 'rules'"),
        ("broken.txt", "", "ends neither in .jsonl nor in .yaml"),
        ("broken.yaml", "case: c\nallow: [x/a -> x/b 80]\n", "broken/1, at first: x/a -> x/b 80/TCP: x/b does"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_ends_it_with_2_and_names_file_place_and_reason(
    tmp_path: Path, name: str, content: str, says: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    done = check(path)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(path) in done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_a_file_that_is_not_there_ends_it_with_2(tmp_path: Path) -> None:
    done = check(tmp_path / "missing.jsonl")
    assert done.returncode == 2
    assert done.stderr == f"Error: {tmp_path / 'missing.jsonl'}: No such file or directory\n"


def test_selector_vectors_are_asked_as_subject_and_as_peer(tmp_path: Path) -> None:
    path = tmp_path / "vectors.jsonl"
    vector = {"selector": {"matchLabels": {"app": "web"}}, "labels": {"app": "web"}, "match": True}
    absent = {"selector": None, "labels": {"app": "web"}, "match": False}
    path.write_text("".join(json.dumps(each) + "\n" for each in (vector, absent, {**vector, "match": False})))
    done = check(path)
    assert done.returncode == 1
    assert done.stdout.splitlines()[-1] == "cases 1, steps 1, cells 5, wrong 2, unsupported 0"


def test_help_shows_examples_and_the_short_form() -> None:
    done = check("--help")
    assert "eastwest check policies.yaml" in done.stdout
    assert "deny: [shop/stranger -> shop/web 80]" in done.stdout
