"""What a run of kills came to: figures to print, and the promises they are held against.

Not for: running it (`kills`).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from chaos.kills_steering import Position


@dataclass(frozen=True, slots=True)
class KillReport:
    """Counts of one run. A kill that cut calls at several positions counts at each of them, once."""

    seed: int
    kills: int
    by_position: Mapping[Position, int]
    elsewhere: int
    """Kills that cut no call."""
    freezes: int
    """Holders of the lease that were stopped past its end, and woken."""
    api_restarts: int
    memberships: int
    servers: int
    bad_servers: int
    add_calls: int
    accepted_adds: int
    lost_answers: int
    """Add calls, beside those cut by kills, whose answer the operator did not get."""
    double_adds: int
    """Servers taken by the cloud while an earlier add of them was not over, or while they were nodes."""
    repeated: tuple[str, ...]
    """Good servers that were accepted more than once."""
    lost: tuple[str, ...]
    """Good servers that did not become members."""
    unreported: tuple[str, ...]
    """Bad servers that are not among the failures."""
    removals: int
    """Remove and delete calls; nobody asked for any."""
    unsettled: Mapping[str, str]
    """Memberships that did not come to an end, and why."""
    seconds: float

    @property
    def least(self) -> int:
        """Kills that each position must have had."""
        return self.kills // 10

    def lines(self) -> list[str]:
        """For a terminal."""
        where = ", ".join(f"{position} {self.by_position.get(position, 0)}" for position in Position)
        return [
            f"kills survived       {self.kills} (SEED={self.seed}, {self.seconds:.0f} s)",
            f"  by position        {where}, no call under way {self.elsewhere}",
            f"  frozen leaders     {self.freezes}",
            f"API server restarts  {self.api_restarts}",
            f"memberships          {self.memberships}, of {self.servers} servers, {self.bad_servers} of them bad",
            f"add calls            {self.add_calls}, accepted {self.accepted_adds}, answers lost {self.lost_answers}",
            f"double adds          {self.double_adds}",
            f"lost servers         {len(self.lost)}",
            f"unasked removals     {self.removals}",
            f"converged            {self.memberships - len(self.unsettled)} of {self.memberships}",
        ]

    def check(self) -> None:
        """Hold the figures against the promises.

        Raises:
            AssertionError: names every promise that was broken, with the seed to run it again.
        """
        broken = self._broken()
        if broken:
            raise AssertionError(f"kills with SEED={self.seed}: " + "; ".join(broken))

    def _broken(self) -> list[str]:
        found = [
            f"only {self.by_position.get(position, 0)} kills hit position {position}, at least {self.least} must"
            for position in Position
            if self.by_position.get(position, 0) < self.least
        ]
        if self.double_adds:
            found.append(f"{self.double_adds} double adds: servers were added while an earlier add was not over")
        if self.repeated:
            found.append(f"added more than once: {_some(self.repeated)}")
        if self.lost:
            found.append(f"lost, they did not join: {_some(self.lost)}")
        if self.unreported:
            found.append(f"bad and not reported: {_some(self.unreported)}")
        if self.removals:
            found.append(f"{self.removals} removals that nobody asked for")
        found += [f"{name} did not converge: {why}" for name, why in self.unsettled.items()]
        return found


def _some(names: tuple[str, ...], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
