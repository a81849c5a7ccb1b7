"""The tiers of the suite: in which order they run, what a whole tier needs, and what a run says it could not do."""

import functools
import os
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Generator

import pytest

from tests.components.conformance import CONFORMANCE
from tests.components.presence import require, require_programs

# Cheap and telling first; a session's fixture for a later tier is not even started when an earlier one breaks the run.
_ORDER = ("", "nats", "kafka", "netns", "apiserver", "docker", "node", "chaos")

_ELSEWHERE = {
    "apiserver": "make test-cluster",
    "node": "make test-cluster",
    "docker": "make test-stack",
    "chaos": "make test-chaos",
}


def _tier(item: pytest.Item) -> str:
    return max((mark.name for mark in item.iter_markers() if mark.name in _ORDER), key=_ORDER.index, default="")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by tier, each tier as it was written; leave out what needs data that is not part of the project."""
    items.sort(key=lambda item: _ORDER.index(_tier(item)))
    if not CONFORMANCE.is_dir():
        without_data = [item for item in items if item.get_closest_marker("conformance")]
        items[:] = [item for item in items if item not in without_data]
        config.hook.pytest_deselected(items=without_data)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """A test marked `netns` needs no fixture for it: the marker says it."""
    if item.get_closest_marker("netns"):
        require_programs(("ip", "iptables-nft-restore", "ipset", "conntrack", "unshare"), "make test sets it up")
        require(
            _may_make_namespaces(),
            "this user may not make network namespaces",
            "run as root, or where unprivileged user namespaces are allowed (sysctl kernel.unprivileged_userns_clone)",
        )


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """With ``CI=true`` everything has to be there: whoever skips, and for whatever reason, fails."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI", "").lower() in ("true", "1"):
        report.outcome = "failed"
        report.longrepr = f"in CI nothing may be skipped: {_reason(report)}"
    return report


@functools.cache
def _may_make_namespaces() -> bool:
    """As root of the machine, or of a user namespace, which `make test` enters for whoever is not root."""
    unshare = shutil.which("unshare") or "unshare"
    return os.geteuid() == 0 and subprocess.run([unshare, "--net", "true"], check=False).returncode == 0


def pytest_deselected(items: list[pytest.Item]) -> None:
    """Remember what this run leaves to another command."""
    for item in items:
        if item.get_closest_marker("conformance") and not CONFORMANCE.is_dir():
            _left_out["the third-party suites are not here: CONFORMANCE=FOLDER names them"] += 1
        elif command := _ELSEWHERE.get(_tier(item)):
            _left_out[command] += 1


_left_out: defaultdict[str, int] = defaultdict(int)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List every reason for skipping with the number of tests it cost, and the tiers that are run by other commands."""
    reasons: defaultdict[str, int] = defaultdict(int)
    for report in terminalreporter.stats.get("skipped", []):
        reasons[_reason(report)] += 1
    if reasons:
        terminalreporter.section("could not be run here")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{_tests(count)}: {reason}")
    if _left_out:
        terminalreporter.section("not in this run")
        for why, count in sorted(_left_out.items()):
            terminalreporter.line(f"{_tests(count)}: {why}")


def _reason(report: pytest.TestReport | pytest.CollectReport) -> str:
    """Why it was skipped: pytest keeps (file, line, reason)."""
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")


def _tests(count: int) -> str:
    return f"{count} test{'' if count == 1 else 's'}"
