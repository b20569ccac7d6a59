"""The model runs: the state machines of `tests/property`, searched with the `thorough` profile in a process of its own.

Not for: the model itself, or how many runs the profile makes of each machine (`tests/conftest.py`).
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_ROOT: Final = Path(__file__).parents[2]
_PROFILE: Final = "thorough"
_RUNS: Final = re.compile(r"- (\d+) passing, (\d+) failing\b")
"""What `--hypothesis-show-statistics` says of each phase of a test."""
_STATISTICS: Final = re.compile(
    r"^=+ Hypothesis Statistics =+$.*?(?=^=+ short test summary|\Z)", re.MULTILINE | re.DOTALL
)
_TAIL_LINES: Final = 120
_LINE: Final = 500

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ModelReport:
    """What the search came to. `runs`: examples that were tried, each a whole life of the model or of a plan."""

    seed: int
    runs: int
    exit_code: int
    output: str
    """The end of what pytest printed, without the statistics: the steps that failed are in it."""

    def lines(self) -> list[str]:
        verdict = "all promises kept" if self.exit_code == 0 else "BROKEN"
        return [f"model runs           {self.runs} (SEED={self.seed}), {verdict}"]

    def check(self) -> None:
        """Raises AssertionError if a test failed, or if there was no run."""
        assert self.exit_code == 0, f"model with SEED={self.seed}: pytest ended with {self.exit_code}:\n{self.output}"
        assert self.runs, f"model with SEED={self.seed}: pytest told of no runs:\n{self.output}"


def counted(output: str) -> int:
    """Runs by the statistics that pytest printed."""
    return sum(int(passing) + int(failing) for passing, failing in _RUNS.findall(output))


def run(seed: int, say: Say, *tests: str, profile: str = _PROFILE) -> ModelReport:
    """Search, from this seed; `tests` are arguments of pytest, all of `tests/property` if there are none."""
    begun = time.monotonic()
    command = [sys.executable, "-m", "pytest", *(tests or ["tests/property"]), "-q", "--timeout=0"]
    options = [f"--hypothesis-seed={seed}", "--hypothesis-show-statistics", "-p", "no:cacheprovider"]
    environment = {**os.environ, "HYPOTHESIS_PROFILE": profile}
    ended = subprocess.run(
        [*command, *options], cwd=_ROOT, env=environment, capture_output=True, text=True, check=False
    )
    runs = counted(ended.stdout)
    say(f"model: {runs} runs in {time.monotonic() - begun:.0f} s")
    told = _STATISTICS.sub("", ended.stdout) + ended.stderr
    tail = [line[:_LINE] for line in told.splitlines()[-_TAIL_LINES:]]
    return ModelReport(seed, runs, ended.returncode, "\n".join(tail))
