"""The oldest Kubernetes that is needed is the oldest that is pinned, and every place that tells it tells the same.

Not for: which versions passed the tests (`controlplane.tried`), or what the admission policy needs (1.30).
"""

import re
from pathlib import Path
from typing import Final

import pytest

from controlplane import pins

ROOT: Final = Path(__file__).parent.parent.parent.parent
OLDEST: Final = pins.oldest_version()
MINOR: Final = f"{OLDEST.major}.{OLDEST.minor}"

TOLD: Final = {
    "README.md": r"Needs Kubernetes ([\d.]+\d)",
    "crds/nodepoolmemberships.yaml": r"Needs Kubernetes ([\d.]+\d)",
    "deploy/charts/nodepool-membership/Chart.yaml": r'kubeVersion: ">=([\d.]+)\.0-0"',
    "docs/install.md": r"from ([\d.]+\d) with the component",
    "docs/kubernetes.md": r"needs Kubernetes ([\d.]+\d)",
    "docs/upgrade.md": r"Kubernetes itself: ([\d.]+\d)",
}
"""Where it is told, and how."""
RUN: Final = (".github/workflows/versions.yml", "CONTRIBUTING.md", "Makefile", "docs/kubernetes.md")
"""Where its tests are run, or it is told how."""

_ANY: Final = re.compile(r"Kubernetes (?:itself: )?(?:>= ?)?v?1\.(\d+)")


@pytest.mark.parametrize("name", TOLD)
def test_what_is_needed_is_told_as_the_oldest_that_is_pinned(name: str) -> None:
    assert re.findall(TOLD[name], (ROOT / name).read_text()) == [MINOR], name


@pytest.mark.parametrize("name", RUN)
def test_the_tests_of_the_oldest_one_are_run_on_it(name: str) -> None:
    releases = re.findall(r"KUBERNETES=(\d[\d.]*\d)", (ROOT / name).read_text())
    assert set(releases) == {str(OLDEST)}, name


def test_nothing_is_told_for_one_that_is_older() -> None:
    texts = [
        ROOT / "README.md",
        *(p for d in ("docs", "deploy", "crds") for e in ("md", "yaml") for p in (ROOT / d).rglob(f"*.{e}")),
    ]
    older = [
        f"{path.relative_to(ROOT)}: {found.group()}"
        for path in texts
        for found in _ANY.finditer(path.read_text())
        if int(found.group(1)) < OLDEST.minor
    ]
    assert older == []
