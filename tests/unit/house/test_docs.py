"""The documents name only what exists: reasons, links, modules, tests, options, fields, metrics, messages of the code.

Not for: whether what they say is true. What a document puts into a code span is checked; prose is not.
"""

import ast
import importlib
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Final

import click
import pytest
import yaml

from nodepool_membership.api.reasons import EventReason, FailureReason, FindingReason, Reason
from nodepool_membership.cli import cli
from nodepool_membership.core.observed.observation import BROKEN
from nodepool_membership.runtime.ops.metrics import Metrics

ROOT: Final = Path(__file__).parent.parent.parent.parent
SOURCES: Final = ROOT / "operator" / "nodepool_membership"
REASONS: Final = ROOT / "docs" / "reasons"
DOCS: Final = sorted([*ROOT.glob("*.md"), ROOT / "tests" / "README.md", *(ROOT / "docs").rglob("*.md")])

HEALTHY: Final = {
    Reason.PENDING,
    Reason.PROGRESSING,
    Reason.PROGRESSING_WITH_RETRY,
    Reason.SUCCEEDED,
    Reason.SUSPENDED,
    Reason.DELETING,
}
"""They share the page `healthy.md`."""

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_SPAN: Final = re.compile(r"`([^`]+)`")
_LINK: Final = re.compile(r"\]\(([^)\s]+)\)")
_PATH: Final = re.compile(r"(?:tests|operator|docs|crds|deploy|api|core|cce|kube|runtime)(?:/[\w.-]+)*/?")
_MODULE: Final = re.compile(r"(?:api|core|cce|kube|runtime)(?:\.\w+)+")
_TEST: Final = re.compile(r"(tests/[\w/]+\.py)?::(\w+)")
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]*")
_FIELD: Final = re.compile(r"(?<![\w/])(spec|status)((?:\.[A-Za-z]+)+)")
_METRIC: Final = re.compile(r"(nodepool_membership_[a-z_]+?)(?:_total|_count|_sum|_bucket|_info)?(?![a-z_])")
_PLACEHOLDER: Final = re.compile(r"'?<[^<>]*>'?|…|[;,] ")
MIN_FRAGMENT: Final = 3


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _spans(text: str) -> Iterator[str]:
    """Code spans outside of fenced blocks, each on one line."""
    for found in _SPAN.findall(_FENCE.sub("", text)):
        yield " ".join(found.split())


def _fences(text: str, *languages: str) -> list[str]:
    return [body for language, body in _FENCE.findall(text) if language in languages]


def _slug(heading: str) -> str:
    """The anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@cache
def _anchors(path: Path) -> frozenset[str]:
    text = _FENCE.sub("", path.read_text())
    return frozenset(_slug(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE))


@cache
def _literals() -> str:
    """Every piece of text between two placeholders of the operator's strings, one a line."""
    trees = [ast.parse(path.read_text()) for path in sorted(SOURCES.rglob("*.py"))]
    found = [n.value for t in trees for n in ast.walk(t) if isinstance(n, ast.Constant) and isinstance(n.value, str)]
    return "\n".join(" ".join(text.split()) for text in found)


@cache
def _schema(part: str) -> dict[str, object]:
    definition = yaml.safe_load((ROOT / "crds" / "nodepoolmemberships.yaml").read_text())
    schema: dict[str, object] = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part]
    return schema


def _has_field(schema: dict[str, object], path: list[str]) -> bool:
    while isinstance(items := schema.get("items"), dict):
        schema = items
    if not path:
        return True
    properties = schema.get("properties")
    child = properties.get(path[0]) if isinstance(properties, dict) else None
    return isinstance(child, dict) and _has_field(child, path[1:])


def _resolves(dotted: str) -> bool:
    """Whether `core.state.edits.is_lost` is a package or module of ours, or an attribute of one."""
    names = dotted.split(".")
    if SOURCES.joinpath(*names).is_dir():
        return True
    for length in range(len(names), 1, -1):
        if (SOURCES.joinpath(*names[:length])).with_suffix(".py").is_file():
            found: ModuleType | object = importlib.import_module(".".join(["nodepool_membership", *names[:length]]))
            for name in names[length:]:
                if not hasattr(found, name):
                    return False
                found = getattr(found, name)
            return True
    return False


@pytest.mark.parametrize("reason", sorted({*Reason, *FailureReason} - HEALTHY))
def test_every_reason_has_a_page(reason: Reason | FailureReason) -> None:
    page = REASONS / f"{reason.value}.md"
    assert page.is_file(), f"write docs/reasons/{page.name}"
    text = page.read_text()
    assert text.startswith(f"# {reason.value}\n")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings == ["How to see it", "What to do", "Meanwhile"]
    assert "\n**Wiped?** " in text
    assert f"]({page.name})" in (REASONS / "README.md").read_text(), "the index does not link it"


def test_no_page_is_without_a_reason() -> None:
    known = {str(reason) for reason in (*Reason, *FailureReason, *EventReason)}
    pages = {page.stem for page in REASONS.iterdir()}
    assert pages - known == {"README", "healthy"}, "a finding has no page, only a row in docs/reasons/README.md"


def test_each_finding_has_a_row() -> None:
    rows = (REASONS / "README.md").read_text().partition("\n## Findings\n")[2].partition("\n## ")[0]
    assert set(re.findall(r"^\| (\w+) \|", rows, re.MULTILINE)) - {"reason"} == {
        str(reason) for reason in FindingReason
    }


def test_what_is_healthy_stands_on_the_shared_page() -> None:
    text = (REASONS / "healthy.md").read_text()
    assert [reason for reason in sorted(HEALTHY) if f"| {reason.value} |" not in text] == []


def test_every_rule_has_a_section() -> None:
    text = (ROOT / "docs" / "rules.md").read_text()
    assert re.findall(r"^### P(\d+) \w", text, re.MULTILINE) == [str(number) for number in range(1, 30)]
    sections = re.split(r"^### ", text, flags=re.MULTILINE)[1:]
    parts = ("- **Rule.** ", "- **Without it.** ", "\n```text\n", "- **Kept in** `", "- **Tests** `tests/")
    assert [f"{s[:3]} {part}" for s in sections for part in parts if part not in s] == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_links_lead_somewhere(path: Path) -> None:
    bad = []
    for link in _LINK.findall(_FENCE.sub("", path.read_text())):
        if link.startswith(("https://", "http://")):
            continue
        target, _, anchor = link.partition("#")
        there = (path.parent / target).resolve() if target else path
        if not there.is_relative_to(ROOT) or not there.exists() or (anchor and anchor not in _anchors(there)):
            bad.append(link)
    assert bad == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_files_and_modules_that_are_named_exist(path: Path) -> None:
    spans = list(_spans(path.read_text()))
    paths = [span.partition("::")[0] for span in spans]
    gone = [p for p in paths if _PATH.fullmatch(p) and "/" in p and not ((ROOT / p).exists() or (SOURCES / p).exists())]
    gone += [span for span in spans if _MODULE.fullmatch(span) and not _resolves(span)]
    assert gone == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_tests_that_are_named_exist(path: Path) -> None:
    """`file.py::test` names the file, `::test` after it means the same file."""
    file, gone = "", []
    for span in _spans(path.read_text()):
        found = _TEST.fullmatch(span)
        if found is None:
            continue
        file = found[1] or file
        if not re.search(rf"^(?:async )?def {found[2]}\(", (ROOT / file).read_text(), re.MULTILINE):
            gone.append(f"{file}::{found[2]}")
    assert gone == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_options_that_are_named_exist(path: Path) -> None:
    """A span that begins with an option, or with the operator's command, is about the operator."""
    assert isinstance(cli, click.Group)
    params = [p for command in (cli, *cli.commands.values()) for p in command.params]
    known = {name for p in params for name in (*p.opts, *p.secondary_opts)}
    known |= {"--help", "--version"}
    ours = [span for span in _spans(path.read_text()) if span.startswith(("--", "nodepool-membership "))]
    assert [option for span in ours for option in _OPTION.findall(span) if option not in known] == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_fields_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    code = [*_spans(text), *_fences(text, "console", "text")]
    named = {found for part in code for found in _FIELD.findall(part)}
    unknown = [
        f"{top}{path}" for top, path in sorted(named) if not _has_field(_schema(top), path.strip(".").split("."))
    ]
    assert unknown == []


def test_metrics_that_are_named_exist() -> None:
    metrics = Metrics()
    metrics.watch_leadership(lambda: True)
    metrics.watch_queue(lambda: 0.0, lambda: 0.0, lambda: 0.0)
    named = [(path, name) for path in DOCS for span in _spans(path.read_text()) for name in _METRIC.findall(span)]
    assert named
    known = {family.name for family in metrics.registry.collect()}
    assert sorted({f"{_name(path)}: {name}" for path, name in named if name not in known}) == []


def test_the_phases_that_do_not_pass_are_on_the_pages_about_them() -> None:
    for page in ("MemberNotActive.md", "NodeError.md"):
        text = (REASONS / page).read_text()
        assert [phase for phase in BROKEN if f"`{phase}`" not in text] == []


def test_the_map_of_the_tests_has_every_folder_and_helper() -> None:
    files = subprocess.run(["git", "ls-files", "tests"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    python = [path for path in map(Path, files.split()) if path.suffix == ".py" and (ROOT / path).exists()]
    folders = {f"tests/{path.parts[1]}" for path in python if len(path.parts) > 2}
    helpers = {
        str(path) for path in python if path.parent.name in {"unit", "tests"} and path.name.endswith("_builders.py")
    }
    assert (folders | helpers) - set(_spans((ROOT / "tests" / "README.md").read_text())) == set()


def test_make_targets_that_are_named_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    spans = [span for path in DOCS for span in _spans(path.read_text())]
    named = {name for span in spans for name in re.findall(r"^make ([a-z-]+)", span)}
    assert {"unit", "fmt"} <= named
    assert named - targets == set()


@pytest.mark.parametrize("path", sorted(REASONS.glob("*.md")), ids=_name)
def test_before_every_reset_that_can_be_typed_stands_how_it_is_previewed(path: Path) -> None:
    before, typed, _ = path.read_text().partition("cce.nodepools.dev/reset-requested-at=")
    preview = "### Preview a reset" if path.name == "README.md" else "(README.md#preview-a-reset)"
    assert not typed or preview in before


@pytest.mark.parametrize("path", sorted(REASONS.glob("*.md")), ids=_name)
def test_messages_that_are_quoted_are_the_codes(path: Path) -> None:
    """Blocks of `text` quote messages, `<...>` stands for what varies."""
    fragments = [
        fragment
        for block in _fences(path.read_text(), "text")
        for message in block.split("\n\n")
        for piece in _PLACEHOLDER.split(" ".join(message.split()))
        if len(fragment := piece.strip(" :;,.()")) >= MIN_FRAGMENT
    ]
    assert [fragment for fragment in fragments if fragment not in _literals()] == []


def test_every_image_is_on_the_page_for_an_air_gap() -> None:
    manifests = "".join(path.read_text() for path in (ROOT / "deploy").rglob("*.yaml") if "templates" not in path.parts)
    values = yaml.safe_load((ROOT / "deploy" / "charts" / "nodepool-membership" / "values.yaml").read_text())
    used = set(re.findall(r"^\s*(?:- )?image: (\S+)$", manifests, re.MULTILINE))
    used |= set(re.findall(r"^ARG PYTHON_IMAGE=(\S+)$", (ROOT / "Dockerfile").read_text(), re.MULTILINE))
    rows = re.findall(r"^\| `(\S+)` \|", (ROOT / "docs" / "air-gap.md").read_text(), re.MULTILINE)
    assert set(rows) == used
    assert values["image"]["repository"] in {image.partition(":")[0] for image in used}


def test_every_threat_has_a_test() -> None:
    page = (ROOT / "docs" / "threat-model.md").read_text()
    rows = [line.strip("| ").split(" | ") for line in page.splitlines() if line.startswith("| ")]
    threats = [row for row in rows if row != ["threat", "control", "test"]]
    assert len(threats) > 20
    assert [row[0] for row in threats if len(row) != 3 or "::test_" not in row[2]] == []
