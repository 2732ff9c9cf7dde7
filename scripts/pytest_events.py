"""A pytest plugin that writes one JSON line per finished test to the file given with `--events`, for `scripts/test.ts`."""

import json


def pytest_addoption(parser):
    parser.addoption("--events", required=True, help="file that the JSON lines are written to")


def pytest_configure(config):
    config.pluginmanager.register(_Events(config.getoption("--events")))


class _Events:
    def __init__(self, path):
        # Open for as long as pytest runs.
        self._file = open(path, "w", encoding="utf-8", buffering=1)  # noqa: SIM115

    def _write(self, nodeid, outcome, reason=None):
        self._file.write(json.dumps({"test": nodeid, "outcome": outcome, "reason": reason}) + "\n")

    def pytest_collectreport(self, report):
        if report.failed:
            self._write(report.nodeid, "failed", "it cannot be collected")
        elif report.skipped:
            self._write(report.nodeid, "skipped", _reason(report))

    def pytest_runtest_logreport(self, report):
        # One line a test: its call, or what kept it from one, and a teardown only when that failed.
        if report.when == "call" or not report.passed:
            expected = hasattr(report, "wasxfail")
            outcome = "passed" if expected and report.skipped else report.outcome
            if not (report.when == "teardown" and report.passed):
                self._write(report.nodeid, outcome, _reason(report) if outcome == "skipped" else None)


def _reason(report):
    longrepr = report.longrepr
    return str(longrepr[2] if isinstance(longrepr, tuple) else longrepr)
