"""Values of the command line: how they are read, and the options that several commands share.

Not for: what becomes of them.
"""

from collections.abc import Callable
from typing import Final, Generic, TypeVar

import click

from nodepool_membership.runtime.ops.options import parse_ca_file, parse_endpoint, parse_endpoints_file

PREFIX: Final = "NODEPOOL_MEMBERSHIP"
T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])


class Parsed(click.ParamType[T], Generic[T]):
    """A value read by a function that raises ValueError with the remedy; in the environment, commas separate them."""

    envvar_list_splitter = ","

    def __init__(self, name: str, parse: Callable[[str], T]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> T:
        try:
            return self._parse(str(value).strip())
        except ValueError as error:
            self.fail(str(error), param, ctx)


allow_endpoint = click.option(
    "--allow-endpoint",
    "allow_endpoints",
    type=Parsed("URL", parse_endpoint),
    multiple=True,
    envvar=f"{PREFIX}_ALLOW_ENDPOINT",
    show_default="the public CCE domains over https",
    help="Further endpoint that a spec may name, compared by scheme, host and port; may be repeated.",
)
endpoints = click.option(
    "--endpoints",
    "services",
    type=Parsed("FILE", parse_endpoints_file),
    default=None,
    envvar=f"{PREFIX}_ENDPOINTS",
    show_default="the public cloud alone",
    help="YAML list of {cce, iam, sts, ecs, bms, evs, vpc, region}: addresses of other clouds, each of which counts as"
    " allowed.",
)
ca_file = click.option(
    "--ca-file",
    type=Parsed("FILE", parse_ca_file),
    default=None,
    envvar=f"{PREFIX}_CA_FILE",
    show_default="the system's CAs alone",
    help="PEM file with CAs to trust beside the system's, for the cloud and a proxy that opens TLS; read again when it"
    " changes.",
)


def reach(function: F) -> F:
    """The options that say where a cloud may be, for who looks at it without the operator."""
    for option in (ca_file, endpoints, allow_endpoint):
        function = option(function)
    return function
