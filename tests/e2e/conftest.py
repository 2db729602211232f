"""What long trials counted and measured is told at the end of the report."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser

MEASURED = "measured"

pytest.register_assert_rewrite("tests.e2e.verbs", "tests.e2e.browsing")


@pytest.fixture
def tell(record_property: Callable[[str, object], None]) -> Callable[[str], None]:
    """Call it with a line of counts or measures; it is shown whether the test passes or not."""
    return lambda line: record_property(MEASURED, line)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Debian's chromium, without a window."""
    from tests.e2e.browsing import chromium

    with chromium() as browser:
        yield browser


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [
        report
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        if isinstance(report, pytest.TestReport)
    ]
    lines = [
        f"{report.nodeid.rpartition('/')[2]}: {value}"
        for report in reports
        for name, value in report.user_properties
        if name == MEASURED
    ]
    if lines:
        terminalreporter.section(f"measured (TORTURE_SEED={os.environ['TORTURE_SEED']})")
        for line in lines:
            terminalreporter.line(line)
