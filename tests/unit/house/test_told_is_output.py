"""What people are told is output: no decision reads a condition or a message back.

Not for: what is told (`test_core_conditions`). It reads sources: whoever adds such a read is told where state belongs.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

PACKAGE: Final = Path(__file__).parent.parent.parent.parent / "operator" / "nodepool_membership"
TELLERS: Final = {"core/conditions/verdict.py", "core/conditions/events.py", "runtime/ops/metrics.py"}
"""They keep a transition's time, tell of a change, and show a state: nothing follows from it."""
TOLD: Final = {"conditions", "message"}
REMEDY: Final = "store what has to be remembered in a field of its own (api/status.py)"


def _is_told(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr in TOLD and isinstance(node.ctx, ast.Load)


def reads(source: str) -> Iterator[tuple[int, str]]:
    """Lines that read a condition, or ask what a message says. To hand a message on, or to join it, is to tell."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Attribute(value=ast.Name(id="verdict"), attr="conditions"):
                continue
            case ast.Attribute(attr="conditions", ctx=ast.Load()):
                yield node.lineno, "a condition is read"
            case ast.Compare(left=left, comparators=others) if any(map(_is_told, (left, *others))):
                yield node.lineno, "a message is compared"
            case ast.Subscript(value=value) | ast.Call(func=ast.Attribute(value=value)) if _is_told(value):
                yield node.lineno, "a message is taken apart"
            case ast.Call(func=ast.Attribute(attr="search" | "match" | "fullmatch"), args=args) if any(
                map(_is_told, args)
            ):
                yield node.lineno, "a message is searched"


def test_no_module_decides_from_what_was_told() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {what}; {REMEDY}"
        for room in ("core", "runtime")
        for path in sorted((PACKAGE / room).rglob("*.py"))
        if str(path.relative_to(PACKAGE)) not in TELLERS
        for line, what in reads(path.read_text())
    ]
    assert found == []


@pytest.mark.parametrize(
    "source",
    [
        "halted = any(c.reason == 'TooManyFailures' for c in status.conditions)",
        "again = batch.message == text",
        "adopted = 'adopted: ' in batch.message",
        "adopted = batch.message.startswith('adopted: ')",
        "first = batch.message.split('; ')[0]",
        "first = cause.message[:9]",
        "quota = QUOTA.search(wait.message)",
    ],
)
def test_it_finds_what_the_first_core_did(source: str) -> None:
    assert list(reads(source))


def test_to_tell_is_allowed() -> None:
    assert (
        list(reads("told = verdict.conditions(status, found, 1, now)\ntext = f'{halt.message}; {why.message}'")) == []
    )
