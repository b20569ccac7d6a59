"""Running tests against a copy of the program from which one rule was taken out.

Not for: which rules (`rules`).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent.parent
_COPIED: Final = ("operator", "tests", "crds", "pyproject.toml")
_PACKAGE: Final = "operator/nodepool_membership"
_SECONDS: Final = 3600.0
_FAILED: Final = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_TESTS_FAILED: Final = 1
"""pytest's exit code when tests ran and some failed."""


class MutantError(Exception):
    """A mutant that cannot be made, or that no test noticed."""


@dataclass(frozen=True, slots=True)
class Edit:
    """A piece of a module's text, which must be there exactly once, and what stands there instead."""

    module: str
    old: str
    new: str

    def apply(self, root: Path) -> None:
        """Change the copy below `root`.

        Raises:
            MutantError: the piece is not there, or more than once: the code has changed, the mutant must follow.
        """
        path = root / _PACKAGE / self.module
        text = path.read_text()
        if text.count(self.old) != 1:
            raise MutantError(f"{self.module} has {text.count(self.old)} times, not once: {self.old}")
        path.write_text(text.replace(self.old, self.new))


@dataclass(frozen=True, slots=True)
class Mutant:
    """The program without a rule, and the tests of which at least one must fail on it."""

    rule: str
    without: str
    """What is taken out, as the rest of a sentence."""
    edits: tuple[Edit, ...]
    tests: tuple[str, ...]

    def killer(self) -> str:
        """The test that fails on a copy of the program without the rule.

        Raises:
            MutantError: none did, or they could not be run.
        """
        with tempfile.TemporaryDirectory(prefix="mutant-") as name:
            copy = Path(name)
            for part in _COPIED:
                source = ROOT / part
                if source.is_dir():
                    shutil.copytree(source, copy / part, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copy(source, copy / part)
            for edit in self.edits:
                edit.apply(copy)
            return self._failing_test(copy)

    def _failing_test(self, copy: Path) -> str:
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *self.tests]
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join(str(copy / part) for part in ("operator", "tests")),
            "HYPOTHESIS_PROFILE": "mutants",
        }
        try:
            done = subprocess.run(
                command, cwd=copy, env=environment, capture_output=True, text=True, timeout=_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            raise MutantError(f"{self.rule}: its tests took more than {_SECONDS:.0f} s") from None
        found = _FAILED.search(done.stdout)
        if done.returncode != _TESTS_FAILED or found is None:
            tail = "\n".join(done.stdout.splitlines()[-20:])
            raise MutantError(
                f"{self.rule}: no test failed without {self.without} (exit code {done.returncode})\n{tail}"
            )
        return found[1]
