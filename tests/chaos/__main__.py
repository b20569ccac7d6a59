"""Run the chaos suite: `python -m chaos [--seed N] [--kills N] [--only PART ...]`; exit code 1 if a promise was broken.

Not for: the short form that CI runs; those are the tests of this folder.
"""

import secrets
import sys
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic
from typing import Final, Protocol

import click

from chaos import boundaries, kills, model

_SEEDS: Final = 1_000_000
_REPLICAS_SHARE: Final = 5
"""One of so many kills is made once more, with two replicas that compete for the lease."""

PARTS: Final = ("boundaries", "model", "kills")


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


def runs(seed: int, count: int) -> Mapping[str, Mapping[str, Callable[[], Report]]]:
    """What is run, by the name of the part: `--only` chooses among these."""
    share = max(1, count // _REPLICAS_SHARE)
    every: dict[str, dict[str, Callable[[], Report]]] = {
        "boundaries": {"boundaries": partial(boundaries.run, _say)},
        "model": {"model": partial(model.run, seed, _say)},
        "kills": {
            "kills": partial(kills.run, seed, count, _say, replicas=1),
            "kills, two replicas": partial(kills.run, seed, share, _say, replicas=2),
        },
    }
    return every


def tell(name: str, part: Callable[[], Report]) -> bool:
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
@click.option("--seed", type=int, help="Of the model runs and the kills; drawn and printed if absent.")
@click.option("--kills", default=200, show_default=True, type=click.IntRange(1), help="SIGKILLs of the real process.")
@click.option("--only", "only", multiple=True, type=click.Choice(PARTS), help="Parts; default: all.")
def main(seed: int | None, kills: int, only: tuple[str, ...]) -> None:
    """A crash at every boundary in virtual time, runs of the model, then random kills on a real control plane."""
    seed = secrets.randbelow(_SEEDS) if seed is None else seed
    print(f"SEED={seed}", flush=True)
    chosen = [part for name, parts in runs(seed, kills).items() if not only or name in only for part in parts.items()]
    kept = [tell(name, part) for name, part in chosen]
    print("all promises kept" if all(kept) else "PROMISES BROKEN", flush=True)
    sys.exit(0 if all(kept) else 1)


if __name__ == "__main__":
    main()
