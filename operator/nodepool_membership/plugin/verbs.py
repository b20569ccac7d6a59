"""The verbs about a membership in a cluster: their options, what is printed, how they end.

Not for: what they find out or change. That is imported when it is needed: `--help` answers at once.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

import click

from nodepool_membership.plugin.output import coloured, columns, output, show
from nodepool_membership.plugin.words import reach
from nodepool_membership.redaction import redact

if TYPE_CHECKING:
    from pathlib import Path

    from nodepool_membership.api.membership import Json
    from nodepool_membership.cce.services import ServiceBook
    from nodepool_membership.plugin.changes import Change
    from nodepool_membership.plugin.cluster import Cluster
    from nodepool_membership.plugin.planning import Planned

T = TypeVar("T")
_COLOURS: Final = {
    **dict.fromkeys(("Failed", "Halted", "Unreadable"), "red"),
    **dict.fromkeys(("Ready", "Joined"), "green"),
    **dict.fromkeys(("Suspended", "Paused", "Recovering", "Retrying", "Held", "Unseen", "Asking"), "yellow"),
}


class _WrongWordsError(click.UsageError):
    exit_code = 1


class Verb(click.Command):
    """A command that ends with 1 where its words are wrong: 2 has a meaning of its own (`plan`)."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: object
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.UsageError as error:
            raise _WrongWordsError(error.format_message(), error.ctx) from None


def _where(function: Callable[..., None]) -> Callable[..., None]:
    for option in (
        click.option("--context", metavar="NAME", help="A context of the kubeconfig; else its current one."),
        click.option("-n", "--namespace", metavar="NAME", help="The membership's namespace; else that of the context."),
        click.argument("name", metavar="NAME"),
    ):
        function = option(function)
    return function


def _with_cluster(namespace: str | None, context: str | None, work: Callable[["Cluster"], Awaitable[T]]) -> T:
    """Do the work over one connection; what cannot be done is one line."""
    from nodepool_membership.plugin.changes import UselessError
    from nodepool_membership.plugin.cluster import UnusableError, connect

    async def run() -> T:
        async with connect(namespace, context) as cluster:
            return await work(cluster)

    try:
        return asyncio.run(run())
    except (UnusableError, UselessError) as error:
        raise click.ClickException(redact(str(error))) from None


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@click.command(cls=Verb)
@_where
@output
def explain(name: str, namespace: str | None, context: str | None, form: str) -> None:
    """Tell what a membership is doing, since when, what it waits for, what was wiped, and what to type next."""
    from nodepool_membership.plugin import explain as explaining

    async def work(cluster: "Cluster") -> explaining.Explanation:
        found = await cluster.read(name)
        return explaining.explain(found, _now(), cluster.place.command, (await cluster.namespace_state()).paused)

    found = _with_cluster(namespace, context, work)
    if form != "table":
        show(explaining.document(found), form)
        return
    for title, text in explaining.lines(found, _now()):
        colour = _COLOURS.get(found.doing) if title == "Doing" else None
        click.echo(f"{title + ':':<11}{coloured(text, colour)}")


@click.command(cls=Verb)
@_where
@click.argument("server_ids", nargs=-1, metavar="[SERVER]...")
@output
def servers(name: str, server_ids: tuple[str, ...], namespace: str | None, context: str | None, form: str) -> None:
    """List the servers of a membership, or some of them: who joined, who waits and until when, who failed and why."""
    from nodepool_membership.api.membership import UnreadableStatus
    from nodepool_membership.plugin import servers as listing

    found = _with_cluster(namespace, context, lambda cluster: cluster.read(name))
    if isinstance(found, UnreadableStatus):
        raise click.ClickException(f"the status of {name} cannot be understood: {found.problem}")
    rows = list(listing.rows(found, server_ids))
    if form != "table":
        show([row.document() for row in rows], form)
        return
    title, *lines = columns(listing.TITLES, [row.cells() for row in rows])
    click.echo(title)
    for row, line in zip(rows, lines, strict=True):
        click.echo(coloured(line.rstrip(), _COLOURS.get(row.where)))


def _change(
    name: str,
    namespace: str | None,
    context: str | None,
    decide: Callable[[Mapping[str, "Json"]], "Change"],
    *,
    yes: bool = False,
) -> None:
    async def work(cluster: "Cluster") -> tuple[str, "Change"]:
        change = decide(json.loads(await cluster.fetch(name)))
        if change.asks and change.patch is not None:
            _ask(change.asks, yes=yes)
        if change.patch is not None:
            await cluster.patch(name, change.patch)
        return f"{cluster.place.namespace}/{name}", change

    named, change = _with_cluster(namespace, context, work)
    click.echo(f"{named} {change.done}")
    for note in change.notes:
        click.echo(f"note: {note}", err=True)


@click.command(cls=Verb)
@_where
def suspend(name: str, namespace: str | None, context: str | None) -> None:
    """Stop all calls of a membership (spec.suspend); calls under way are followed to their end."""
    from nodepool_membership.plugin import changes

    _change(name, namespace, context, changes.suspend)


@click.command(cls=Verb)
@_where
def resume(name: str, namespace: str | None, context: str | None) -> None:
    """End a suspension: servers that are to be added are WIPED."""
    from nodepool_membership.plugin import changes

    _change(name, namespace, context, changes.resume)


@click.command(cls=Verb)
@_where
def reconcile(name: str, namespace: str | None, context: str | None) -> None:
    """Have the operator look at a membership now; ends waits."""
    from nodepool_membership.plugin import changes

    _change(name, namespace, context, lambda found: changes.reconcile(found, _token()))


@click.command(cls=Verb)
@_where
@click.option(
    "--only",
    multiple=True,
    metavar="REASON|SERVER",
    help="Reset only servers that failed for this reason, or this server; may be repeated.",
)
def reset(name: str, namespace: str | None, context: str | None, only: tuple[str, ...]) -> None:
    """Give failed servers their attempts back and end a halt and waits: servers are added again, which WIPES them."""
    from nodepool_membership.plugin import changes

    _change(name, namespace, context, lambda found: changes.reset(found, _token(), only))


def _ask(what: str, *, yes: bool) -> None:
    """End here unless a person says yes, by an option or on a terminal."""
    click.echo(what, err=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.ClickException("nobody was asked, since this is no terminal: add --yes")
    click.confirm("approve it?", abort=True, err=True)


@click.command(cls=Verb)
@_where
@click.option("--plan", "wanted", metavar="ID", help="The id of the plan that was looked at; another one is refused.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def approve(name: str, namespace: str | None, context: str | None, wanted: str | None, *, yes: bool) -> None:
    """Say yes to the plan of a membership that waits for it (spec.approval: Manual): its servers are WIPED then."""
    from nodepool_membership.plugin import changes

    _change(name, namespace, context, lambda found: changes.approve(found, wanted), yes=yes)


@click.command(cls=Verb)
@_where
@reach
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="By the lists of all namespaces, not of one.")
@output
def plan(  # noqa: PLR0913 - click gives one argument an option
    name: str,
    namespace: str | None,
    context: str | None,
    allow_endpoints: tuple[str, ...],
    services: "ServiceBook | None",
    ca_file: "Path | None",
    form: str,
    *,
    everywhere: bool,
) -> None:
    """Tell which servers would be added (and WIPED), adopted and removed, and what is in the way. Changes nothing.

    Looks at the cloud as the operator does, with the credentials of the membership, which you must be able to read.
    Ends with 0 if no server would be wiped or removed, with 2 if one would be, and with 1 if that cannot be told.
    """
    from nodepool_membership.plugin import plan as planned
    from nodepool_membership.plugin.planning import Reach
    from nodepool_membership.plugin.planning import plan as look

    where = Reach(allow_endpoints, ca_file=ca_file) if services is None else Reach(allow_endpoints, services, ca_file)

    async def work(cluster: "Cluster") -> tuple[str, "Planned"]:
        return f"{cluster.place.namespace}/{name}", await look(cluster, name, where, everywhere=everywhere)

    named, found = _with_cluster(namespace, context, work)
    if form == "table":
        for line in planned.lines(named, found.preview, found.notes):
            click.echo(coloured(line.text, line.colour))
    else:
        show(planned.document(named, found.preview, found.notes), form)
    if planned.changes(found.preview):
        raise SystemExit(2)


def _token() -> str:
    """Unlike every earlier one."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


VERBS: Final[tuple[click.Command, ...]] = (explain, plan, servers, approve, suspend, resume, reconcile, reset)
