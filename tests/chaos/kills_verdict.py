"""What is held against the promises when all is over: the stored memberships beside the simulator's ledger.

Not for: how the figures are judged (`kills_report`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from chaos.kills_fleet import Member
from harness import Object
from harness.cluster import condition, finalizers, jobs, status

_OPEN = frozenset({"Queued", "Submitting", "Running", "Verifying"})


def unsettled(membership: Object) -> str | None:
    """Why this membership has not come to its end; None when it has."""
    now = status(membership)
    if condition(membership).get("observedGeneration") is None:
        return "never looked at"
    if waiting := [str(job["phase"]) for job in jobs(membership) if job["phase"] in _OPEN]:
        return f"batches are open: {', '.join(waiting)}"
    if now.get("pending") or now.get("joining"):
        ready = condition(membership)
        return (
            f"{now.get('pending')} pending, {now.get('joining')} joining: {ready.get('reason')} {ready.get('message')}"
        )
    if now.get("joined", 0) != _count(now, "desired") - _count(now, "failed"):
        return "the counts do not add up"
    return "the finalizer is left" if finalizers(membership) else None


def _count(now: Object, name: str) -> int:
    found = now.get(name, 0)
    assert isinstance(found, int)
    return found


@dataclass(frozen=True, slots=True)
class Verdict:
    """Servers that a promise was broken for; see `KillReport`."""

    repeated: tuple[str, ...]
    lost: tuple[str, ...]
    unreported: tuple[str, ...]


def verdict(members: Sequence[Member], stored: Mapping[str, Object], accepted: Mapping[str, int]) -> Verdict:
    """Compare what each membership says of its servers with what they are, and with how often they were accepted."""
    lost: list[str] = []
    unreported: list[str] = []
    repeated: list[str] = []
    for member in members:
        now = status(stored[member.name])
        joined, failed = _ids(now.get("members", [])), _failed(now)
        lost += sorted(s for s in member.good if s not in joined or not accepted.get(s))
        repeated += sorted(s for s in member.good if accepted.get(s, 0) > 1)
        unreported += sorted(s for s in member.bad if s in joined or s not in failed)
    return Verdict(tuple(repeated), tuple(lost), tuple(unreported))


def _ids(value: object) -> frozenset[str]:
    assert isinstance(value, list)
    return frozenset(str(server) for server in value)


def _failed(now: Object) -> frozenset[str]:
    groups = now.get("failures", [])
    assert isinstance(groups, list)
    return frozenset().union(*(_ids(group["serverIDs"]) for group in groups))
