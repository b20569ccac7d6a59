"""Rules of the repository that no linter holds."""

import ast
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parent.parent.parent.parent
MAX_LINES: Final = 400
_REGISTRY: Final = re.compile(r"pypi\.org|pythonhosted\.org|(?:proxy|sum)\.golang\.org|docker\.io|registry\.npmjs")
_ELSEWHERE: Final = re.compile(
    r"\b[Dd]ossier\b|\bfact page\b|\b[Dd]esign(?:\.md| section| page)\b|\b[Ii]ssue \d|\.\./shared\b|\b[A-F]\.[1-9]\b"
    r"|\bsections? \d"
)
_MACHINE_PATH: Final = re.compile(r"/(?:work|root|home|Users)/[\w.]")


def _files() -> list[Path]:
    """What is, or would be, committed."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return [ROOT / name for name in sorted(names) if (ROOT / name).is_file()]


def _lines_with(pattern: re.Pattern[str]) -> list[str]:
    """The lines of all text files in which the pattern is found."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for path in _files()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]


def test_the_source_root_is_no_package() -> None:
    """`operator` is a module of Python itself; as a package ours would hide it."""
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_no_file_names_a_registry() -> None:
    """Where packages come from is the business of the machine that installs them: mirrors are common."""
    assert _lines_with(_REGISTRY) == []


def test_no_file_names_a_path_of_somebodys_machine() -> None:
    assert _lines_with(_MACHINE_PATH) == []


def test_no_file_refers_to_a_document_that_is_not_in_the_repository() -> None:
    """A section of a page that the reader does not have explains nothing: docs/cloud-facts.md has what it said."""
    assert [line for line in _lines_with(_ELSEWHERE) if not line.startswith("tests/unit/house/test_house.py:")] == []


@pytest.mark.parametrize("pattern", [_REGISTRY, _MACHINE_PATH, _ELSEWHERE])
def test_the_patterns_find_what_they_are_for(pattern: re.Pattern[str]) -> None:
    bad = [
        "https://pypi" + ".org/simple",
        "docker" + ".io/library/python",
        "/" + "home/me/project",
        "/" + "root/.cache",
        "(dos" + "sier 9.2)",
        "as rule B" + ".3 says",
    ]
    assert len([line for line in bad if pattern.search(line)]) == 2


def test_no_module_is_longer_than_two_modules_should_be() -> None:
    long = [p.relative_to(ROOT) for p in _files() if p.suffix == ".py" and p.read_text().count("\n") > MAX_LINES]
    assert long == []


def test_no_two_test_modules_of_folders_that_are_no_packages_have_one_name() -> None:
    """pytest imports them by their names alone: the second one is an error as soon as one process has both."""
    files = [p for p in _files() if p.name.startswith("test_") and not (p.parent / "__init__.py").exists()]
    names = Counter(p.name for p in files)
    assert [name for name, number in names.items() if number > 1] == []


def test_no_two_public_classes_of_the_operator_have_one_name() -> None:
    names = Counter(
        node.name
        for path in (ROOT / "operator" / "nodepool_membership").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    )
    assert [name for name, number in names.items() if number > 1] == []
