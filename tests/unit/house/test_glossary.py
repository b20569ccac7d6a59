"""Every name in the documents that starts with a capital is explained: in the glossary, or in the definition.

Not for: whether the explanation is right. Words that begin a sentence, a heading or a cell are not looked at.
"""

import re
from pathlib import Path
from typing import Final

import pytest
import yaml

from nodepool_membership.api.reasons import EventReason, FailureReason, Reason

ROOT: Final = Path(__file__).parent.parent.parent.parent
GLOSSARY: Final = ROOT / "docs" / "glossary.md"
GENERATED: Final = {"api.md", "metrics.md", "error-codes.md", "kubernetes.md"}
PAGES: Final = [
    *sorted(ROOT.glob("*.md")),
    ROOT / "tests" / "README.md",
    *(page for page in sorted((ROOT / "docs").rglob("*.md")) if page.name not in GENERATED and page != GLOSSARY),
]

_NOT_PROSE: Final = re.compile(
    r"^```.*?^```$|`[^`]*`|(?<=\])\([^)]*\)|^    .*$|^#.*$|\[[^\]]*\](?=\()", re.MULTILINE | re.DOTALL
)
_NAME: Final = re.compile(r"(?<=[a-z,;)] )[A-Z][A-Za-z0-9]*[a-z][A-Za-z0-9]*")


def _rows(heading: str) -> list[str]:
    """The first cell of each row below a heading."""
    section = GLOSSARY.read_text().partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return [found.strip() for found in re.findall(r"^\|([^|]+)\|", section, re.MULTILINE)][2:]


def _words(cells: list[str]) -> set[str]:
    return {word for cell in cells for word in re.findall(r"\w+", cell)}


def _enums(schema: object) -> set[str]:
    """Every value that the definition lists."""
    if isinstance(schema, list):
        return {value for item in schema for value in _enums(item)}
    if not isinstance(schema, dict):
        return set()
    own = {str(value) for value in schema.get("enum", ()) if isinstance(schema.get("enum"), list)}
    return own | {value for child in schema.values() for value in _enums(child)}


def names(text: str) -> set[str]:
    """Names in running text: capitalised, and not the first word of a sentence."""
    return set(_NAME.findall(" ".join(_NOT_PROSE.sub("", text).split())))


def known() -> set[str]:
    definition = yaml.safe_load((ROOT / "crds" / "nodepoolmemberships.yaml").read_text())
    alerts = (ROOT / "deploy" / "components" / "monitoring" / "prometheus-rule.yaml").read_text()
    return (
        _words([*_rows("Ours"), *_rows("Names of others"), "NodePoolMembership", "NodePoolMemberships"])
        | {reason.value for kind in (Reason, FailureReason, EventReason) for reason in kind}
        | _enums(definition)
        | set(re.findall(r"alert: (\w+)", alerts))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_name_is_explained(page: Path) -> None:
    assert names(page.read_text()) - known() == set(), "explain it in docs/glossary.md, or say it in common words"


def test_it_sees_a_name_in_a_sentence_and_none_where_one_begins() -> None:
    text = "Adds wait. The operator asks a Frobnicator, or `Code`, see [Page](x.md). Then it goes\non with a\nWidget."
    assert names(text) == {"Frobnicator", "Widget"}


def test_every_term_of_ours_is_used() -> None:
    sources = sorted((ROOT / "operator" / "nodepool_membership").rglob("*.py"))
    used = " ".join(" ".join(path.read_text() for path in (*PAGES, *sources)).split()).lower()
    terms = [term.strip() for cell in _rows("Ours") for term in cell.split(",")]
    assert [term for term in terms if not re.search(rf"\b{term}", used)] == []


def test_terms_stand_in_order_and_once() -> None:
    cells = [cell.lower() for cell in _rows("Ours")]
    assert cells == sorted(set(cells))
