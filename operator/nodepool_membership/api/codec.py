"""How the resource's fields are spelled and written in JSON: camelCase names, ids, moments, text.

Not for: what the fields mean (`spec`, `status`).
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Annotated, Final

from pydantic import AfterValidator, ConfigDict, PlainSerializer, StringConstraints

_ACRONYMS: Final = {"id": "ID", "ids": "IDs", "urn": "URN"}
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")
"""Half of a surrogate pair, which JSON can spell, has no UTF-8: a status with one could not be sent."""
_UUID: Final = re.compile(r"\b[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}\b")
_HEX: Final = re.compile(r"\b(?:req-)?[0-9a-f]{24,}\b")
MAX_MESSAGE: Final = 1024
DIGEST_LENGTH: Final = 16


def camel(name: str) -> str:
    """Spell a Python field name as the Kubernetes API conventions do: `last_job_id` is `lastJobID`."""
    first, *rest = name.split("_")
    return first + "".join(_ACRONYMS.get(word, word.capitalize()) for word in rest)


WIRE: Final = ConfigDict(alias_generator=camel, validate_by_name=True, validate_by_alias=True)


def _utc_seconds(moment: datetime) -> datetime:
    if moment.tzinfo is None:
        raise ValueError("a moment needs a time zone, as in 2026-01-02T03:04:05Z")
    return moment.astimezone(UTC).replace(microsecond=0)


def rfc3339(moment: datetime) -> str:
    """Write a moment the way `metav1.Time` is written: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


Moment = Annotated[datetime, AfterValidator(_utc_seconds), PlainSerializer(rfc3339)]
"""An aware datetime in UTC, whole seconds, as Kubernetes stores it."""

LowerID = Annotated[str, StringConstraints(to_lower=True)]
"""An id compared case-folded: consoles and inventories print either case."""


def _copied(ids: frozenset[str]) -> frozenset[str]:
    # One that grew element by element may be twice as large as its copy: a quarter of a MiB for 5,000 ids.
    return frozenset().union(ids)


LowerIDs = Annotated[frozenset[LowerID], AfterValidator(_copied)]


def digest(text: str) -> str:
    """What stands for a text where only equality counts: 16 hexadecimal characters of its SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:DIGEST_LENGTH]


def plain_text(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make a text fit for status and Events: one line, no ids or request ids, at most `limit` characters.

    Ids are taken out because they would make every server a group of its own (`status.failures`).
    """
    return one_line(_HEX.sub("<id>", _UUID.sub("<id>", _CONTROL.sub(" ", text))), limit)


def one_line(text: str, limit: int = MAX_MESSAGE) -> str:
    """Make a text of our own, which may name servers, fit for status: one line, at most `limit` characters."""
    text = " ".join(_CONTROL.sub(" ", text).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"
