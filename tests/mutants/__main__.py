"""Take out one rule after the other and name the test that failed; exit code 1 if none did.

Not for: CI, which runs a sample (`test_mutants`); all take some minutes.
"""

import sys

import click

from mutants.rules import MUTANTS
from mutants.run import MutantError


@click.command()
@click.option("--only", multiple=True, metavar="RULE", help="Such as P8; may be repeated.")
def main(only: tuple[str, ...]) -> None:
    """Each safety rule taken out in turn, and the test that failed."""
    rules = {mutant.rule for mutant in MUTANTS}
    if unknown := [rule for rule in only if rule not in rules]:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(sorted(rules))}", param_hint="--only")
    survivors = 0
    for mutant in MUTANTS:
        if only and mutant.rule not in only:
            continue
        try:
            print(f"{mutant.rule:<4} without {mutant.without}: {mutant.killer()} failed", flush=True)
        except MutantError as error:
            survivors += 1
            print(f"{mutant.rule:<4} SURVIVED: {error}", flush=True)
    sys.exit(1 if survivors else 0)


if __name__ == "__main__":
    main()
