"""Keys that sign tokens as a cluster's service accounts have them, and such tokens.

Not for: tokens of a real API server (`harness.identity`).
"""

import base64
import json
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
from cryptography.hazmat.primitives.hashes import SHA256

ISSUER: Final = "https://kubernetes.default.svc"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _number(value: int) -> str:
    return _text(value.to_bytes((value.bit_length() + 7) // 8, "big"))


class RsaKey:
    """Most clusters have one."""

    algorithm: Final = "RS256"

    def __init__(self) -> None:
        self._key = rsa.generate_private_key(65537, 2048)

    def public(self) -> dict[str, str]:
        """Its entry of the JWKS."""
        numbers = self._key.public_key().public_numbers()
        return {"kty": "RSA", "kid": "the-key", "alg": "RS256", "n": _number(numbers.n), "e": _number(numbers.e)}

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, padding.PKCS1v15(), SHA256())


class EcKey:
    """Some clusters have one."""

    algorithm: Final = "ES256"

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())

    def public(self) -> dict[str, str]:
        """Its entry of the JWKS."""
        numbers = self._key.public_key().public_numbers()
        x, y = (_text(value.to_bytes(32, "big")) for value in (numbers.x, numbers.y))
        return {"kty": "EC", "kid": "the-key", "alg": "ES256", "crv": "P-256", "x": x, "y": y}

    def sign(self, data: bytes) -> bytes:
        halves = utils.decode_dss_signature(self._key.sign(data, ec.ECDSA(SHA256())))
        return b"".join(half.to_bytes(32, "big") for half in halves)


def token(
    key: RsaKey | EcKey, subject: str, audience: str, expires: float, *, issuer: str = ISSUER, kid: str = "the-key"
) -> str:
    """A signed one; `expires` in seconds since 1970."""
    header = {"alg": key.algorithm, "kid": kid}
    claims = {"iss": issuer, "sub": subject, "aud": [audience], "exp": int(expires)}
    signed = ".".join(_text(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{_text(key.sign(signed.encode()))}"
