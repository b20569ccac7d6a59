"""SDK-HMAC-SHA256 and token authentication as `httpx.Auth`: one request each, nothing is retried or refreshed.

Not for: choosing credentials (`credentials`). The algorithm: "AK/SK Signing and Authentication Algorithm" of the API
signing guide. A contract test holds it against the official SDK's signer.
"""

import hashlib
import hmac
from collections.abc import Callable, Generator, Mapping
from datetime import UTC, datetime
from typing import Final
from urllib.parse import parse_qsl, quote, unquote

import httpx

from nodepool_membership import redaction
from nodepool_membership.cce.credentials import AccessKey, Credentials, Token

ALGORITHM: Final = "SDK-HMAC-SHA256"
DATE_HEADER: Final = "X-Sdk-Date"
_VALID_SECONDS: Final = 900.0
"""A signature's own lifetime (docs/cloud-facts.md, Authentication): as long it must not be seen."""


def sdk_date(moment: datetime) -> str:
    """A moment as `X-Sdk-Date` wants it: UTC, whole seconds."""
    return moment.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")


def sign(key: AccessKey, method: str, path: str, query: str, headers: Mapping[str, str], body: bytes) -> str:
    """The value of `Authorization` for a request.

    `path` and `query` are as sent (percent-encoded); `headers` are those to sign, X-Sdk-Date and Host among them.
    """
    signed = {name.lower(): value.strip() for name, value in headers.items()}
    names = sorted(signed)
    canonical = "\n".join(
        (
            method.upper(),
            _canonical_path(path),
            _canonical_query(query),
            "".join(f"{name}:{signed[name]}\n" for name in names),
            ";".join(names),
            hashlib.sha256(body).hexdigest(),
        )
    )
    to_sign = f"{ALGORITHM}\n{signed[DATE_HEADER.lower()]}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    signature = hmac.new(key.secret_key.encode(), to_sign.encode(), hashlib.sha256).hexdigest()
    key.register()
    redaction.register(signature, _VALID_SECONDS)
    return f"{ALGORITHM} Access={key.access_key}, SignedHeaders={';'.join(names)}, Signature={signature}"


def _canonical_path(path: str) -> str:
    encoded = "/".join(quote(segment, safe="~") for segment in unquote(path).split("/"))
    return encoded if encoded.endswith("/") else f"{encoded}/"


def _canonical_query(query: str) -> str:
    # The SDK sorts names and values before it encodes them.
    pairs = sorted(parse_qsl(query, keep_blank_values=True))
    return "&".join(f"{quote(name, safe='~')}={quote(value, safe='~')}" for name, value in pairs)


class SignatureAuth(httpx.Auth):
    """Signs with an access key. A request that carries X-Sdk-Date keeps it (rule P5), else it gets the clock's time."""

    requires_request_body = True

    def __init__(self, key: AccessKey, *, now: Callable[[], datetime]) -> None:
        self._key = key
        self._now = now

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        headers = request.headers
        if DATE_HEADER not in headers:
            headers[DATE_HEADER] = sdk_date(self._now())
        if self._key.security_token is not None:
            headers["X-Security-Token"] = self._key.security_token
        # Only what no proxy on the way rewrites.
        signed = {
            name: headers[name]
            for name in ("Content-Type", "Host", "X-Project-Id", DATE_HEADER, "X-Security-Token")
            if name in headers
        }
        path, _, query = request.url.raw_path.decode("ascii").partition("?")
        headers["Authorization"] = sign(self._key, request.method, path, query, signed, request.content)
        yield request


class TokenAuth(httpx.Auth):
    """Sends an IAM token."""

    def __init__(self, token: Token) -> None:
        self._token = token

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        self._token.register()
        request.headers["X-Auth-Token"] = self._token.value
        yield request


def authentication(credentials: Credentials, *, now: Callable[[], datetime]) -> httpx.Auth:
    """The authentication for credentials of either kind."""
    match credentials:
        case AccessKey():
            return SignatureAuth(credentials, now=now)
        case Token():
            return TokenAuth(credentials)
