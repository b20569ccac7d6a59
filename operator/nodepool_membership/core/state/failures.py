"""Failures server by server, and the grouping by cause in which status holds them. For people and for attempts.

Not for: safety. Whether a server may be named in an add is never read from here (`state.State.live`, rule P1).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import DRIFT, HOLDS_NODE, PREFLIGHT, VANISHED, FailureReason
from nodepool_membership.api.status import Failure, Hold, Status

MAX_GROUPS: Final = 50
NAMED_TWICE: Final = 20
"""In a large object so many of the vanished members stand in their group, too: `status.holds` names them all."""
_NO_ATTEMPT: Final = HOLDS_NODE | DRIFT | PREFLIGHT
"""No attempt ends these: they pass, or somebody has to do something."""
_NEVER: Final = datetime.max.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Cause:
    """Why one server failed, how many attempts it has used, and when it is tried or judged again."""

    reason: FailureReason
    message: str
    attempts: int
    retry_at: datetime | None = None
    asked: int = 0
    """How often in a row it was refused without using up an attempt."""

    def is_final(self, max_attempts: int) -> bool:
        """Whether the server counts as failed: attempts used up, or nothing that passes by itself."""
        if self.reason in _NO_ATTEMPT:
            return self.retry_at is None
        return self.attempts >= max_attempts


Failures = Mapping[str, Cause]
"""Failed servers by id: also those that wait for a retry."""


def cause_of(group: Failure) -> Cause:
    """What all servers of a group have in common."""
    return Cause(group.reason, group.message, group.attempts, group.retry_time, group.asked or 0)


def unfold(failures: Iterable[Failure]) -> dict[str, Cause]:
    """Server by server what status holds by cause."""
    causes: dict[str, Cause] = {}
    for group in failures:
        causes.update(dict.fromkeys(group.server_ids, cause_of(group)))
    return causes


def causes_of(status: Status) -> dict[str, Cause]:
    """All causes of a status, those of members included whom only its holds name."""
    causes = unfold(status.failures)
    for group in status.failures:
        if len(group.server_ids) < group.count:
            cause = cause_of(group)
            for server_id in _vanished(group, status.holds, frozenset(status.members)):
                causes.setdefault(server_id, cause)
    return causes


def shortened(failures: tuple[Failure, ...], holds: Iterable[Hold], members: Set[str]) -> tuple[Failure, ...]:
    """The groups, without the ids of most members that vanished: of these the holds say the same."""
    short = []
    for group in failures:
        surely = sorted(_vanished(group, holds, members).intersection(group.server_ids))[NAMED_TWICE:]
        left = sorted(frozenset(group.server_ids).difference(surely)) if surely else group.server_ids
        short.append(replace(group, server_ids=tuple(left)))
    return tuple(short)


def _vanished(group: Failure, holds: Iterable[Hold], members: Set[str]) -> frozenset[str]:
    """The members that vanished for the cause of a group, by what is held of them."""
    if group.reason not in VANISHED:
        return frozenset()
    mass = group.reason is FailureReason.LISTING_IMPLAUSIBLE
    found = (h.server_ids for h in holds if h.since is not None and bool(h.mass) == mass)
    return frozenset[str]().union(*found) & members


def fold(failures: Failures) -> tuple[Failure, ...]:
    """Group by cause, most servers first, at most 50 groups; the rest become one `Other` with its highest attempts."""
    servers: defaultdict[Cause, list[str]] = defaultdict(list)
    for server_id, cause in failures.items():
        servers[cause].append(server_id)
    groups = sorted(servers.items(), key=_order)
    kept, rest = (groups, []) if len(groups) <= MAX_GROUPS else (groups[: MAX_GROUPS - 1], groups[MAX_GROUPS - 1 :])
    folded = [_group(cause, ids) for cause, ids in kept]
    if rest:
        names = sorted({cause.reason for cause, _ in rest})
        message = plain_text(f"too many different causes to list; among them: {', '.join(names)}")
        latest = max((c.retry_at for c, _ in rest if c.retry_at is not None), default=None)
        other = Cause(FailureReason.OTHER, message, max(c.attempts for c, _ in rest), latest)
        folded.append(_group(other, [i for _, ids in rest for i in ids]))
    return tuple(folded)


def _order(group: tuple[Cause, list[str]]) -> tuple[bool, int, str, str, int, datetime, int]:
    cause, ids = group
    is_other = cause.reason is FailureReason.OTHER
    return is_other, -len(ids), cause.reason, cause.message, cause.attempts, cause.retry_at or _NEVER, cause.asked


def _group(cause: Cause, ids: list[str]) -> Failure:
    asked = cause.asked or None
    return Failure(cause.reason, cause.message, cause.attempts, len(ids), tuple(sorted(ids)), cause.retry_at, asked)
