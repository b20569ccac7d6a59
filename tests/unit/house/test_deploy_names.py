"""What is shipped in deploy/ names only what the code has: annotations, options, the Lease.

Not for: metrics and pages in rules and dashboard (`tests/monitoring`), fields in scripts (`tests/gitops`), or whether
the objects work (`tests/cluster`).
"""

import re
from pathlib import Path
from typing import Final

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
EXAMPLES: Final = {f"{names.GROUP}/allow-removal", f"{names.GROUP}/cluster-id"}
"""Labels that the samples of admission policies make up."""

_OURS: Final = re.compile(rf"{re.escape(names.GROUP)}/[a-z0-9-]+")
_OPTION: Final = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
_COMMAND: Final = re.compile(r"\b(?:kubectl|helm|docker|kustomize) [^`]*")


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
