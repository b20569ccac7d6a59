"""Take out one rule after the other and name the test that failed; exit code 1 if none did.

Not for: CI, which runs a sample (`test_mutants`); all take some minutes.
"""

import sys

import click

from mutants.defects import DEFECTS
from mutants.keys import KEYS
from mutants.rules import FINER, MUTANTS
from mutants.run import MutantError
from mutants.sharing import SHARING


@click.command()
@click.option("--only", multiple=True, metavar="RULE", help="Such as P8, or a defect such as a; may be repeated.")
def main(only: tuple[str, ...]) -> None:
    """Each safety rule taken out in turn, each known defect put back, and the test that failed."""
    mutants = (*MUTANTS, *FINER, *SHARING, *KEYS, *(defect for defect in DEFECTS if defect.edits))
    rules = {mutant.rule for mutant in mutants}
    if unknown := [rule for rule in only if rule not in rules]:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(sorted(rules))}", param_hint="--only")
    survivors = 0
    for mutant in mutants:
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
