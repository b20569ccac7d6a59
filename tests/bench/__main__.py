"""Run the bench: `python -m bench [--quick] [--long] [--only NAME ...]`; exit code 1 when a limit is exceeded.

Not for: measuring (`decision`, `plans`, `joins`, `crowds`, `estate`, `fleets`, `keys`).
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial
from time import monotonic

import click

from bench import crowds, decision, estate, fleets, joins, keys, plans
from bench.crowds import Crowd, Race
from bench.estate import Estate
from bench.figures import Section, is_over, lines
from bench.fleets import GIB, Fleet, Peer, lacks_memory
from bench.joins import Join
from bench.keys import Keys
from bench.world import Say
from controlplane import ControlPlaneError, ensure_binaries
from harness import ProgramError

_FLEETS = (
    Fleet(1000, 50, suspend=False, peak_mib=100, idle_ms=3, p50_ms=40, peer=Peer(50, "16-20")),
    Fleet(300, 5_000, suspend=True, peak_mib=110, peer=Peer(425, "182-263")),
    Fleet(
        1000,
        10_000,
        suspend=True,
        peak_mib=230,
        resync=180,
        quota_backend_bytes=8 * GIB,
        needs_bytes=14 * GIB,
    ),
)
_JOINS = (Join(450), Join(2_000, max_parallel_jobs=2), Join(10_000, max_parallel_jobs=4))
_CROWDS = (Crowd(1), Crowd(10), Crowd(300), Crowd(300, clusters=5))
_LARGE_CROWD = Crowd(1000, most=2.0)
_RACE = Race(
    Crowd(300, clusters=5, job=2.0, writes=120),
    Crowd(1, ids=6_000, batch=20, parallel=10, job=2.0, writes=120),
    most=1.5,
)
_ESTATE = Estate()
_KEYS = Keys(_FLEETS[0])
_LOOKS = Join(10_000, max_parallel_jobs=4, job=2.0)
_QUICK_JOIN = Join(450, job=1.5, poll=0.1, resync=2)

Load = Callable[[], Section]


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _crowds_of(*, long: bool) -> tuple[Crowd, ...]:
    """Those that are run, the largest only in the long form."""
    return (*_CROWDS, _LARGE_CROWD) if long else _CROWDS


def _long(say: Say) -> Mapping[str, Load]:
    """What takes long, and is not run by default."""
    return {
        _RACE.name: partial(crowds.measure_race, _RACE, say),
        _ESTATE.name: partial(estate.measure, _ESTATE, say),
        _KEYS.name: partial(keys.measure, _KEYS, say),
    }


def _loads(say: Say, *, quick: bool, long: bool) -> Mapping[str, Load]:
    if quick:
        return {"decide": partial(decision.measure, 15), _QUICK_JOIN.name: partial(joins.measure, _QUICK_JOIN, say)}
    return {
        "decide": partial(decision.measure, 60),
        "plan": partial(plans.measure, say),
        **{load.name: partial(joins.measure, load, say) for load in _JOINS},
        f"looks-{_LOOKS.servers}": partial(joins.measure_looks, _LOOKS, say),
        **{load.name: partial(crowds.measure, load, say) for load in _crowds_of(long=long)},
        **(_long(say) if long else {}),
        **{load.name: partial(fleets.measure, load, say) for load in _FLEETS},
    }


def _chosen(loads: Mapping[str, Load], only: tuple[str, ...]) -> list[str]:
    unknown = [name for name in only if name not in loads]
    if unknown:
        raise click.BadParameter(f"{', '.join(unknown)}: there are {', '.join(loads)}", param_hint="--only")
    return [name for name in loads if not only or name in only]


def _run(load: Load, *, counts_only: bool) -> bool:
    """Run one load and print it; whether its limits were kept."""
    try:
        section = load()
    except (ProgramError, ControlPlaneError, TimeoutError) as error:
        _say(str(error))
        return False
    print(*lines(section, counts_only=counts_only), "", sep="\n", flush=True)
    return not is_over(section.figures, counts_only=counts_only)


@click.command()
@click.option("--quick", is_flag=True, help="450 ids with short jobs; only counts decide.")
@click.option("--only", multiple=True, metavar="NAME", help="One of the loads by name; may be repeated.")
@click.option(
    "--long", is_flag=True, help="Also what takes long: 1,000 that add on one cluster, a race, 100 clusters, keys."
)
def main(quick: bool, only: tuple[str, ...], long: bool) -> None:
    """Figures as counts and ratios, each beside its limit; exit code 1 when one is exceeded or not measured."""
    loads = _loads(_say, quick=quick, long=long)
    names = _chosen(loads, only)
    too_large = {load.name: why for load in _FLEETS if load.name in names and (why := lacks_memory(load)) is not None}
    for why in too_large.values():
        _say(f"{why}: it will not be run, and the exit code will be 1")
    ensure_binaries()
    failed = list(too_large)
    for name in names:
        if name in too_large:
            continue
        begun = monotonic()
        if not _run(loads[name], counts_only=quick):
            failed.append(name)
        _say(f"{name}: took {monotonic() - begun:.0f} s")
    if failed:
        _say(f"limits exceeded or not measured: {', '.join(failed)}")
        sys.exit(1)


if __name__ == "__main__":
    main()
