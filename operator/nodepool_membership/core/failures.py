"""Failures server by server, and the grouping by cause in which status holds them.

Not for: deciding that a server failed (`batches`, `servers`).
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import DRIFT, HOLDS_NODE, FailureReason
from nodepool_membership.api.status import Failure

MAX_GROUPS: Final = 50
MAY_HAVE_NODE: Final = HOLDS_NODE - {FailureReason.OTHER_POOL} | {FailureReason.NODE_VANISHED, FailureReason.OTHER}
"""The server has a node that an add of ours may have made, or has lost one that may show again; `Other` may be either.
No add of ours makes a node in another pool."""


@dataclass(frozen=True, slots=True, order=True)
class Cause:
    """Why one server failed, and how many attempts it has used."""

    reason: FailureReason
    message: str
    attempts: int

    def may_be_sent(self, max_attempts: int) -> bool:
        """Whether a retry may name the server once its time has come: never while it had a node when last seen."""
        return self.reason not in HOLDS_NODE and not self.is_final(max_attempts)

    def is_final(self, max_attempts: int) -> bool:
        """Whether the server counts as failed: attempts used up, or nothing a retry could change now."""
        if self.reason is FailureReason.INSTALLING:
            return False
        return self.reason in HOLDS_NODE or self.reason in DRIFT or self.attempts >= max_attempts

    @property
    def is_forgettable(self) -> bool:
        """Whether a server that is no longer ours to add may be a fresh one when it is ours again (rules P1, P12).

        No attempts are no proof that no add named it: a reset takes the count, not what the add may still do.
        """
        return self.reason not in MAY_HAVE_NODE and (self.attempts == 0 or self.reason in DRIFT)


Book = Mapping[str, Cause]
"""Failed servers by id: also those that wait for a retry."""


def unfold(failures: Iterable[Failure]) -> dict[str, Cause]:
    """Server by server what status holds by cause."""
    return {
        server_id: Cause(group.reason, group.message, group.attempts)
        for group in failures
        for server_id in group.server_ids
    }


def fold(book: Book) -> tuple[Failure, ...]:
    """Group by cause, most servers first, at most 50 groups; the rest become one `Other` with its highest attempts."""
    servers: defaultdict[Cause, list[str]] = defaultdict(list)
    for server_id, cause in book.items():
        servers[cause].append(server_id)
    groups = sorted(
        servers.items(), key=lambda group: (group[0].reason is FailureReason.OTHER, -len(group[1]), group[0])
    )
    kept, rest = (groups, []) if len(groups) <= MAX_GROUPS else (groups[: MAX_GROUPS - 1], groups[MAX_GROUPS - 1 :])
    folded = [_group(cause, ids) for cause, ids in kept]
    if rest:
        names = sorted({cause.reason for cause, _ in rest})
        message = plain_text(f"too many different causes to list; among them: {', '.join(names)}")
        attempts = max(cause.attempts for cause, _ in rest)
        folded.append(_group(Cause(FailureReason.OTHER, message, attempts), [i for _, ids in rest for i in ids]))
    return tuple(folded)


def _group(cause: Cause, ids: list[str]) -> Failure:
    return Failure(cause.reason, cause.message, cause.attempts, len(ids), tuple(sorted(ids)))
