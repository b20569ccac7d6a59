"""Every mutant can still be made from today's code, and a few cheap ones are found out.

Not for: all of them, which takes minutes (`make mutants`).
"""

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from mutants.defects import DEFECTS
from mutants.keys import KEYS
from mutants.rules import FINER, MUTANTS
from mutants.run import ROOT, Edit, Mutant, MutantError
from mutants.sharing import SHARING

ON_THE_MACHINE: Final = {"P1", "P2", "P5", "P6", "P8", "P13", "P15"}
SAMPLE: Final = ("P1", "P22", "P25", "u", "same-version", "begun-after", "sent-once")
ALL: Final = (*MUTANTS, *FINER, *SHARING, *KEYS, *DEFECTS)


@pytest.mark.parametrize("mutant", ALL, ids=[m.rule for m in ALL])
def test_every_mutant_can_be_made(mutant: Mutant, tmp_path: Path) -> None:
    for edit in mutant.edits:
        path = tmp_path / "operator" / "nodepool_membership" / edit.module
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / "operator" / "nodepool_membership" / edit.module, path)
        edit.apply(tmp_path)
        compile(path.read_text(), str(path), "exec")
    for test in mutant.tests:
        file, _, name = test.partition("::")
        assert (ROOT / file).exists()
        assert not name or f"def {name}(" in (ROOT / file).read_text()
    assert mutant.tests


def test_every_defect_that_was_handed_over_has_a_test_that_finds_it() -> None:
    assert "".join(defect.rule for defect in DEFECTS) == "abcdefghijklmnopqrstuvwx"
    assert all("::" in test for defect in DEFECTS for test in defect.tests)


def test_every_rule_that_code_can_hold_has_a_mutant_and_the_model_holds_those_it_can_reach() -> None:
    rules = [mutant.rule for mutant in MUTANTS]
    assert rules == [f"P{n}" for n in range(1, 30)]
    for mutant in MUTANTS:
        if mutant.rule in ON_THE_MACHINE:
            assert mutant.tests[0] == "tests/property/test_core_machine.py"


def test_a_mutant_that_the_code_has_outgrown_is_told_of(tmp_path: Path) -> None:
    module = tmp_path / "operator" / "nodepool_membership" / "a.py"
    module.parent.mkdir(parents=True)
    module.write_text("x = 1\nx = 1\n")
    for old, times in (("y = 1", 0), ("x = 1", 2)):
        with pytest.raises(MutantError, match=re.escape(f"a.py has {times} times, not once: {old}")):
            Edit("a.py", old, "").apply(tmp_path)


def test_a_mutant_that_no_test_notices_is_told_of() -> None:
    same = Edit("core/state/settings.py", "class Settings:", "class Settings:  # the same")
    with pytest.raises(MutantError, match="no test failed"):
        Mutant("P0", "nothing", (same,), ("tests/unit/core/observed/test_core_drift.py",)).killer()


@pytest.mark.parametrize("rule", SAMPLE)
def test_the_tests_notice_when_a_rule_is_taken_out(rule: str) -> None:
    (mutant,) = (m for m in ALL if m.rule == rule)
    assert mutant.killer()
