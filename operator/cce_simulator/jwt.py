"""A service account's token: whether one of a provider's keys signed it, and what it claims.

Not for: whom it is for; `iam` and `sts` compare the claims. Needs the package `cryptography`, for which the simulator's
other parts have no use.
"""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class TokenError(ValueError):
    """The token is not to be believed; the text says why."""


@dataclass(frozen=True, slots=True)
class Claims:
    """`expires` in seconds since 1970."""

    issuer: str
    subject: str
    audiences: tuple[str, ...]
    expires: float


def verified(token: str, keys: Sequence[Mapping[str, object]], now: float) -> Claims:
    """What a token claims, if one of these keys (entries of a JWKS) signed it and it has not expired.

    Raises:
        TokenError: else.
    """
    parts = token.split(".")
    try:
        header, payload = (json.loads(_decoded(part)) for part in parts[:2])
        signature = _decoded(parts[2])
        claims = Claims(str(payload["iss"]), str(payload["sub"]), _audiences(payload["aud"]), float(payload["exp"]))
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise TokenError(f"it is no JWT: {error}") from error
    signed = ".".join(parts[:2]).encode()
    fitting = [key for key in keys if key.get("kid") == header.get("kid")]
    if not any(_signs(key, str(header.get("alg")), signed, signature) for key in fitting):
        raise TokenError("no key of the provider signed it")
    if claims.expires <= now:
        raise TokenError("it has expired")
    return claims


def _audiences(value: object) -> tuple[str, ...]:
    return tuple(str(one) for one in value) if isinstance(value, list) else (str(value),)


def _decoded(text: object) -> bytes:
    plain = str(text)
    return base64.urlsafe_b64decode(plain + "=" * (-len(plain) % 4))


def _number(key: Mapping[str, object], name: str) -> int:
    return int.from_bytes(_decoded(key[name]), "big")


def _signs(key: Mapping[str, object], algorithm: str, signed: bytes, signature: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        match algorithm, key.get("kty"):
            case "RS256", "RSA":
                public = rsa.RSAPublicNumbers(_number(key, "e"), _number(key, "n")).public_key()
                public.verify(signature, signed, padding.PKCS1v15(), SHA256())
            case "ES256", "EC":
                curve = ec.EllipticCurvePublicNumbers(_number(key, "x"), _number(key, "y"), ec.SECP256R1())
                halves = (int.from_bytes(half, "big") for half in (signature[:32], signature[32:]))
                curve.public_key().verify(utils.encode_dss_signature(*halves), signed, ec.ECDSA(SHA256()))
            case _:
                return False
    except (InvalidSignature, ValueError, KeyError):
        return False
    return True
