"""What a run is held against: the promises, and how the world at its end differs from what they demand.

Not for: what is checked while a run goes on (`boundaries_world`).
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from cce_simulator import Simulator
from chaos.boundaries_scenario import End, Scenario
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from told import condition_of


class Promise(StrEnum):
    """What a broken promise is counted as."""

    ONCE = "double adds"
    JOINS = "lost servers"
    KEEPS = "unasked removals"
    CONVERGES = "not converged"
    OTHER = "other promises broken"


@dataclass(frozen=True, slots=True)
class Wrong:
    """One promise that one run broke, and how."""

    promise: Promise
    text: str


@dataclass(frozen=True, slots=True)
class BrokenRun:
    """Picklable: it comes from another process. `where` names the scenario and what was hit."""

    where: str
    wrongs: tuple[Wrong, ...]

    def __str__(self) -> str:
        return f"{self.where}: " + "\n".join(wrong.text for wrong in self.wrongs)


class WrongError(Exception):
    """A promise was broken."""

    def __init__(self, wrongs: Iterable[Wrong]) -> None:
        self.wrongs = tuple(dict.fromkeys(wrongs))
        super().__init__("\n".join(wrong.text for wrong in self.wrongs))


def differences(
    scenario: Scenario, simulator: Simulator, read: Callable[[str], Membership | None], writes_per_minute: int
) -> Iterator[Wrong]:
    """What is not as it has to be at the end."""
    ledger = simulator.ledger
    summary = ledger.summary()
    if summary.double_adds:
        yield Wrong(Promise.ONCE, f"{summary.double_adds} double adds: {summary.double_added}")
    if any(peak > writes_per_minute for peak in summary.peak_writes_per_minute.values()):
        yield Wrong(Promise.OTHER, f"more writes than the budget allows: {summary.peak_writes_per_minute}")
    wanted: set[str] = set()
    for name, end in scenario.ends.items():
        if end is not None:
            wanted |= end.members
            yield from _differences_of(read(name), end)
    for server in sorted(wanted | scenario.accepted.keys() | ledger.accepted_per_server.keys()):
        times, allowed = ledger.accepted_per_server[server], scenario.accepted.get(server, (1,))
        if times not in allowed:
            promise = Promise.ONCE if times > max(allowed) else Promise.JOINS
            yield Wrong(promise, f"server {server} was accepted {times} times, not {allowed}")
    for server in sorted(wanted):
        node = simulator.world.node_of(server)
        if node is None or node.phase != "Active":
            yield Wrong(Promise.JOINS, f"lost server {server}: its node is {None if node is None else node.phase}")
    yield from _removals(scenario, simulator)


def _removals(scenario: Scenario, simulator: Simulator) -> Iterator[Wrong]:
    """Removals that the scenario does not name, and removals that it does and that did not come about."""
    ledger = simulator.ledger
    destroyed = ledger.summary().delete_calls
    if destroyed:
        yield Wrong(Promise.KEEPS, f"{destroyed} calls that destroy servers")
    removed = Counter(server for entry in ledger.entries for server in entry.removed)
    for server in sorted(removed.keys() | scenario.removed.keys()):
        times, allowed = removed[server], scenario.removed.get(server, (0,))
        if times not in allowed:
            promise = Promise.KEEPS if times > max(allowed) else Promise.OTHER
            yield Wrong(promise, f"server {server} was removed {times} times, not {allowed}")
    for server in sorted(ledger.accepted_per_server if scenario.empties else ()):
        if simulator.world.node_of(server) is not None:
            yield Wrong(Promise.OTHER, f"server {server} is left behind as a node")


def _differences_of(found: Membership | None, end: End) -> Iterator[Wrong]:
    if found is None:
        yield Wrong(Promise.OTHER, "the membership is gone")
        return
    status = found.status
    # The attempts of one that has left the list stay known (rule P12).
    listed = found.spec.server_ids
    failed = {i: group.reason for group in status.failures for i in group.server_ids if i in listed}
    if set(status.members) != end.members:
        yield Wrong(Promise.JOINS, f"members {sorted(status.members)}, not {sorted(end.members)}")
    if failed.keys() != end.failed.keys() or any(failed[i] not in allowed for i, allowed in end.failed.items()):
        yield Wrong(Promise.OTHER, f"failures {failed}, not {dict(end.failed)}")
    ready, stalled = condition_of(status, "Ready"), condition_of(status, "Stalled")
    trouble = bool(end.failed) or end.conflict
    if ready is None or (ready.status == "True") == trouble or (stalled is not None) != trouble:
        yield Wrong(Promise.CONVERGES, f"Ready is {ready}, Stalled {stalled}")
    elif end.conflict and ready.reason != Reason.CONFLICT:
        yield Wrong(Promise.OTHER, f"Ready is {ready}, which does not tell of the conflict")
