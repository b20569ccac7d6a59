"""Access keys and tokens, read from a Secret's values. Nothing here ever prints a secret, and none exists of which
`redaction` does not know.

Not for: reading the Secret (`kube.secrets`) or signing with it (`signing`).
"""

import base64
import binascii
import hashlib
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Protocol, Self

from nodepool_membership import redaction

_logger = logging.getLogger(__name__)

KEYS: Final = "accessKey and secretKey (with securityToken for temporary keys), or token"


class CredentialsError(ValueError):
    """The Secret does not hold usable credentials; the text names the key and the remedy, never a value."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """AK/SK, with the security token of a temporary pair (API signing guide)."""

    access_key: str
    secret_key: str = field(repr=False)
    security_token: str | None = field(default=None, repr=False)
    chosen_by: str | None = field(default=None, repr=False, compare=False)
    """The namespace in whose Secret it stands, whatever is written there; None: a service issued it."""

    def __post_init__(self) -> None:
        self.register()

    def register(self) -> None:
        """Have every part taken out of whatever leaves the process from now on; to be called at each use."""
        for value in (self.access_key, self.secret_key, self.security_token or ""):
            redaction.register(value, chosen_by=self.chosen_by)

    @property
    def identity(self) -> str:
        """What write budgets are kept by: the cloud counts by access key (rule P23)."""
        return self.access_key

    @property
    def fingerprint(self) -> str:
        """Changes with any part of the pair: what listings are kept by (rule P14), lest one read with another's."""
        return _hash(self.access_key, self.secret_key, self.security_token or "")

    async def current(self) -> Self:
        """Itself, as a `Source`."""
        return self

    async def renewed(self, refused: "Credentials") -> bool:
        """False: it has no others."""
        return self != refused


@dataclass(frozen=True, slots=True)
class Token:
    """An IAM token (`X-Auth-Token`): valid 24 h, up to about 16 KB."""

    value: str = field(repr=False)
    chosen_by: str | None = field(default=None, repr=False, compare=False)
    """As with an access key."""

    def __post_init__(self) -> None:
        self.register()

    def register(self) -> None:
        """Have it taken out of whatever leaves the process from now on; to be called at each use."""
        redaction.register(self.value, chosen_by=self.chosen_by)

    @property
    def identity(self) -> str:
        """A hash of the token's content (rule P23)."""
        return f"token:{_hash(self.value)}"

    @property
    def fingerprint(self) -> str:
        """Changes with the token."""
        return _hash(self.value)

    async def current(self) -> Self:
        """Itself, as a `Source`."""
        return self

    async def renewed(self, refused: "Credentials") -> bool:
        """False: it has no others."""
        return self != refused


Credentials = AccessKey | Token


class Source(Protocol):
    """Where credentials come from. Budgets, lockouts, listings and snapshots are kept by a source, whatever it gives at
    the moment; those of a Secret are a source of themselves.
    """

    @property
    def identity(self) -> str:
        """What write budgets are kept by (rule P23)."""

    @property
    def fingerprint(self) -> str:
        """What listings are kept by (rule P14)."""

    async def current(self) -> Credentials:
        """Those that are good now. Raises CloudError: none can be had, and nothing was sent to CCE."""

    async def renewed(self, refused: Credentials) -> bool:
        """Whether there are others than those that the cloud refused; they are asked for, if need be.

        Raises CloudError: there are none any more.
        """


def _hash(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def parse_credentials(data: Mapping[str, bytes], namespace: str) -> Credentials:
    """Read a Secret's decoded values; white space around a value is left out, with a hint in the log.

    `namespace`: where the Secret is.

    What cannot be a credential is recognised here, before it is sent: a secret key in the place of the access key would
    travel in every request's header.

    Raises:
        CredentialsError: a key is missing, empty, not printable ASCII, malformed, or both kinds are there.
    """
    has_keys = [name for name in ("accessKey", "secretKey", "securityToken") if name in data]
    if "token" in data:
        if has_keys:
            raise CredentialsError(f"the Secret has both token and {has_keys[0]}: keep one kind, {KEYS}")
        return Token(_value(data, "token"), namespace)
    for name in ("accessKey", "secretKey"):
        if name not in data:
            raise CredentialsError(f"the Secret has no key {name}: it needs {KEYS}")
    security_token = _value(data, "securityToken") if "securityToken" in data else None
    access_key, secret_key = _value(data, "accessKey"), _value(data, "secretKey")
    if fault := _mistaken(access_key, secret_key):
        raise CredentialsError(fault)
    return AccessKey(access_key, secret_key, security_token, namespace)


def _value(data: Mapping[str, bytes], name: str) -> str:
    text = _text(data, name)
    fault = next((fault for known, fault in _MALFORMED if known.search(text)), None)
    if fault is None and len(text.split()) > 1:
        fault = "has white space or line breaks within: store the value by itself, as one line"
    if fault is None and _is_base64_twice(text):
        fault = "is base64 of base64: put the value itself under stringData, or encode it once under data"
    if fault is None and name != "accessKey" and len(text) < redaction.SHORTEST:
        fault = f"has fewer than {redaction.SHORTEST} characters: store the whole value as the console shows it"
    if fault is not None:
        raise CredentialsError(f"the Secret's {name} {fault}")
    if len(text) != len(data[name]):
        _hint(name, hashlib.sha256(data[name]).digest())
    return text


def _text(data: Mapping[str, bytes], name: str) -> str:
    try:
        text = data[name].decode("ascii").strip()
    except UnicodeDecodeError:
        raise CredentialsError(
            f"the Secret's {name} is not ASCII text: store the value as the console shows it"
        ) from None
    if not text:
        raise CredentialsError(f"the Secret's {name} is empty: it needs {KEYS}")
    if not all(character.isprintable() or character in "\r\n\t" for character in text):
        raise CredentialsError(f"the Secret's {name} has control characters within: store it as one line")
    return text


_ACCESS_KEY: Final = re.compile(r"[A-Z0-9]{20}", re.ASCII)
_SECRET_KEY: Final = re.compile(r"(?=.*[a-z])[A-Za-z0-9]{40}", re.ASCII)
"""As Huawei Cloud makes them. Other brands may not, so that a value is of neither shape is no fault."""
_MALFORMED: Final = (
    (re.compile(r"^REPLACE-WITH-"), "is still the sample's placeholder: put the real value in its place"),
    (re.compile(r"^[{\[]"), "is a JSON document: store the value of its field by itself"),
    (re.compile(r"^-----BEGIN"), "is a certificate or a private key: store the value as the console shows it"),
    (re.compile(r"^([\"'`]).*\1$", re.DOTALL), "is in quotes: store the value without them"),
    (
        re.compile(r"Access ?Key ?Id\b", re.IGNORECASE),
        "is the whole file credentials.csv: store each value under its key",
    ),
    (
        re.compile(r"^[A-Z0-9]{20}[\s,;:|/]+[A-Za-z0-9]{40}$", re.ASCII),
        "is a pair of access key and secret key: store them as two, under accessKey and secretKey",
    ),
    (
        re.compile(
            r"^(?:export\s+)?(?:\w*_)?(?:access_?key(?:_?id)?|secret_?(?:access_?)?key|security_?token|ak|sk|token)"
            r"\s*[=:]\s*[^=\s]",
            re.IGNORECASE,
        ),
        "begins with a name and a sign: store only what follows the sign",
    ),
    (re.compile(r"^Bearer\s", re.IGNORECASE), "begins with Bearer: store only what follows it"),
)


def _mistaken(access_key: str, secret_key: str) -> str | None:
    """What is wrong with a pair whose values are fit by themselves."""
    in_place_of_id = _SECRET_KEY.fullmatch(access_key)
    in_place_of_secret = _ACCESS_KEY.fullmatch(secret_key)
    if in_place_of_id and in_place_of_secret:
        return "the Secret's accessKey and secretKey are swapped: exchange the two values"
    if in_place_of_id:
        return "the Secret's accessKey has the form of a secret key: store the access key (20 characters) there"
    if in_place_of_secret:
        return "the Secret's secretKey has the form of an access key: store the secret key (40 characters) there"
    if access_key == secret_key:
        return "the Secret's accessKey and secretKey are the same: store the secret key under secretKey"
    return None


_INNER: Final = re.compile(r"[A-Za-z0-9+/=_.-]{16,}", re.ASCII)


def _is_base64_twice(text: str) -> bool:
    """Whether decoding gives text that could be a value again; by chance, decoded random bytes are not ASCII."""
    try:
        inner = base64.b64decode(text, validate=True).decode("ascii").strip()
    except (ValueError, binascii.Error):
        return False
    return _INNER.fullmatch(inner) is not None


@lru_cache(maxsize=256)
def _hint(name: str, _digest: bytes) -> None:
    """Said once for a value, as long as few others need it."""
    _logger.info(
        "a Secret's %s has white space around it, which is left out: store the value without a line break", name
    )
