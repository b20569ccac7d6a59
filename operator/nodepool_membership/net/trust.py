"""Which certificates are trusted: TLS contexts that verify as Go programs do, and that follow files which change.

Not for: turning verification off, but for a kubeconfig that says so (`insecure-skip-tls-verify`).
"""

import logging
import re
import ssl
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Final, Self

_logger = logging.getLogger(__name__)

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----[A-Za-z0-9+/=\s]*-----END CERTIFICATE-----")
_OTHER: Final = re.compile(r"-----BEGIN ([A-Z0-9 ]+)-----")
_MAX_BYTES: Final = 4 << 20
"""All public CAs together are 0.3 MB."""
_DER: Final = b"\x30\x82"

Make = Callable[[], ssl.SSLContext]


class CaFileError(ValueError):
    """The file is no bundle of CA certificates. The text names the file and the remedy, nothing of what is in it."""


def client_context(cafile: str | None = None, cadata: str | bytes | None = None) -> ssl.SSLContext:
    """A context that verifies chain and name against these CAs, without any against the system's.

    As Go does, it takes certificates without key identifiers, which Python refuses from 3.13 on, and one of the CAs as
    an anchor that is not a root.

    Raises:
        OSError, ssl.SSLError: the CAs cannot be loaded.
    """
    context = ssl.create_default_context(cafile=cafile, cadata=cadata)
    context.verify_flags = (context.verify_flags | ssl.VERIFY_X509_PARTIAL_CHAIN) & ~ssl.VERIFY_X509_STRICT
    return context


def read_ca_file(path: Path) -> str:
    """The certificates in a PEM file, checked.

    Raises:
        CaFileError: it cannot be read, or holds no certificate, one that is damaged, or a private key.
    """
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise CaFileError(f"{str(path)!r} cannot be read: {error.strerror or error}") from None
    if not content.strip():
        raise CaFileError(f"{str(path)!r} is empty: put the CA's certificate into it, in PEM")
    if len(content) > _MAX_BYTES:
        raise CaFileError(f"{str(path)!r} is larger than {_MAX_BYTES >> 20} MiB: name a file with CA certificates only")
    if content.startswith(_DER):
        raise CaFileError(f"{str(path)!r} is in DER: convert it with openssl x509 -inform der -in FILE -out FILE.pem")
    text = content.decode("utf-8-sig", errors="replace")
    kinds = set(_OTHER.findall(text))
    if any("PRIVATE KEY" in kind for kind in kinds):
        raise CaFileError(
            f"{str(path)!r} holds a private key: name a file with the CA's certificates only, and treat the key as told"
        )
    blocks = _BLOCK.findall(text)
    if not blocks or len(blocks) != text.count("-----BEGIN CERTIFICATE-----"):
        found = f", but {', '.join(sorted(kinds))}" if kinds - {"CERTIFICATE"} else ""
        whole = "no whole certificate in PEM" if not blocks else "a certificate that is cut off"
        raise CaFileError(f"{str(path)!r} holds {whole}{found}: it needs -----BEGIN CERTIFICATE----- and its end")
    certificates = "\n".join(blocks)
    try:
        client_context(cadata=certificates)
    except (ssl.SSLError, ValueError):
        raise CaFileError(f"{str(path)!r} holds a certificate that cannot be read: export it again, in PEM") from None
    return certificates


def cloud_context(ca_file: Path | None) -> ssl.SSLContext:
    """For the cloud and for proxies on the way there: the system's CAs and those in `ca_file`, which may change.

    Raises:
        CaFileError: the file cannot be used.
    """

    def make() -> ssl.SSLContext:
        context = client_context()
        if ca_file is not None:
            context.load_verify_locations(cadata=read_ca_file(ca_file))
        return context

    return FollowingContext(make, () if ca_file is None else (ca_file,))


class FollowingContext(ssl.SSLContext):
    """Each connection is made with what the files held when it was made; a connection that is open goes on.

    New files that cannot be used are said once and change nothing.
    """

    def __new__(cls, _make: Make, _files: Sequence[Path] = ()) -> Self:
        # Used as it is it would trust nobody: it has no CAs.
        return super().__new__(cls, ssl.PROTOCOL_TLS_CLIENT)

    def __init__(self, make: Make, files: Sequence[Path] = ()) -> None:
        self._make = make
        self._files = tuple(files)
        self._protocols: Sequence[str] = ()
        self._seen = self._state()
        self._current = make()

    def set_alpn_protocols(self, alpn_protocols: Iterable[str]) -> None:
        self._protocols = tuple(alpn_protocols)
        self._current.set_alpn_protocols(list(self._protocols))

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - the standard library's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What asyncio makes every TLS connection by."""
        self._follow()
        return self._current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def _state(self) -> tuple[tuple[int, int, int] | None, ...]:
        return tuple(_stamp(path) for path in self._files)

    def _follow(self) -> None:
        state = self._state()
        if state == self._seen:
            return
        self._seen = state
        names = ", ".join(map(str, self._files))
        try:
            renewed = self._make()
        except (OSError, ValueError) as error:
            why = str(error) if isinstance(error, CaFileError) else type(error).__name__
            _logger.error("changed certificates cannot be used, the former ones stay: %s", why, extra={"files": names})  # noqa: TRY400 - the text says it
            return
        if self._protocols:
            renewed.set_alpn_protocols(list(self._protocols))
        self._current = renewed
        _logger.info("changed certificates are used from now on", extra={"files": names})


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What tells one content of a file from the next; None if it is not there."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
