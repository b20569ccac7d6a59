"""What is shipped in deploy/ names only what the code has: annotations, options, the Lease.

Not for: metrics and pages in rules and dashboard (`tests/monitoring`), fields in scripts (`tests/gitops`), or whether
the objects work (`tests/cluster`).
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click
import pytest
import yaml

from nodepool_membership.api import names
from nodepool_membership.cli import cli
from nodepool_membership.runtime.ops.options import Options

ROOT: Final = Path(__file__).parent.parent.parent.parent
DEPLOY: Final = ROOT / "deploy"
FILES: Final = [
    path
    for path in sorted(DEPLOY.rglob("*"))
    # Links lead to other files of these; `make pages` writes the fixtures.
    if path.is_file() and not path.is_symlink() and "testdata" not in path.parts
]
DOCS: Final = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
CHART: Final = DEPLOY / "charts" / "nodepool-membership"
COMPONENTS: Final = {path.name for path in (DEPLOY / "components").iterdir()}
EXAMPLES: Final = {f"{names.GROUP}/allow-removal", f"{names.GROUP}/cluster-id"}
"""Labels that the samples of admission policies make up."""

_OURS: Final = re.compile(rf"{re.escape(names.GROUP)}/[a-z0-9-]+")
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_COMMAND: Final = re.compile(r"\b(?:kubectl|helm|docker|kustomize) [^`]*")


def _rules() -> dict[str, Any]:
    rule: dict[str, Any] = yaml.safe_load((DEPLOY / "components" / "monitoring" / "prometheus-rule.yaml").read_text())
    return rule["spec"]  # type: ignore[no-any-return]


def _has(values: object, path: Sequence[str]) -> bool:
    """Whether there is such a value; an empty table takes any name below it."""
    if not path or values == {} or values is None:
        return True
    return isinstance(values, dict) and path[0] in values and _has(values[path[0]], path[1:])


def _name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def _constants() -> set[str]:
    """Every name in `api.names`."""
    values = [v for group in vars(names).values() for v in (group if isinstance(group, tuple) else (group,))]
    return {value for value in values if isinstance(value, str)}


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_annotations_and_labels_that_are_named_exist(path: Path) -> None:
    assert sorted(set(_OURS.findall(path.read_text())) - _constants() - EXAMPLES) == []


@pytest.mark.parametrize("path", FILES, ids=_name)
def test_options_that_are_given_exist(path: Path) -> None:
    assert isinstance(cli, click.Group)
    known = {name for command in cli.commands.values() for p in command.params for name in (*p.opts, *p.secondary_opts)}
    text = _COMMAND.sub("", path.read_text())
    assert sorted(set(_OPTION.findall(text)) - known) == []


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_components_and_alerts_that_a_document_names_exist(path: Path) -> None:
    text = path.read_text()
    alerts = {rule["alert"] for group in _rules()["groups"] for rule in group["rules"]}
    assert set(re.findall(r"\bNodePoolMembership[A-Z]\w+", text)) <= alerts
    assert set(re.findall(r"\bcomponents/([a-z][a-z-]+)", text)) <= COMPONENTS


def test_the_page_of_installers_lists_every_component() -> None:
    table = (ROOT / "docs" / "install.md").read_text().partition("| component |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([a-z-]+)` \|", table, re.MULTILINE)) == COMPONENTS


@pytest.mark.parametrize("path", DOCS, ids=_name)
def test_values_of_the_chart_that_a_document_sets_exist(path: Path) -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    named = re.findall(r"(?:--set '?|Helm: `|`)([a-z]\w*(?:\.\w+)+|imagePullSecrets)=", path.read_text())
    assert [name for name in named if not _has(values, name.split("."))] == []


def test_what_a_template_reads_is_a_value() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    read = {
        (str(path.relative_to(CHART)), name)
        for path in sorted((CHART / "templates").rglob("*.*"))
        for name in re.findall(r"\.Values\.(\w+(?:\.\w+)*)", path.read_text())
    }
    assert [(file, name) for file, name in sorted(read) if not _has(values, name.split("."))] == []


def test_commands_for_the_log_reach_all_replicas_and_all_lines() -> None:
    """With a selector kubectl shows ten lines of each pod, unless it is told otherwise."""
    pod = yaml.safe_load((DEPLOY / "base" / "deployment.yaml").read_text())["spec"]["template"]["metadata"]
    texts = {path: path.read_text() for path in (*(ROOT / "docs").rglob("*.md"), ROOT / "README.md")}
    commands = {
        (str(path.relative_to(ROOT)), command)
        for path, text in texts.items()
        for command in re.findall(r"kubectl [^|`\n]*\blogs\b[^|`\n]*", text)
    }
    assert commands
    selected = {f"--selector={name}={value}" for name, value in pod["labels"].items()}
    assert [c for c in sorted(commands) if not (selected & set(c[1].split()) and "--tail=-1" in c[1])] == []


def test_the_role_of_the_lease_is_for_the_one_that_is_made() -> None:
    account = yaml.safe_load((DEPLOY / "base" / "service-account.yaml").read_text())["metadata"]["name"]
    role, _ = yaml.safe_load_all((DEPLOY / "base" / "lease-role.yaml").read_text())
    (held,) = (rule["resourceNames"] for rule in role["rules"] if "resourceNames" in rule)
    assert held == [account], "in a pod the Lease has the name of the service account"
    assert [Options().lease_name] == held, "deploy/base/lease-role.yaml: another Lease is made where nothing is said"
