"""Certificates as clusters and proxies have them: a CA, and servers that it vouches for, with or without what is usual.

Not for: the test control plane, which makes its own.
"""

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_DAY: Final = timedelta(days=1)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _alternative(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@dataclass(frozen=True)
class Server:
    """A server's certificate and key, in files."""

    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For a server that shows this certificate."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


class Ca:
    """A CA of its own key; `identifiers` says whether key identifiers are put into what it signs, and into itself."""

    def __init__(self, directory: Path, name: str = "test-ca", *, identifiers: bool = True) -> None:
        self._directory = directory
        self._identifiers = identifiers
        self._subject = _name(name)
        self._key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(self._subject, self._key.public_key(), datetime.now(UTC))
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        builder = builder.add_extension(_usage(signs_certificates=True), critical=True)
        self.file = directory / f"{name}.pem"
        self.file.write_bytes(builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))

    @property
    def pem(self) -> str:
        return self.file.read_text()

    @property
    def der(self) -> bytes:
        return ssl.PEM_cert_to_DER_cert(self.pem)

    @property
    def key_pem(self) -> str:
        return _private(self._key).decode()

    def server(self, names: Sequence[str] = ("127.0.0.1", "::1", "localhost"), *, age: timedelta = _DAY) -> Server:
        """A certificate for these names, valid for two days from `age` ago."""
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(names[0]), key.public_key(), datetime.now(UTC) - age)
        builder = builder.add_extension(x509.SubjectAlternativeName([*map(_alternative, names)]), critical=False)
        builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        signed = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        stem = f"{self.file.stem}-{x509.random_serial_number():x}"
        made = Server(self._directory / f"{stem}.crt", self._directory / f"{stem}.key")
        made.certificate.write_bytes(signed)
        made.key.write_bytes(_private(key))
        return made

    def _builder(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, since: datetime
    ) -> x509.CertificateBuilder:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._subject)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(since)
            .not_valid_after(since + 2 * _DAY)
        )
        if not self._identifiers:
            return builder
        issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())
        own = x509.SubjectKeyIdentifier.from_public_key(public)
        return builder.add_extension(own, critical=False).add_extension(issuer, critical=False)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _private(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
