"""What is trusted: certificates as clusters have them, files with CAs and their changes, and what a failure says."""

import asyncio
import logging
import os
import ssl
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from harness.certificates import Ca, Server
from nodepool_membership.net.causes import explain
from nodepool_membership.net.trust import (
    CaFileError,
    FollowingContext,
    client_context,
    cloud_context,
    read_ca_file,
)

_original = ssl.create_default_context


def as_in_python_3_13(
    purpose: ssl.Purpose = ssl.Purpose.SERVER_AUTH, *, cafile: str | None = None, cadata: str | bytes | None = None
) -> ssl.SSLContext:
    """https://docs.python.org/3.13/library/ssl.html#ssl.create_default_context: these two flags are on."""
    context = _original(purpose, cafile=cafile, cadata=cadata)
    if purpose is ssl.Purpose.SERVER_AUTH:
        context.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


async def shake_hands(server: Server, client: ssl.SSLContext, name: str = "127.0.0.1") -> BaseException | None:
    """What a client meets that connects to a server on 127.0.0.1 by this name; None if it trusts it."""

    async def bye(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    listening = await asyncio.start_server(bye, "127.0.0.1", 0, ssl=server.context())
    port = listening.sockets[0].getsockname()[1]
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=client, server_hostname=name)
        writer.close()
        await writer.wait_closed()
    except OSError as error:
        return error
    finally:
        listening.close()
        await listening.wait_closed()
    return None


@pytest.mark.parametrize("flags", ["as here", "as in Python 3.13"])
@pytest.mark.parametrize("identifiers", [True, False])
async def test_certificates_without_key_identifiers_are_taken_and_verified(
    flags: str, identifiers: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ca, other = Ca(tmp_path, identifiers=identifiers), Ca(tmp_path, "other", identifiers=identifiers)
    server, named = ca.server(), ca.server(["api.example.com"])
    if flags != "as here":
        monkeypatch.setattr(ssl, "create_default_context", as_in_python_3_13)
        strict = as_in_python_3_13(cafile=str(ca.file))
        assert (await shake_hands(server, strict) is None) is identifiers
    context = client_context(cafile=str(ca.file))
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert await shake_hands(server, context) is None
    assert isinstance(await shake_hands(named, context), ssl.SSLCertVerificationError)
    assert isinstance(await shake_hands(other.server(), context), ssl.SSLCertVerificationError)


async def test_the_file_adds_to_the_systems_cas(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system, private = Ca(tmp_path, "system"), Ca(tmp_path, "private", identifiers=False)
    monkeypatch.setenv("SSL_CERT_FILE", str(system.file))
    of_system, of_private = system.server(), private.server()
    alone, both = cloud_context(None), cloud_context(private.file)
    assert await shake_hands(of_system, alone) is None
    assert await shake_hands(of_private, alone) is not None
    assert await shake_hands(of_system, both) is None
    assert await shake_hands(of_private, both) is None


async def test_a_file_that_changes_is_followed_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    first, second = Ca(tmp_path, "first"), Ca(tmp_path, "second")
    of_first, of_second = first.server(), second.server()
    mounted = tmp_path / "ca.pem"

    def mount(text: str) -> None:
        """As the kubelet does it: a new file takes the place of the old one."""
        fresh = tmp_path / "fresh"
        fresh.write_text(text)
        fresh.rename(mounted)

    mount(first.pem)
    context = cloud_context(mounted)
    assert await shake_hands(of_first, context) is None
    assert await shake_hands(of_second, context) is not None
    mount(first.pem + second.pem)
    assert await shake_hands(of_first, context) is None
    assert await shake_hands(of_second, context) is None
    mount(second.pem)
    assert await shake_hands(of_first, context) is not None
    assert await shake_hands(of_second, context) is None
    assert [record.levelname for record in caplog.records] == ["INFO", "INFO"]
    for wrong in ("", "nonsense", second.key_pem, second.pem[:200]):
        caplog.clear()
        mount(wrong)
        assert await shake_hands(of_second, context) is None
        assert await shake_hands(of_second, context) is None
        (record,) = caplog.records
        assert record.levelname == "ERROR"
        assert "the former ones stay" in record.getMessage()
        assert "PRIVATE KEY-----" not in record.getMessage()
    mounted.unlink()
    assert await shake_hands(of_second, context) is None
    mount(first.pem)
    assert await shake_hands(of_first, context) is None


async def test_protocols_that_were_asked_for_are_asked_for_after_a_change(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    context = cloud_context(ca.file)
    context.set_alpn_protocols(["http/1.1"])
    os.utime(ca.file, (1, 1))

    def chosen() -> str | None:
        serving = ca.server().context()
        serving.set_alpn_protocols(["http/1.1"])
        to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = context.wrap_bio(to_client, to_server, server_hostname="localhost")
        server = serving.wrap_bio(to_server, to_client, server_side=True)
        for side in (client, server) * 3:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
        return client.selected_alpn_protocol()

    assert chosen() == "http/1.1"


def test_a_context_that_follows_trusts_nobody_by_itself(tmp_path: Path) -> None:
    context = FollowingContext(lambda: client_context(str(Ca(tmp_path).file)))
    assert (context.check_hostname, context.verify_mode) == (True, ssl.CERT_REQUIRED)
    assert context.cert_store_stats()["x509"] == 0


BAD: list[tuple[str, Callable[[Ca], bytes], str]] = [
    ("empty", lambda _: b"", "is empty"),
    ("blank", lambda _: b" \n\n", "is empty"),
    ("text", lambda _: b"hello", "no whole certificate in PEM"),
    ("der", lambda ca: ca.der, "openssl x509 -inform der"),
    ("key", lambda ca: ca.key_pem.encode(), "holds a private key"),
    ("key and certificate", lambda ca: (ca.pem + ca.key_pem).encode(), "holds a private key"),
    ("rsa key", lambda _: b"-----BEGIN RSA PRIVATE KEY-----\nMIIB\n-----END RSA PRIVATE KEY-----\n", "a private key"),
    ("encrypted key", lambda _: b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIB\n", "holds a private key"),
    ("request", lambda _: b"-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n", "but CERTIFICATE REQUEST"),
    ("pkcs7", lambda _: b"-----BEGIN PKCS7-----\nMIIB\n-----END PKCS7-----\n", "but PKCS7"),
    ("cut off", lambda ca: ca.pem.encode()[:300], "no whole certificate"),
    ("second cut off", lambda ca: (ca.pem + ca.pem[:300]).encode(), "a certificate that is cut off"),
    ("damaged", lambda ca: ca.pem.replace("MII", "AAA").encode(), "cannot be read"),
    ("utf-16", lambda ca: ca.pem.encode("utf-16"), "no whole certificate in PEM"),
    ("json", lambda ca: ca.pem.replace("\n", "\\n").encode(), "no whole certificate in PEM"),
    ("html", lambda _: b"<html>404</html>", "no whole certificate in PEM"),
    ("huge", lambda ca: ca.pem.encode() * 10_000, "larger than 4 MiB"),
]


@pytest.mark.parametrize(("content", "remedy"), [case[1:] for case in BAD], ids=[case[0] for case in BAD])
def test_a_file_that_is_no_bundle_says_what_to_do(content: Callable[[Ca], bytes], remedy: str, tmp_path: Path) -> None:
    path = tmp_path / "given.pem"
    path.write_bytes(content(Ca(tmp_path)))
    with pytest.raises(CaFileError, match=remedy) as raised:
        read_ca_file(path)
    assert str(path) in str(raised.value)
    assert "\n" not in str(raised.value)
    assert "MII" not in str(raised.value)


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "absent", tmp_path):
        with pytest.raises(CaFileError, match=rf"{path}' cannot be read: "):
            read_ca_file(path)


def test_a_bundle_may_have_comments_a_mark_and_windows_lines(tmp_path: Path) -> None:
    ca, other = Ca(tmp_path), Ca(tmp_path, "other")
    path = tmp_path / "bundle"
    text = f"\ufeff{ca.pem}\n# \u00dc-CA \u4e2d\u6587\nSubject: x\n{other.pem}".replace("\n", "\r\n")
    path.write_bytes(text.encode())
    assert read_ca_file(path).count("BEGIN") == 2
    assert client_context(cadata=read_ca_file(path)).cert_store_stats()["x509"] == 2


async def test_the_cause_of_a_failed_handshake_and_its_remedy(tmp_path: Path) -> None:
    ca, other = Ca(tmp_path), Ca(tmp_path, "other")
    context = client_context(str(ca.file))

    async def told(server: Server, name: str = "127.0.0.1", side: str = "cloud") -> str | None:
        error = await shake_hands(server, context, name)
        assert error is not None
        return explain(error, side)

    unknown = await told(other.server())
    assert unknown is not None
    assert "unable to get local issuer certificate" in unknown
    assert "--ca-file" in unknown
    assert "ca.crt of the service account" in str(await told(other.server(), side="cluster"))
    assert "for another name" in str(await told(ca.server(["api.example.com"])))
    assert "for another name" in str(await told(ca.server(["api.example.com"]), "cce.example.com"))
    assert "expired" in str(await told(ca.server(age=timedelta(days=9))))
    assert "not yet valid" in str(await told(ca.server(age=timedelta(days=-9))))
