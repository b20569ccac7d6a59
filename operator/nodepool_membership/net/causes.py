"""Why a connection could not be made, in words with a remedy, found behind whatever the clients' libraries raise.

Not for: answers, or what a failure means for a call. No text here holds a URL, a header or a body.
"""

import errno
import os
import socket
import ssl
from collections.abc import Iterator
from typing import Final

_CA_REMEDY: Final = {
    "cloud": "name the CA that signed it, or that of the proxy which opens TLS, with --ca-file",
    "cluster": "check certificate-authority in the kubeconfig, or ca.crt of the service account",
}
_UNKNOWN_CA: Final = frozenset({2, 18, 19, 20, 21})
_OF_TIME: Final = frozenset({9, 10})
_OF_NAME: Final = frozenset({62, 63, 64})
"""X509_V_ERR_ of OpenSSL's x509_vfy.h."""
_NOT_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "HTTP_REQUEST", "UNKNOWN_PROTOCOL", "RECORD_LAYER_FAILURE"})
_MAX_DEPTH: Final = 12


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """The error and what is behind it, outermost first."""
    waiting, seen = [error], set[int]()
    while waiting and len(seen) < _MAX_DEPTH:
        one = waiting.pop(0)
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        # aiohttp keeps what was raised in these two, and not always as the cause; httpcore hides it from tracebacks.
        kept = (getattr(one, "certificate_error", None), getattr(one, "os_error", None))
        members = one.exceptions if isinstance(one, BaseExceptionGroup) else ()
        found = (*kept, one.__cause__, one.__context__, *members)
        waiting += [cause for cause in found if isinstance(cause, BaseException)]


def explain(error: BaseException, side: str) -> str | None:
    """What kept a connection to the "cloud" or the "cluster" from being made; None if that is not known."""
    for cause in causes_of(error):
        # aiohttp's own errors are of these types, too, but know nothing.
        if isinstance(cause, ssl.SSLCertVerificationError) and hasattr(cause, "verify_message"):
            return _certificate(cause.verify_code, cause.verify_message, side)
        if isinstance(cause, ssl.SSLError) and hasattr(cause, "reason"):
            return _tls(cause.reason or "no reason given")
        if isinstance(cause, socket.gaierror):
            why = cause.strerror or "unknown"
            return f"the host's name cannot be resolved ({why}): check its spelling, and the DNS of this machine or pod"
        if isinstance(cause, OSError) and cause.errno in _ERRNOS:
            return _ERRNOS[cause.errno]
    return None


def _errnos() -> dict[int | None, str]:
    unreachable = "check routes, firewalls, and whether a proxy is needed (HTTPS_PROXY)"
    found: dict[int | None, str] = {
        number: f"{os.strerror(number).lower()}: {unreachable}"
        for number in (errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ETIMEDOUT, errno.EADDRNOTAVAIL)
    }
    found[errno.ECONNREFUSED] = "connection refused: nothing listens there; check host, port and proxy"
    found[errno.ECONNRESET] = "connection reset: check firewalls and proxies on the way"
    return found


_ERRNOS: Final = _errnos()


def _certificate(code: int, why: str, side: str) -> str:
    if code in _OF_NAME:
        return f"the server's certificate is for another name ({why}): use a name that is in the certificate"
    if code in _OF_TIME:
        return f"the server's certificate cannot be verified ({why}): renew it, or set this machine's clock"
    remedy = _CA_REMEDY[side] if code in _UNKNOWN_CA else "have it issued anew"
    return f"the server's certificate cannot be verified ({why}): {remedy}"


def _tls(reason: str) -> str:
    told = reason.replace("_", " ").lower()
    if reason in _NOT_TLS:
        return f"what answers does not speak TLS ({told}): check scheme, port and proxy"
    return f"TLS failed ({told}): check what the server or a proxy on the way demands"
