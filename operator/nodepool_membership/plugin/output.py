"""How answers are printed: columns for people, JSON and YAML for programs.

Not for: what is said. Colours are for terminals only, and not where NO_COLOR is set.
"""

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Final, TextIO

import click

from nodepool_membership.runtime.ops.logs import escaped

_EXTRA: Final = "pip install 'nodepool-membership[plugin]'"
_GAP: Final = 3
FORMATS: Final = ("table", "json", "yaml")

output = click.option(
    "-o", "--output", "form", type=click.Choice(FORMATS), default="table", show_default=True, help="How to print."
)


@contextmanager
def extra() -> Iterator[None]:
    """Around imports of packages that only the plugin has."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise click.ClickException(f"{error.name} is not installed: {_EXTRA}") from None


def show(document: object, form: str) -> None:
    """Print as JSON or YAML."""
    if form == "json":
        for line in json.dumps(document, indent=2, ensure_ascii=False).split("\n"):
            click.echo(escaped(line))
        return
    with extra():
        import yaml
    click.echo(yaml.safe_dump(document, sort_keys=False, allow_unicode=True), nl=False)


def coloured(text: str, colour: str | None, stream: TextIO | None = None) -> str:
    """The text in a colour, where that can be seen; what in it could be an order to a terminal is made visible."""
    stream, text = stream or sys.stdout, escaped(text)
    return click.style(text, fg=colour) if colour and stream.isatty() and not os.environ.get("NO_COLOR") else text


def columns(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The lines of a table as kubectl prints one; the last column is as wide as it likes."""
    widths = [max(map(len, cells)) for cells in zip(titles, *rows, strict=True)][:-1]
    for row in (titles, *rows):
        yield "".join(f"{cell:<{width + _GAP}}" for cell, width in zip(row, widths, strict=False)) + row[-1]


def ago(span: timedelta) -> str:
    """A duration as kubectl prints ages."""
    seconds = max(int(span.total_seconds()), 0)
    days, hours, minutes = seconds // 86400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d{hours}h"
    if hours:
        return f"{hours}h{minutes}m"
    return f"{minutes}m" if minutes >= 10 else f"{minutes}m{seconds % 60}s" if minutes else f"{seconds}s"
