"""The command line: `nodepool-membership run`. Options are checked here, in one line on stderr if they are bad.

Not for: running anything. What `run` needs is imported when it runs, so that `--help` and `--version` answer at once.
"""

import os
import sys
from datetime import timedelta
from pathlib import Path
from typing import Final, Literal, get_args

import click

from nodepool_membership import __version__, redaction
from nodepool_membership.cce.services import PUBLIC_ONLY, ServiceBook
from nodepool_membership.net.proxies import ProxyError, proxies_from
from nodepool_membership.plugin import words
from nodepool_membership.plugin.cli import VERBS
from nodepool_membership.plugin.words import PREFIX, Parsed
from nodepool_membership.runtime.ops.grants import ANY, Grants, read_grants_file
from nodepool_membership.runtime.ops.logs import LogFormat, LogLevel
from nodepool_membership.runtime.ops.options import (
    Bind,
    OidcFile,
    OperatorIdentity,
    Options,
    format_duration,
    parse_bind,
    parse_duration,
    parse_identity_grant,
    parse_namespace,
    parse_object_name,
    parse_operator_identity,
)

_PROGRAM: Final = "nodepool-membership"
_DEFAULTS: Final = Options()


def _duration(lowest: str, highest: str) -> Parsed[timedelta]:
    low, high = parse_duration(lowest), parse_duration(highest)

    def parse(text: str) -> timedelta:
        value = parse_duration(text)
        if not low <= value <= high:
            raise ValueError(f"{text!r} is out of range: between {lowest} and {highest}")
        return value

    return Parsed("DURATION", parse)


@click.group(no_args_is_help=False, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(__version__, prog_name=_PROGRAM)
def cli() -> None:
    """Makes listed servers members of a customized CCE node pool, each exactly once."""


@cli.command(context_settings={"auto_envvar_prefix": PREFIX, "show_default": True})
@click.option(
    "--namespace",
    "namespaces",
    type=Parsed("NAME", parse_namespace),
    multiple=True,
    envvar=f"{PREFIX}_NAMESPACE",
    show_default="all",
    help="Namespace to watch; may be repeated.",
)
@words.allow_endpoint
@words.endpoints
@click.option(
    "--grants",
    type=Parsed("FILE", lambda text: read_grants_file(Path(text))),
    default=None,
    show_default="any namespace may name any pool",
    help="YAML list of the projects, clusters and pools that each namespace may name; read at start.",
)
@click.option(
    "--poll-interval",
    type=_duration("100ms", "1h"),
    default=format_duration(_DEFAULTS.poll_interval),
    help="How often running jobs are asked for, with jitter.",
)
@click.option(
    "--resync-interval",
    type=_duration("1s", "24h"),
    default=format_duration(_DEFAULTS.resync_interval),
    help="How often settled memberships are compared with the cloud.",
)
@click.option(
    "--settle-window",
    type=_duration("1s", "24h"),
    default=format_duration(_DEFAULTS.settle_window),
    help="How long a call of unknown outcome is watched before its servers are planned again; below 20m is unsafe.",
)
@click.option(
    "--removal-delay",
    type=_duration("0s", "24h"),
    default=format_duration(_DEFAULTS.removal_delay),
    help="How long a member must have been off the list before it is removed, under removalPolicy Remove.",
)
@click.option(
    "--writes-per-minute",
    type=click.IntRange(1, 1000),
    default=_DEFAULTS.writes_per_minute,
    help="Write calls to the cloud per endpoint and access key.",
)
@click.option(
    "--reads-per-second",
    type=click.IntRange(1, 1000),
    default=_DEFAULTS.reads_per_second,
    help="Read calls to the cloud per endpoint and access key.",
)
@click.option(
    "--http-timeout",
    type=_duration("1s", "10m"),
    default=format_duration(_DEFAULTS.http_timeout),
    help="Limit for one call to the cloud.",
)
@words.ca_file
@click.option(
    "--operator-identity",
    type=Parsed("pod-identity|oidc-file:PATH", parse_operator_identity),
    default=None,
    show_default="none",
    help="Identity of the operator's own, for memberships with identityRef.operator: CCE Pod Identity, or a token in a"
    " file, read at each exchange.",
)
@click.option(
    "--operator-identity-provider",
    default=None,
    show_default="none",
    help="Who takes the token of oidc-file: the name of an identity provider of IAM v3, or, with an agency, the URN of"
    " a provider of STS.",
)
@click.option(
    "--operator-identity-agency",
    default=None,
    show_default="none",
    help="URN of the trust agency that STS gives keys of for the token of oidc-file.",
)
@click.option(
    "--operator-identity-for",
    type=Parsed("NAMESPACE/PROJECT/CLUSTER", parse_identity_grant),
    multiple=True,
    envvar=f"{PREFIX}_OPERATOR_IDENTITY_FOR",
    show_default="nobody",
    help="Namespace whose memberships may use the operator's identity, for this project id and cluster id; may be"
    " repeated.",
)
@click.option(
    "--leader-elect/--no-leader-elect",
    default=_DEFAULTS.leader_elect,
    help="Whether replicas agree by a Lease on the one that works; without, there must be one replica only.",
)
@click.option(
    "--lease-name",
    type=Parsed("NAME", parse_object_name),
    default=_DEFAULTS.lease_name,
    help="The Lease; the operator makes it, and leaves one of another program alone.",
)
@click.option(
    "--lease-namespace",
    type=Parsed("NAME", parse_namespace),
    show_default="the pod's",
    help="Where that Lease is.",
)
@click.option(
    "--lease-duration",
    type=_duration("1s", "10m"),
    default=format_duration(_DEFAULTS.lease_duration),
    help="After so long without a sign of the leader another replica takes over.",
)
@click.option(
    "--renew-deadline",
    type=_duration("500ms", "10m"),
    default=format_duration(_DEFAULTS.renew_deadline),
    help="A leader that could not renew its lease for so long stops calling and exits; below --lease-duration.",
)
@click.option(
    "--bind",
    type=Parsed("HOST:PORT", parse_bind),
    default=str(_DEFAULTS.bind),
    help="Where /healthz, /readyz and /metrics are served; without a host, on every address of IPv4 and IPv6.",
)
@click.option(
    "--metrics-auth/--no-metrics-auth",
    default=_DEFAULTS.metrics_auth,
    help="Whether /metrics is shown only to the bearer of a token that may get the path /metrics in this cluster.",
)
@click.option("--log-format", type=click.Choice(get_args(LogFormat)), default=_DEFAULTS.log_format, help="Log format.")
@click.option("--log-level", type=click.Choice(get_args(LogLevel)), default=_DEFAULTS.log_level, help="Least level.")
def run(  # noqa: PLR0913 - click gives one argument an option
    namespaces: tuple[str, ...],
    allow_endpoints: tuple[str, ...],
    services: ServiceBook | None,
    grants: Grants | None,
    poll_interval: timedelta,
    resync_interval: timedelta,
    settle_window: timedelta,
    removal_delay: timedelta,
    writes_per_minute: int,
    reads_per_second: int,
    http_timeout: timedelta,
    ca_file: Path | None,
    operator_identity: Path | Literal["pod-identity"] | None,
    operator_identity_provider: str | None,
    operator_identity_agency: str | None,
    operator_identity_for: tuple[tuple[str, str, str], ...],
    leader_elect: bool,  # noqa: FBT001 - click gives arguments by name
    lease_name: str,
    lease_namespace: str | None,
    lease_duration: timedelta,
    renew_deadline: timedelta,
    bind: Bind,
    metrics_auth: bool,  # noqa: FBT001 - click gives arguments by name
    log_format: LogFormat,
    log_level: LogLevel,
) -> int:
    """Run the operator until SIGTERM.

    The cluster is that of $KUBECONFIG, else of the pod's service account, else of ~/.kube/config. Every option is also
    an environment variable, NODEPOOL_MEMBERSHIP_<NAME>; there, values of a repeatable one are separated by commas.
    Durations are written like 500ms, 15s or 1h30m. HTTP_PROXY, HTTPS_PROXY and NO_PROXY count as they do for kubectl.
    """
    if renew_deadline >= lease_duration:
        raise click.UsageError(
            f"--renew-deadline ({format_duration(renew_deadline)}) must be shorter than --lease-duration"
            f" ({format_duration(lease_duration)})"
        )
    own = _own_identity(operator_identity, operator_identity_provider, operator_identity_agency)
    if own is None and operator_identity_for:
        raise click.UsageError("--operator-identity-for without --operator-identity: name the identity, too")
    try:
        proxies = proxies_from(os.environ)
    except ProxyError as error:
        raise click.UsageError(str(error)) from None
    options = Options(
        namespaces=namespaces,
        allow_endpoints=allow_endpoints,
        services=services or PUBLIC_ONLY,
        grants=grants or ANY,
        poll_interval=poll_interval,
        resync_interval=resync_interval,
        settle_window=settle_window,
        removal_delay=removal_delay,
        writes_per_minute=writes_per_minute,
        reads_per_second=reads_per_second,
        http_timeout=http_timeout,
        leader_elect=leader_elect,
        lease_name=lease_name,
        lease_namespace=lease_namespace or "",
        lease_duration=lease_duration,
        renew_deadline=renew_deadline,
        bind=bind,
        metrics_auth=metrics_auth,
        log_format=log_format,
        log_level=log_level,
        ca_file=ca_file,
        operator_identity=own,
        operator_identity_for=operator_identity_for,
        proxies=proxies,
    )
    import asyncio

    from nodepool_membership.runtime.process import process
    from nodepool_membership.runtime.process.assembly import make_reconciler

    return asyncio.run(process.run(options, make_reconciler))


def _own_identity(
    kind: Path | Literal["pod-identity"] | None, provider: str | None, agency: str | None
) -> OperatorIdentity | None:
    """What three options say together. Raises UsageError."""
    if not isinstance(kind, Path):
        if provider is not None or agency is not None:
            raise click.UsageError(
                "--operator-identity-provider and --operator-identity-agency are for --operator-identity=oidc-file:PATH"
            )
        return kind
    if provider is None:
        raise click.UsageError("--operator-identity=oidc-file:PATH needs --operator-identity-provider: who takes it")
    if agency is not None and not agency.startswith("iam::"):
        raise click.UsageError(f"--operator-identity-agency {agency!r} is no URN: write iam::ACCOUNT:agency:NAME")
    if (agency is not None) != provider.startswith("iam::"):
        raise click.UsageError(
            "--operator-identity-provider is a URN with --operator-identity-agency (STS), and a name without (IAM v3)"
        )
    return OidcFile(kind, provider, agency)


for _verb in VERBS:
    cli.add_command(_verb)


def main() -> None:
    """The entry point: exit code 2 and one line on stderr for a bad command line."""
    try:
        code = cli.main(prog_name=_PROGRAM, standalone_mode=False)
    except click.ClickException as error:
        text = redaction.redact(" ".join(error.format_message().split()))
        print(f"{_PROGRAM}: {text}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    sys.exit(code if isinstance(code, int) else 0)
