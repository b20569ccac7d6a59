"""How often every phase and reason was reached in a status that was stored, over all tests of this process.

Not for: reaching them (`test_reached`, the state machine).
"""

from collections import Counter
from collections.abc import Iterator
from enum import StrEnum
from typing import Final

from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.status import Phase, Status

Name = tuple[str, str]
"""An enumeration and one of its values: two reasons of different kinds may have the same text."""

REACHED: Final[Counter[Name]] = Counter()
_KINDS: Final[tuple[type[StrEnum], ...]] = (Phase, Reason, FailureReason, FindingReason)


def name(member: StrEnum) -> Name:
    return (type(member).__name__, member.value)


def note(status: Status) -> None:
    """Count what a status that is stored says."""
    REACHED.update({name(member) for member in _said(status)})


def _said(status: Status) -> Iterator[StrEnum]:
    yield from (batch.phase for batch in status.jobs)
    yield from (condition.reason for condition in status.conditions)
    yield from (group.reason for group in status.failures)
    yield from (finding.reason for finding in status.findings)


def unreached() -> set[Name]:
    """What was not reached once."""
    return {name(member) for kind in _KINDS for member in kind} - REACHED.keys()


def table() -> str:
    """Counts of everything, one a line."""
    lines = [
        f"{kind.__name__:<14} {member.value:<24} {REACHED[name(member)]:>9,}" for kind in _KINDS for member in kind
    ]
    return "\n".join(("stored statuses that told of it:", *lines))
