"""What holds for every test: its programs are built before it, cluster tests are counted, none may be skipped.

Hypothesis profiles: `ci` is the same every time and quick; `thorough` (HYPOTHESIS_PROFILE=thorough) searches; `mutants`
is for programs that are known to be broken (`mutants`): the first failure will do, nobody reads the example.
"""

import os
import sys
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings

from controlplane import ensure_binaries, ensure_helm, tried
from gitops.judges import conditions_program
from nodepool_membership import redaction

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]
settings.register_profile("ci", derandomize=True, deadline=None, database=None, suppress_health_check=_QUIET)
settings.register_profile("thorough", deadline=None, max_examples=5000, suppress_health_check=_QUIET)
settings.register_profile(
    "mutants",
    settings.get_profile("ci"),
    phases=(Phase.explicit, Phase.generate),
    max_examples=2000,
    report_multiple_bugs=False,
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))

_REQUIRE = "--require-cluster"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(_REQUIRE, action="store_true", help="fail if no cluster test ran")


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Get the programs that the selected tests need, before the first one: a build takes longer than a test may."""
    markers = {marker.name for item in session.items for marker in item.iter_markers()}
    if session.config.option.collectonly:
        return
    capture = session.config.pluginmanager.get_plugin("capturemanager")
    assert capture is not None

    def say(line: str) -> None:
        # In a process of pytest-xdist, too: past what pytest captures, or nobody would know what takes minutes.
        with capture.global_and_fixture_disabled():
            print(line, file=sys.stderr, flush=True)

    if "cluster" in markers:
        ensure_binaries(say=say)
        ensure_helm(say=say)
    if markers & {"cluster", "gitops"}:
        conditions_program(say=say)


def _cluster_reports(config: pytest.Config, *outcomes: str) -> Counter[str]:
    """How many tests of each module ended so."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    assert isinstance(reporter, pytest.TerminalReporter)
    reports = [report for outcome in outcomes for report in reporter.stats.get(outcome, [])]
    cluster = [report for report in reports if "cluster" in getattr(report, "keywords", {})]
    return Counter(Path(report.nodeid.partition("::")[0]).stem for report in cluster)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # One of several processes of pytest-xdist: the one that started them counts.
    missing = session.config.getoption(_REQUIRE) and not _cluster_reports(session.config, "passed", "failed")
    if _cluster_reports(session.config, "skipped") or missing:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    passed, failed = _cluster_reports(config, "passed"), _cluster_reports(config, "failed", "error")
    skipped = _cluster_reports(config, "skipped")
    whole_files = not config.option.keyword and not any("::" in argument for argument in config.args)
    if os.environ.get("TRIED") and whole_files:
        tried.note(passed, failed)
    told = f"{passed.total()} passed, {failed.total()} failed, {skipped.total()} skipped"
    terminalreporter.write_line(f"cluster tests: {told}")


@pytest.fixture
def own_redactor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registered values of one test only: a word that is a secret for the process is missing in the texts of others."""
    redactor = redaction.Redactor()
    for name in ("register", "redact", "redact_json"):
        monkeypatch.setattr(redaction, name, getattr(redactor, name))
