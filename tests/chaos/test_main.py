"""The chaos suite as a command: which parts it runs, what it prints, and that a broken promise is its exit code.

Not for: the parts (`test_boundaries`, `test_kills`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from chaos import __main__ as command
from chaos import model
from chaos.model import ModelReport

SEED = 7


@dataclass(frozen=True, slots=True)
class Told:
    """A report of one line. `wrong`: the promise that was broken."""

    line: str
    wrong: str = ""

    def lines(self) -> list[str]:
        return [self.line]

    def check(self) -> None:
        assert not self.wrong, self.wrong


def invoke(monkeypatch: pytest.MonkeyPatch, *arguments: str, model_breaks: str = "") -> Result:
    """The command, with parts that end at once."""

    def runs(seed: int, count: int) -> Mapping[str, Mapping[str, Callable[[], command.Report]]]:
        return {
            "boundaries": {"boundaries": partial(Told, "17 boundaries")},
            "model": {"model": partial(Told, "5000 model runs", model_breaks)},
            "kills": {"kills": partial(Told, f"{count} kills, seed {seed}")},
        }

    monkeypatch.setattr(command, "runs", runs)
    return CliRunner().invoke(command.main, arguments)


def test_all_parts_are_run_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(monkeypatch, f"--seed={SEED}")
    assert result.exit_code == 0
    for line in (f"SEED={SEED}", "17 boundaries", "5000 model runs", f"200 kills, seed {SEED}", "all promises kept"):
        assert line in result.output


def test_a_broken_promise_ends_in_exit_code_1_when_all_parts_have_run(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(monkeypatch, model_breaks="a server was added twice")
    assert result.exit_code == 1
    for line in ("BROKEN: a server was added twice", "200 kills", "PROMISES BROKEN"):
        assert line in result.output


def test_one_part_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    result = invoke(monkeypatch, "--only=kills", "--kills=3", model_breaks="not run")
    assert result.exit_code == 0
    assert "3 kills" in result.output
    assert "boundaries" not in result.output


_FAILING = """
from hypothesis import given, strategies as st

@given(st.integers())
def test_one_wipe(wipes: int) -> None:
    assert wipes < 1000
"""


def test_the_kills_are_made_with_one_replica_and_a_share_of_them_with_two() -> None:
    parts = command.runs(SEED, 200)
    assert tuple(parts) == command.PARTS
    assert list(parts["kills"]) == ["kills", "kills, two replicas"]


def test_model_runs_are_counted_by_what_pytest_says() -> None:
    report = model.run(SEED, print, "tests/property/test_core_plans.py", "-k", "elsewhere", profile="ci")
    report.check()
    assert report.runs >= 20
    assert report.lines() == [f"model runs           {report.runs} (SEED={SEED}), all promises kept"]


def test_a_search_that_failed_tells_the_steps_that_broke_a_promise(tmp_path: Path) -> None:
    failing = tmp_path / "test_failing.py"
    failing.write_text(_FAILING)
    report = model.run(SEED, print, str(failing), profile="ci")
    assert report.exit_code == 1
    assert "Failing test case: test_one_wipe(" in report.output
    assert "Typical runtimes" not in report.output
    assert report.runs > 0


@pytest.mark.parametrize(
    ("report", "says"),
    [
        (ModelReport(SEED, 4000, 1, "Falsifying example"), "pytest ended with 1:\nFalsifying example"),
        (ModelReport(SEED, 0, 0, "no tests ran"), "pytest told of no runs"),
    ],
)
def test_a_search_that_failed_or_did_not_happen_fails(report: ModelReport, says: str) -> None:
    with pytest.raises(AssertionError, match=f"SEED={SEED}") as caught:
        report.check()
    assert says in str(caught.value)
