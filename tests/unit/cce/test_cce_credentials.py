"""Credentials as they come out of a Secret: what is accepted, what each refusal names, what is never shown.

Not for: reading the Secret.
"""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.cce.credentials import AccessKey, Credentials, CredentialsError, Token, parse_credentials

SECRET = b"VERYSECRET"


def test_both_kinds_with_white_space_around() -> None:
    pair = {"accessKey": b"AK\n", "secretKey": b" secret-key \r\n", "unrelated": b"\xff"}
    assert parse_credentials(pair, "ns") == AccessKey("AK", "secret-key")
    temporary = {**pair, "securityToken": b"security-token\n"}
    assert parse_credentials(temporary, "ns") == AccessKey("AK", "secret-key", "security-token")
    assert parse_credentials({"token": b"an-iam-token\n"}, "ns") == Token("an-iam-token")


def test_white_space_around_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    for _ in range(3):
        parse_credentials({"token": b"once-told-token\r\n"}, "ns")
        parse_credentials({"token": b"a-clean-token"}, "ns")
    [told] = [record.getMessage() for record in caplog.records]
    assert "token has white space around it" in told
    assert "line break" in told
    assert "once-told" not in told


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({}, "no key accessKey"),
        ({"secretKey": SECRET}, "no key accessKey"),
        ({"accessKey": SECRET}, "no key secretKey"),
        ({"securityToken": SECRET}, "no key accessKey"),
        ({"accessKey": b"", "secretKey": SECRET}, "accessKey is empty"),
        ({"accessKey": SECRET, "secretKey": b" \n"}, "secretKey is empty"),
        ({"accessKey": SECRET, "secretKey": SECRET, "securityToken": b""}, "securityToken is empty"),
        ({"token": b""}, "token is empty"),
        ({"token": SECRET, "accessKey": SECRET}, "both token and accessKey"),
        ({"token": SECRET, "secretKey": SECRET}, "both token and secretKey"),
        ({"token": SECRET + b"\n" + SECRET}, "token has white space or line breaks within"),
        ({"token": SECRET + b"\r\nX-Evil: 1"}, "token has white space or line breaks within"),
        ({"token": SECRET + b"\x1b[0m"}, "token has control characters"),
        ({"accessKey": SECRET, "secretKey": SECRET + b"\x00"}, "secretKey has control characters"),
        ({"token": SECRET + b"\xff"}, "token is not ASCII"),
        ({"accessKey": "VERYSECRÉT".encode(), "secretKey": SECRET}, "accessKey is not ASCII"),
    ],
)
def test_a_refusal_names_the_key_and_the_remedy_never_a_value(data: dict[str, bytes], named: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        parse_credentials(data, "ns")
    text = str(caught.value)
    assert named in text
    assert ":" in text
    assert "VERYSECR" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


AK, SK = b"HPUAQ7XKZ3M5T9WB2CDE", b"k3yOfFortyCharactersAsTheConsoleShowsIt0"
PAIR = {"accessKey": AK, "secretKey": SK}
TOKEN = b"MIISkgYJKoZIhvcNAQcCoIISgzCCEn8CAQExDTALBglghkgBZQMEAgEwghCk"


def test_what_the_console_shows_is_well_formed() -> None:
    assert len(AK) == 20
    assert len(SK) == 40
    assert parse_credentials(PAIR, "ns") == AccessKey(AK.decode(), SK.decode())
    assert parse_credentials({"token": TOKEN}, "ns") == Token(TOKEN.decode())
    assert parse_credentials({"token": b"a-token-with=signs=="}, "ns") == Token("a-token-with=signs==")
    other = {"accessKey": b"other-brand", "secretKey": b"its:own/form+of=key"}
    assert parse_credentials(other, "ns") == AccessKey("other-brand", "its:own/form+of=key")


@pytest.mark.parametrize(
    ("data", "named"),
    [
        ({"accessKey": SK, "secretKey": AK}, "accessKey and secretKey are swapped: exchange"),
        ({"accessKey": SK + b"\n", "secretKey": b" " + AK}, "accessKey and secretKey are swapped: exchange"),
        ({"accessKey": SK, "secretKey": SK}, "accessKey has the form of a secret key"),
        ({"accessKey": AK, "secretKey": AK}, "secretKey has the form of an access key"),
        ({"accessKey": b"other-brand", "secretKey": b"other-brand"}, "are the same"),
        ({"accessKey": AK + b"," + SK, "secretKey": SK}, "accessKey is a pair of access key and secret key"),
        ({"accessKey": AK, "secretKey": AK + b" : " + SK}, "secretKey is a pair of access key and secret key"),
        ({"accessKey": AK, "secretKey": AK + b"\n" + SK}, "secretKey is a pair of access key and secret key"),
        ({"token": AK + b"/" + SK}, "token is a pair of access key and secret key"),
        ({"accessKey": b'{"access": "' + AK + b'"}', "secretKey": SK}, "accessKey is a JSON document"),
        ({"token": b'[{"token": "' + TOKEN + b'"}]'}, "token is a JSON document"),
        ({"accessKey": AK, "secretKey": b'"' + SK + b'"'}, "secretKey is in quotes"),
        ({"token": b"'" + TOKEN + b"'"}, "token is in quotes"),
        ({"accessKey": base64.b64encode(AK), "secretKey": SK}, "accessKey is base64 of base64"),
        ({"accessKey": AK, "secretKey": base64.b64encode(SK + b"\n")}, "secretKey is base64 of base64"),
        ({"token": base64.b64encode(TOKEN)}, "token is base64 of base64"),
        ({**PAIR, "securityToken": base64.b64encode(base64.b64encode(TOKEN))}, "securityToken is base64 of base64"),
        ({"accessKey": AK, "secretKey": b"SecretAccessKey=" + SK}, "secretKey begins with a name"),
        ({"accessKey": b"export HUAWEICLOUD_SDK_AK=" + AK, "secretKey": SK}, "accessKey begins with a name"),
        ({"token": b"token: " + TOKEN}, "token begins with a name"),
        ({"token": b"Bearer " + TOKEN}, "token begins with Bearer"),
        ({"accessKey": AK, "secretKey": SK[:20] + b"\n" + SK[20:]}, "secretKey has white space or line breaks within"),
        (
            {"accessKey": b'User Name,Access Key Id,Secret Access Key\n"me",' + AK + b"," + SK, "secretKey": SK},
            "accessKey is the whole file credentials.csv",
        ),
        ({"accessKey": AK, "secretKey": b"-----BEGIN PRIVATE KEY-----\nMII\n"}, "secretKey is a certificate or"),
        (
            {"accessKey": AK, "secretKey": b"REPLACE-WITH-YOUR-SECRET-KEY"},
            "secretKey is still the sample's placeholder",
        ),
        ({"accessKey": AK, "secretKey": SK[:7]}, "secretKey has fewer than 8 characters"),
        ({"accessKey": AK, "secretKey": "密钥".encode()}, "secretKey is not ASCII"),
        ({"accessKey": AK, "secretKey": bytes(range(256))}, "secretKey is not ASCII"),
    ],
)
def test_a_malformed_secret_is_recognised_before_it_is_sent(data: dict[str, bytes], named: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        parse_credentials(data, "ns")
    text = str(caught.value)
    assert named in text
    assert ":" in text
    for value in (AK, SK, TOKEN):
        assert value[:6].decode() not in text
    assert "me" not in text.split()


@pytest.mark.parametrize("credentials", [AccessKey("AK", "VERYSECRET", "VERYSECRET"), Token("VERYSECRET")])
def test_nothing_secret_is_printed(credentials: Credentials) -> None:
    for text in (repr(credentials), str(credentials), credentials.identity, credentials.fingerprint):
        assert "VERYSECRET" not in text
        assert base64.b64encode(SECRET).decode() not in text


def test_the_write_budget_is_kept_by_access_key_or_token() -> None:
    """The cloud counts by key: a temporary pair renewed with the same key shares its budget (rule P23)."""
    assert AccessKey("AK", "a").identity == AccessKey("AK", "b", "t").identity != AccessKey("OTHER", "a").identity
    assert Token("a").identity == Token("a").identity != Token("b").identity
    assert Token("AK").identity != AccessKey("AK", "s").identity


ascii_text = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=8)
all_credentials = st.builds(AccessKey, ascii_text, ascii_text, st.none() | ascii_text) | st.builds(Token, ascii_text)


@given(all_credentials, all_credentials)
def test_fingerprints_are_equal_for_equal_credentials_only(one: Credentials, other: Credentials) -> None:
    """Rule P14: nobody reads a listing that was made with another's key."""
    assert (one.fingerprint == other.fingerprint) == (one == other)
