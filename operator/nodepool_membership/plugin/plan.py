"""A preview as people and programs read it: server by server, and what is in the way.

Not for: making it (`core.decision.preview`), or looking at the cloud for it (`planning`). Pure.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from nodepool_membership.api.status import Finding
from nodepool_membership.core.decision.preview import Preview
from nodepool_membership.core.wording import counted, them


@dataclass(frozen=True, slots=True)
class Line:
    """One line, and the colour that it has on a terminal."""

    text: str
    colour: str | None = None


def changes(found: Preview) -> bool:
    """Whether a server would be wiped or removed."""
    return bool(found.add or found.remove)


def lines(name: str, found: Preview, notes: tuple[str, ...]) -> Iterator[Line]:
    """What would be done with each server, the sum, and what else there is to know."""
    yield from (Line(f"+ {server}  add: WIPED", "red") for server in found.add)
    yield from (Line(f"- {server}  remove: REINSTALLED", "red") for server in found.remove)
    yield from (Line(f"= {server}  adopt: as it is", "green") for server in found.adopt)
    for left in found.left:
        yield from (Line(f"! {server}  left: {left.reason}: {left.message}", "yellow") for server in left.server_ids)
    yield Line(f"{name}: {summary(found)}")
    yield from (Line(f"in the way: {stop.reason}: {stop.message}", "yellow") for stop in found.stops)
    yield from (Line(f"finding: {finding.reason}{_count(finding)}: {finding.message}") for finding in found.findings)
    yield from (Line(f"note: {note}") for note in notes)


def summary(found: Preview) -> str:
    """All in numbers."""
    plan, left = found.plan, sum(len(group.server_ids) for group in found.left)
    wiped = f" in {counted(plan.calls, 'call')}, which WIPES {them(plan.add)}" if plan.add else ""
    removed = f", which REINSTALLS {them(plan.remove)}" if plan.remove else ""
    parts = [f"{plan.add} to add{wiped}", f"{plan.adopt} to adopt", f"{plan.remove} to remove{removed}"]
    if left:
        parts.append(f"{left} left")
    if found.called:
        parts.append(f"{found.called} in calls under way")
    return f"plan {plan.id}: {'; '.join(parts)}"


def document(name: str, found: Preview, notes: tuple[str, ...]) -> dict[str, object]:
    """The same for programs."""
    return {
        "name": name,
        "id": found.plan.id,
        "add": list(found.add),
        "calls": found.plan.calls,
        "adopt": list(found.adopt),
        "remove": list(found.remove),
        "left": [
            {"reason": str(left.reason), "message": left.message, "serverIDs": list(left.server_ids)}
            for left in found.left
        ],
        "inTheWay": [{"reason": str(stop.reason), "message": stop.message} for stop in found.stops],
        "findings": [
            {
                "reason": str(finding.reason),
                "message": finding.message,
                "count": finding.count,
                "serverIDs": list(finding.server_ids),
            }
            for finding in found.findings
        ],
        "underWay": found.called,
        "notes": list(notes),
    }


def _count(finding: Finding) -> str:
    return f" ({counted(finding.count, 'server')})" if finding.count else ""
