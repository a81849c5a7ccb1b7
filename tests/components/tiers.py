"""Says at the end of a run what it could not run, and why."""

from collections import defaultdict

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List every reason for skipping with the number of tests it cost."""
    reasons: defaultdict[str, int] = defaultdict(int)
    for report in terminalreporter.stats.get("skipped", []):
        place_and_reason = report.longrepr
        reason = place_and_reason[2] if isinstance(place_and_reason, tuple) else str(place_and_reason)
        reasons[reason.removeprefix("Skipped: ")] += 1
    if reasons:
        terminalreporter.section("could not be run here")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}")
