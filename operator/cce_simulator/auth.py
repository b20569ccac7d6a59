"""Who is calling: AK/SK signatures (SDK-HMAC-SHA256), tokens, key lock, and the temporary keys IAM issues.

Not for: what a caller may do with which project; the server checks that against the Identity returned here.
"""

import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import parse_qsl, quote, unquote

from cce_simulator.config import AccessKeyConfig, SimulatorConfig, TokenConfig
from cce_simulator.errors import ApiError, bad_credentials

SKEW_SECONDS = 15 * 60
LOCK_AFTER_FAILURES = 5  # one more in a row locks the key
LOCK_SECONDS = 5 * 60

_AUTHORIZATION = re.compile(
    r"^SDK-HMAC-SHA256 Access=(?P<key>[^,\s]+), ?SignedHeaders=(?P<names>[^,\s]+), ?Signature=(?P<signature>[0-9a-f]+)$"
)
_ACCESS = re.compile(r"Access=([^,\s]+)")


@dataclass(frozen=True, slots=True)
class SignedRequest:
    """A request as it came over the wire; header names in lower case."""

    method: str
    path: str  # percent-encoded as sent, without query
    query: str  # as sent
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Identity:
    """`name`: the access key, or `token:` and 8 hex digits; of temporary keys for a user or agency that one's name."""

    name: str
    project_id: str
    deny: frozenset[str]


@dataclass(slots=True)
class _Failures:
    in_a_row: int = 0
    locked_until: float = 0.0


def claimed_name(headers: Mapping[str, str]) -> str:
    """Who the request says it is from, unverified; empty if it does not say."""
    found = _ACCESS.search(headers.get("authorization", ""))
    if found is not None:
        return found[1]
    token = headers.get("x-auth-token")
    return "" if token is None else _token_name(token)


def _token_name(token: str) -> str:
    return f"token:{hashlib.sha256(token.encode()).hexdigest()[:8]}"


def canonical_request(request: SignedRequest, signed_headers: list[str]) -> str:
    """The text that is signed. The path gets a trailing slash that the URL does not have."""
    segments = [quote(unquote(segment), safe="~") for segment in request.path.split("/")]
    path = "/".join(segments)
    pairs = sorted(parse_qsl(request.query, keep_blank_values=True))
    query = "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)
    lines = "".join(f"{name}:{request.headers.get(name, '').strip()}\n" for name in signed_headers)
    digest = request.headers.get("x-sdk-content-sha256") or hashlib.sha256(request.body).hexdigest()
    return "\n".join(
        (
            request.method,
            path if path.endswith("/") else f"{path}/",
            query,
            lines,
            ";".join(signed_headers),
            digest,
        )
    )


def signature(secret_key: str, date: str, canonical: str) -> str:
    """HMAC of the string to sign; `date` is the X-Sdk-Date header."""
    hashed = hashlib.sha256(canonical.encode()).hexdigest()
    text = f"SDK-HMAC-SHA256\n{date}\n{hashed}"
    return hmac.new(secret_key.encode(), text.encode(), hashlib.sha256).hexdigest()


def mapped_user(provider: str, subject: str) -> str:
    """The name of the user that a provider's rule maps a subject to."""
    return f"{provider}/{subject}"


class Authenticator:
    """Checks credentials against the configuration in force and against what IAM has issued."""

    def __init__(self, config: SimulatorConfig, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[str, _Failures] = {}
        self._issued_keys: dict[str, AccessKeyConfig] = {}
        self._issued_tokens: dict[str, TokenConfig] = {}
        self._users: dict[str, str] = {}
        """Of issued keys and tokens, by their value."""
        self.configure(config)

    def configure(self, config: SimulatorConfig) -> None:
        """Take over changed keys and tokens; what IAM has issued stays valid."""
        self._keys = {key.access_key: key for key in config.access_keys}
        self._tokens = {token.value: token for token in config.tokens}
        self._denied = {mapped_user(p.name, m.subject): m.deny for p in config.identity_providers for m in p.mappings}
        self._denied |= {agency.urn: agency.deny for agency in config.agencies}

    def identify(self, request: SignedRequest) -> Identity:
        """The caller. Raises ApiError 401."""
        if "authorization" in request.headers:
            return self._by_key(request)
        token = request.headers.get("x-auth-token")
        if token is None:
            raise bad_credentials("x-auth-token not found")
        return self._by_token(token)

    def _by_token(self, value: str) -> Identity:
        token = self._tokens.get(value) or self._issued_tokens.get(value)
        if token is None:
            raise bad_credentials("decrypt token fail")
        if token.expires_at is not None and token.expires_at <= self._clock():
            raise ApiError(401, "APIGW.0307", "The token must be updated.")
        return self._identity(value, _token_name(value), token)

    def by_token(self, value: str) -> Identity:
        """Whom a token is of. Raises ApiError 401."""
        return self._by_token(value)

    def _identity(self, value: str, name: str, given: AccessKeyConfig | TokenConfig) -> Identity:
        user = self._users.get(value)
        denied = (*given.deny, *self._denied.get(user or "", ()))
        return Identity(user or name, given.project_id, frozenset(denied))

    def _by_key(self, request: SignedRequest) -> Identity:
        header = _AUTHORIZATION.match(request.headers["authorization"])
        if header is None:
            raise bad_credentials("authorization header is malformed")
        key = self._keys.get(header["key"]) or self._issued_keys.get(header["key"])
        if key is None:
            raise bad_credentials(f"Get secretKey failed,ak:{header['key']},err:ak not exist")
        failures = self._failures.setdefault(key.access_key, _Failures())
        if failures.locked_until > self._clock():
            raise bad_credentials("AK access failed to reach the limit,forbidden")
        self._check_date(request.headers.get("x-sdk-date", ""))
        canonical = canonical_request(request, header["names"].split(";"))
        expected = signature(key.secret_key, request.headers["x-sdk-date"], canonical)
        if not hmac.compare_digest(expected, header["signature"]):
            self._count_failure(failures)
            echo = canonical.replace("\n", "|")
            raise bad_credentials(f"verify aksk signature fail, canonicalRequest:{echo}")
        failures.in_a_row = 0
        self._check_security_token(key, request.headers.get("x-security-token"))
        return self._identity(key.access_key, key.access_key, key)

    def _check_date(self, date: str) -> None:
        try:
            sent = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise bad_credentials(f"signature expired, x-sdk-date {date!r} is not YYYYMMDDTHHMMSSZ") from error
        if abs(sent.timestamp() - self._clock()) > SKEW_SECONDS:
            raise bad_credentials(f"signature expired, signature date: {date}")

    def _count_failure(self, failures: _Failures) -> None:
        failures.in_a_row += 1
        if failures.in_a_row > LOCK_AFTER_FAILURES:
            failures.in_a_row = 0
            failures.locked_until = self._clock() + LOCK_SECONDS

    def _check_security_token(self, key: AccessKeyConfig, sent: str | None) -> None:
        expired = key.expires_at is not None and key.expires_at <= self._clock()
        if key.security_token != sent or expired:
            raise bad_credentials("decrypt token fail")

    def issue_token(self, project_id: str, seconds: float, user: str = "") -> TokenConfig:
        """A new token of IAM, of `user` if that one's rights shall count."""
        token = TokenConfig(value=secrets.token_urlsafe(48), project_id=project_id, expires_at=self._clock() + seconds)
        self._issued_tokens[token.value] = token
        self._note(token.value, user)
        return token

    def _note(self, value: str, user: str) -> None:
        if user:
            self._users[value] = user

    def issue_key(self, project_id: str, seconds: float, user: str = "") -> AccessKeyConfig:
        """A new temporary access key with its security token, of `user` if that one's rights shall count."""
        key = AccessKeyConfig(
            access_key=secrets.token_hex(10).upper(),
            secret_key=secrets.token_urlsafe(30),
            security_token=secrets.token_urlsafe(48),
            project_id=project_id,
            expires_at=self._clock() + seconds,
        )
        self._issued_keys[key.access_key] = key
        self._note(key.access_key, user)
        return key
