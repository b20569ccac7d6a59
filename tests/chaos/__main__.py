"""Run the chaos suite: `python -m chaos [--seed N] [--kills N] [--only PART ...]`; exit code 1 if a promise was broken.

Not for: the short form that CI runs; those are the tests of this folder.
"""

import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import import_module
from time import monotonic
from typing import Final, Protocol

import click

from chaos import boundaries

_SEEDS: Final = 1_000_000


class Report(Protocol):
    """What a part of the suite came to."""

    def lines(self) -> list[str]:
        """For people."""
        ...

    def check(self) -> None:
        """Raises AssertionError if a promise was broken."""
        ...


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _kills(seed: int, kills: int) -> Report:
    # By name: it needs the control plane, which the other parts do without.
    report: Report = import_module("chaos.kills").run(seed, kills, _say)
    return report


def _parts(seed: int, kills: int) -> Mapping[str, Callable[[], Report]]:
    return {"boundaries": partial(boundaries.run, _say), "kills": partial(_kills, seed, kills)}


def _run(name: str, part: Callable[[], Report]) -> bool:
    """Run a part and print what came of it; whether every promise was kept."""
    begun = monotonic()
    _say(f"{name}: running")
    report = part()
    print("\n".join((f"{name} ({monotonic() - begun:.0f} s)", *(f"  {line}" for line in report.lines()))), flush=True)
    try:
        report.check()
    except AssertionError as error:
        print(f"  BROKEN: {error}", flush=True)
        return False
    return True


@click.command()
@click.option("--seed", type=int, help="Of the kills; drawn and printed if absent.")
@click.option("--kills", default=200, show_default=True, type=click.IntRange(1), help="SIGKILLs of the real process.")
@click.option("--only", "only", multiple=True, type=click.Choice(["boundaries", "kills"]), help="Parts; default: all.")
def main(seed: int | None, kills: int, only: tuple[str, ...]) -> None:
    """A crash at every boundary in virtual time, then random kills on a real control plane."""
    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    print(f"SEED={seed}", flush=True)
    kept = [_run(name, part) for name, part in _parts(seed, kills).items() if not only or name in only]
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
