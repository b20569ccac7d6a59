"""Keys as IAM, STS and the agent on a node write them, in every spelling that the official SDK takes.

Not for: asking for them (`exchange`). No text here holds a value of an answer.
"""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from pydantic import AliasChoices, BaseModel, Field, ValidationError

from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.transport import FEW_VALUES, values_in

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?Z", re.ASCII)
"""With 6 fraction digits (IAM v3), with 3 (STS), with none; always UTC."""


class _Keys(BaseModel):
    access: str = Field(min_length=1, validation_alias=AliasChoices("access", "accessKeyId", "access_key_id"))
    secret: str = Field(min_length=1, validation_alias=AliasChoices("secret", "secretAccessKey", "secret_access_key"))
    security_token: str = Field(
        min_length=1, validation_alias=AliasChoices("securitytoken", "securityToken", "security_token")
    )
    expires: str = Field(min_length=1, validation_alias=AliasChoices("expires_at", "expiration"))


class _Answer(BaseModel):
    keys: _Keys = Field(validation_alias=AliasChoices("credential", "credentials"))


@dataclass(frozen=True, slots=True)
class TemporaryKey:
    """An access key that ends: `expires` by the clock of whoever gave it."""

    key: AccessKey
    expires: datetime


def read_temporary_key(content: bytes) -> TemporaryKey:
    """The keys of an answer.

    Raises:
        ValueError: it cannot be read; the text names the field.
    """
    if values_in(content) > FEW_VALUES:
        raise ValueError(f"the body: more than {FEW_VALUES} values")
    try:
        keys = _Answer.model_validate_json(content).keys
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the body"
        raise ValueError(f"{where}: {first['msg'].lower()}") from None
    return TemporaryKey(AccessKey(keys.access, keys.secret, keys.security_token), parse_time(keys.expires))


def parse_time(text: str) -> datetime:
    """A moment in any of the forms that are sent. Raises ValueError, whose text has the value."""
    found = _TIME.fullmatch(text)
    try:
        whole = datetime.fromisoformat(found[1]) if found else None
    except ValueError:
        whole = None
    if found is None or whole is None:
        raise ValueError(f"the expiry {text[:40]!a} is no time like 2026-01-02T03:04:05Z")
    return whole.replace(microsecond=int((found[2] or "0")[:6].ljust(6, "0")), tzinfo=UTC)
