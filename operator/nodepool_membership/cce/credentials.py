"""Access keys and tokens, read from a Secret's values. Nothing here ever prints a secret, and none exists of which
`redaction` does not know.

Not for: reading the Secret (`kube.secrets`) or signing with it (`signing`).
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from nodepool_membership import redaction

KEYS: Final = "accessKey and secretKey (with securityToken for temporary keys), or token"


class CredentialsError(ValueError):
    """The Secret does not hold usable credentials; the text names the key and the remedy, never a value."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """AK/SK, with the security token of a temporary pair (API signing guide; dossier section 7.2)."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.register()

    def register(self) -> None:
        """Have every part taken out of whatever leaves the process from now on; to be called at each use."""
        for value in (self.access_key, self.secret_key, self.security_token or ""):
            redaction.register(value)

    @property
    def identity(self) -> str:
        """What write budgets are kept by: the cloud counts by access key (rule P23)."""
        return self.access_key

    @property
    def fingerprint(self) -> str:
        """Changes with any part of the pair: what listings are kept by (rule P14), lest one read with another's."""
        return _hash(self.access_key, self.secret_key, self.security_token or "")


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token (`X-Auth-Token`): valid 24 h, up to about 16 KB."""

    value: str = field(repr=False)

    def __post_init__(self) -> None:
        self.register()

    def register(self) -> None:
        """Have it taken out of whatever leaves the process from now on; to be called at each use."""
        redaction.register(self.value)

    @property
    def identity(self) -> str:
        """A hash of the token's content (rule P23)."""
        return f"token:{_hash(self.value)}"

    @property
    def fingerprint(self) -> str:
        """Changes with the token."""
        return _hash(self.value)


Credentials = AccessKey | Token


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def parse_credentials(data: Mapping[str, bytes]) -> Credentials:
    """Read a Secret's decoded values; white space around a value is ignored.

    Raises:
        CredentialsError: a key is missing, empty, not printable ASCII, or both kinds are there.
    """
    has_keys = [name for name in ("accessKey", "secretKey", "securityToken") if name in data]
    if "token" in data:
        if has_keys:
            raise CredentialsError(f"the Secret has both token and {has_keys[0]}: keep one kind, {KEYS}")
        return Token(_text(data, "token"))
    for name in ("accessKey", "secretKey"):
        if name not in data:
            raise CredentialsError(f"the Secret has no key {name}: it needs {KEYS}")
    security_token = _text(data, "securityToken") if "securityToken" in data else None
    return AccessKey(_text(data, "accessKey"), _text(data, "secretKey"), security_token)


def _text(data: Mapping[str, bytes], name: str) -> str:
    try:
        text = data[name].decode("ascii").strip()
    except UnicodeDecodeError:
        raise CredentialsError(
            f"the Secret's {name} is not ASCII text: store the value as the console shows it"
        ) from None
    if not text:
        raise CredentialsError(f"the Secret's {name} is empty: it needs {KEYS}")
    if not text.isprintable():
        raise CredentialsError(f"the Secret's {name} has control characters within: store it as one line")
    return text
