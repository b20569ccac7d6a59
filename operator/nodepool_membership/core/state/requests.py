"""What people ask for by annotations: look again, reset, pause.

Not for: what follows from it (`edits`, `eligibility`).
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from nodepool_membership.api.membership import Membership, Metadata
from nodepool_membership.api.names import (
    PAUSED_ANNOTATION,
    RECONCILE_ANNOTATIONS,
    RESET_ANNOTATIONS,
    RESET_ONLY_ANNOTATION,
)
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.core.state.failures import Cause

MAX_TOKEN: Final = 256
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_REASONS: Final = {reason.value: reason for reason in FailureReason}


@dataclass(frozen=True, slots=True)
class Reset:
    """A reset that was not answered yet. `reasons` and `ids` narrow it; both empty: it is for everything."""

    token: str
    reasons: frozenset[FailureReason] = frozenset()
    ids: frozenset[str] = frozenset()
    is_followed: bool = True
    """False: what narrows it cannot be read, so that nothing is reset."""

    @property
    def is_whole(self) -> bool:
        return not self.reasons and not self.ids

    def covers(self, server_id: str, cause: Cause | None) -> bool:
        return self.is_whole or server_id in self.ids or (cause is not None and cause.reason in self.reasons)


def reconcile_requested(membership: Membership) -> str | None:
    """The value of a request to look again that was not answered yet."""
    token = _token(membership.metadata, RECONCILE_ANNOTATIONS)
    return token if token is not None and token != membership.status.last_handled_reconcile_at else None


def reset_requested(membership: Membership) -> Reset | None:
    """The reset that was not answered yet."""
    token = unhandled_reset(membership.metadata, membership.status.last_handled_reset_at)
    if token is None:
        return None
    only = membership.metadata.annotations.get(RESET_ONLY_ANNOTATION)
    if only is None:
        return Reset(token)
    narrowed = reset_only(only)
    return Reset(token, is_followed=False) if isinstance(narrowed, str) else Reset(token, *narrowed)


def reset_problem(metadata: Metadata) -> str | None:
    """Why no reset is followed, as long as it and what narrows it stand on the object: also when it was answered."""
    only = metadata.annotations.get(RESET_ONLY_ANNOTATION)
    if only is None or _token(metadata, RESET_ANNOTATIONS) is None or not isinstance(why := reset_only(only), str):
        return None
    return f"no reset is followed: in the annotation {RESET_ONLY_ANNOTATION}, {why}"


def reset_only(only: str) -> tuple[frozenset[FailureReason], frozenset[str]] | str:
    """The reasons and the ids that narrow a reset; a text if a word is neither, or there is none."""
    words = [word for word in re.split(r"[,\s]+", only) if word]
    reasons = frozenset(_REASONS[word] for word in words if word in _REASONS)
    ids = frozenset(word.lower() for word in words if _UUID.fullmatch(word.lower()))
    unknown = [word for word in words if word not in _REASONS and word.lower() not in ids]
    if unknown:
        return f"{unknown[0][:80]!r} is neither a reason of status.failures nor a server id"
    return (reasons, ids) if words else "it is empty"


def unhandled_reset(metadata: Metadata, handled: str | None) -> str | None:
    """The value of the reset annotation of an object whose last handled one is known from elsewhere."""
    token = _token(metadata, RESET_ANNOTATIONS)
    return None if token in {None, handled} else token


def paused(metadata: Metadata) -> str | None:
    """The reason in the annotation that pauses an object; its presence counts, whatever it says."""
    return metadata.annotations.get(PAUSED_ANNOTATION)


def counting(annotations: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    """The first of these annotations that is on an object: the one that counts."""
    return next((name for name in names if annotations.get(name)), None)


def _token(metadata: Metadata, names: tuple[str, ...]) -> str | None:
    value = metadata.annotations.get(counting(metadata.annotations, names) or "")
    if value is None or len(value) <= MAX_TOKEN:
        return value
    return "sha256:" + hashlib.sha256(value.encode()).hexdigest()
