"""Temporary keys of one source for a thousand memberships, beside a Secret's: memory, and CPU while nothing changes.

Not for: what a fleet costs otherwise (`fleets`), or whether the way to keys is right.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from bench.figures import Figure, Limit, Section
from bench.fleets import First, Fleet, measure_first
from bench.world import Say

_STATIC: Final = "with a Secret's static key"
_KEYLESS: Final = "with temporary keys"


@dataclass(frozen=True, slots=True)
class Keys:
    """One load: a fleet twice, each in a world of its own."""

    fleet: Fleet
    more_mib: float = 2
    more_idle_ms: float = 0.5

    @property
    def name(self) -> str:
        return f"keys-{self.fleet.memberships}x{self.fleet.ids}"

    @property
    def settings(self) -> str:
        fleet = self.fleet
        return (
            f"{fleet.memberships:,} memberships of {fleet.ids:,} Active nodes each to adopt, twice in a world of its"
            " own: with one Secret's static key, and with spec.identityRef of one service account (Federation), whose"
            " keys live 6 h; all else default but --no-leader-elect and a resync interval in which none is due"
        )


def measure(load: Keys, say: Say) -> Section:
    """Run both after one another."""
    static = measure_first(load.fleet, say)
    keyless = measure_first(replace(load.fleet, keyless=True), say)
    return Section(load.name, load.settings, tuple(figures(load, static, keyless)))


def figures(load: Keys, static: First, keyless: First) -> Sequence[Figure]:
    """Side by side, each with what the temporary keys cost on top."""
    settled, peak = keyless.settled_mib - static.settled_mib, keyless.peak_mib - static.peak_mib
    return (
        Figure(f"settled memory (VmRSS) {_STATIC}", static.settled_mib, "MiB"),
        Figure(f"settled memory (VmRSS) {_KEYLESS}", keyless.settled_mib, "MiB"),
        Figure("settled memory, on top", settled, "MiB", Limit(load.more_mib),
               f"ratio {keyless.settled_mib / static.settled_mib:.3f}"),
        Figure(f"peak memory (VmHWM) {_STATIC}", static.peak_mib, "MiB"),
        Figure(f"peak memory (VmHWM) {_KEYLESS}", keyless.peak_mib, "MiB"),
        Figure("peak memory, on top", peak, "MiB", Limit(load.more_mib),
               f"ratio {keyless.peak_mib / static.peak_mib:.3f}"),
        Figure(f"idle CPU over 60 s {_STATIC}", static.idle_ms, "ms/s"),
        Figure(f"idle CPU over 60 s {_KEYLESS}", keyless.idle_ms, "ms/s"),
        Figure("idle CPU, on top", keyless.idle_ms - static.idle_ms, "ms/s", Limit(load.more_idle_ms),
               f"ratio {keyless.idle_ms / static.idle_ms:.2f}"),
        Figure("exchanges for keys", keyless.exchanges, "", Limit(1, "exactly", counted=True),
               f"for {load.fleet.memberships:,} memberships"),
    )  # fmt: skip
