"""The table of versions tells of what passed, by module, and of what did not."""

from pathlib import Path

from controlplane import pins, tried

VERSION = str(pins.kubernetes_version())


def rows(file: Path) -> list[str]:
    for name in ("one", "two"):
        (file.parent / f"test_{name}.py").touch()
    return [line for line in tried.page(file, file.parent).splitlines() if line.startswith(f"| {VERSION} ")]


def test_a_run_of_some_modules_keeps_what_is_known_of_the_others(tmp_path: Path) -> None:
    file = tmp_path / "tried.json"
    tried.note({"test_one": 3, "test_two": 4}, [], file)
    tried.note({"test_one": 5}, [], file)
    (row,) = rows(file)
    assert row.startswith(f"| {VERSION} | 9 passed | all 2 | ")


def test_a_module_that_failed_is_named_as_not_passed(tmp_path: Path) -> None:
    file = tmp_path / "tried.json"
    tried.note({"test_one": 3, "test_two": 4}, [], file)
    tried.note({"test_one": 2}, ["test_one"], file)
    (row,) = rows(file)
    assert row.startswith(f"| {VERSION} | 4 passed | 1 of 2, not `test_one` | ")
