"""`kubectl npmem`, whose verbs are those of `nodepool-membership`, too; and the verb that needs no cluster.

Not for: the verbs about a membership in a cluster (`verbs`), or what a verb does. That is imported when it runs:
`--help` answers at once, and the operator's image has none of the packages that only a verb needs.
"""

import os
import sys
from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import ShellComplete

from nodepool_membership import __version__
from nodepool_membership.core.wording import counted
from nodepool_membership.plugin import verbs
from nodepool_membership.plugin.output import coloured, extra, output, show
from nodepool_membership.runtime.ops.logs import escaped

COMPLETE: Final = "_KUBECTL_NPMEM_COMPLETE"
_NO_FILES: Final = ":4"
"""Cobra's word for: complete no file names."""


@click.command(cls=verbs.Verb)
@click.argument("sources", nargs=-1, required=True, metavar="FILE...")
@click.option("--since", metavar="REV", help="A git revision: also tell what changed since, and what that does.")
@output
def lint(sources: Sequence[str], since: str | None, form: str) -> None:
    """Check memberships before they are applied: FILE is a file, a directory, or - for stdin.

    Needs no cluster. Checks the schema and its rules, ids that are listed twice, and with --since which servers an edit
    would add (and wipe), remove or move. Ends with 1 if the API server would refuse one, or two have the same servers.
    """
    with extra():
        from nodepool_membership.plugin.files import lint as checks
        from nodepool_membership.plugin.files import manifests
    try:
        now = manifests.read(sources, sys.stdin.read)
        before = None if since is None else manifests.at_revision(sources, since)
    except manifests.UnreadableError as error:
        raise click.ClickException(escaped(str(error))) from None
    remarks = checks.lint(now, before)
    errors = sum(remark.level is checks.Level.ERROR for remark in remarks)
    if form == "table":
        colours = {checks.Level.ERROR: "red", checks.Level.WARNING: "yellow", checks.Level.NOTE: None}
        for remark in remarks:
            click.echo(coloured(str(remark), colours[remark.level]))
        click.echo(f"{counted(len(now), 'membership')}, {counted(errors, 'error')}", err=True)
    else:
        fields = ("level", "where", "text")
        rows = [{name: str(getattr(r, name)) for name in fields} | {"serverIDs": list(r.server_ids)} for r in remarks]
        show(rows, form)
    if errors:
        raise SystemExit(1)


VERBS: Final[tuple[click.Command, ...]] = (*verbs.VERBS, lint)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name="kubectl npmem")
def npmem() -> None:
    """Look at node pool memberships, and at what they will do to servers."""


for _verb in VERBS:
    npmem.add_command(_verb)


def main() -> None:
    """The entry point of `kubectl-npmem`."""
    # A shell completes the name of the program, which has no blank.
    name = "kubectl-npmem" if COMPLETE in os.environ else "kubectl npmem"
    npmem(prog_name=name, complete_var=COMPLETE)


def complete() -> None:
    """The entry point of `kubectl_complete-npmem`: kubectl asks it what may follow, in Cobra's form."""
    *before, incomplete = sys.argv[1:] or [""]
    asked = ShellComplete(npmem, {}, "kubectl npmem", COMPLETE)
    for found in asked.get_completions(before, incomplete):
        click.echo(f"{found.value}\t{found.help}" if found.help else found.value)
    click.echo(_NO_FILES)


if __name__ == "__main__":
    main()
