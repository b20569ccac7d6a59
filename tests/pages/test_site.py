"""Every page stands in the site's menu, and every workflow calls steps that exist."""

import os
import re
import subprocess
from pathlib import Path
from typing import Final

import markdown  # type: ignore[import-untyped]
import pytest
import yaml

from nodepool_membership import __version__
from pages.all import ROOT

_PYTHON_TAG: Final = re.compile(r"!!python/name:\S+")
_PARAGRAPHS: Final = re.compile(r"<p>(.*?)</p>", re.DOTALL)
PAGES: Final = sorted((ROOT / "docs").rglob("*.md"))
WORKFLOWS: Final = [*sorted((ROOT / ".github" / "workflows").iterdir()), ROOT / ".gitlab-ci.yml"]


def _pages(nav: object) -> set[str]:
    if isinstance(nav, str):
        return {nav}
    assert isinstance(nav, (list, dict))
    return {page for part in (nav if isinstance(nav, list) else nav.values()) for page in _pages(part)}


def _html(page: Path) -> str:
    """As the site has it."""
    extensions = ["tables", "admonition", "toc", "pymdownx.superfences"]
    made: str = markdown.markdown(page.read_text(), extensions=extensions)
    return made


def test_every_page_is_in_the_menu() -> None:
    """But for the reasons, which their index lists."""
    nav = yaml.safe_load(_PYTHON_TAG.sub("", (ROOT / "mkdocs.yml").read_text()))["nav"]
    docs = ROOT / "docs"
    pages = {str(path.relative_to(docs)) for path in docs.rglob("*.md") if path.parent.name != "reasons"}
    assert _pages(nav) == pages | {"reasons/README.md"}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_step_of_a_list_runs_into_the_one_before_it(page: Path) -> None:
    """After a paragraph or a block that is part of a step, the next step needs an empty line, or is a part, too."""
    assert [line for line in _PARAGRAPHS.findall(_html(page)) if re.search(r"\n(?:\d+\.|[-*]) ", line)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_list_in_a_list_is_one(page: Path) -> None:
    """GitHub takes two spaces for it, the site four."""
    prose = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    assert re.findall(r"^ {1,3}(?:[-*]|\d+\.) .*$", prose, re.MULTILINE) == []


def test_a_step_that_runs_into_the_one_before_it_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("1. One\n\n    more of it\n2. Two\n")
    (merged,) = _PARAGRAPHS.findall(_html(page))[-1:]
    assert merged == "more of it\n2. Two"


def test_the_alerts_link_the_site() -> None:
    url = yaml.safe_load(_PYTHON_TAG.sub("", (ROOT / "mkdocs.yml").read_text()))["site_url"]
    rules = (ROOT / "deploy" / "components" / "monitoring" / "prometheus-rule.yaml").read_text()
    links = re.findall(r"runbook_url: \"?(\S+)", rules)
    assert links
    assert [link for link in links if not link.startswith(url)] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_steps_that_exist(workflow: Path) -> None:
    steps = set(re.findall(r"^(\w+)\(\) \{", (ROOT / ".ci" / "release").read_text(), re.MULTILINE))
    called = set(re.findall(r"\.ci/release (\w+)", workflow.read_text()))
    assert called <= steps
    scripts = set(re.findall(r"\.ci/\w+", workflow.read_text()))
    assert [script for script in scripts if not os.access(ROOT / script, os.X_OK)] == []


def _check(tag: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([ROOT / ".ci" / "release", "check", tag], capture_output=True, text=True, check=False)


def test_a_release_is_of_one_version() -> None:
    assert _check(f"v{__version__}").returncode == 0
    other = _check("v999.0.0")
    assert other.returncode == 1
    assert other.stderr == f"tag v999.0.0 is not v{__version__} of pyproject.toml\n"
