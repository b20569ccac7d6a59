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
    pair = {"accessKey": b"AK\n", "secretKey": b" SK \r\n", "unrelated": b"\xff"}
    assert parse_credentials(pair) == AccessKey("AK", "SK")
    assert parse_credentials({**pair, "securityToken": b"ST\n"}) == AccessKey("AK", "SK", "ST")
    assert parse_credentials({"token": b"T\n"}) == Token("T")


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
        ({"token": SECRET + b"\n" + SECRET}, "token has control characters"),
        ({"token": SECRET + b"\r\nX-Evil: 1"}, "token has control characters"),
        ({"accessKey": SECRET, "secretKey": SECRET + b"\x00"}, "secretKey has control characters"),
        ({"token": SECRET + b"\xff"}, "token is not ASCII"),
        ({"accessKey": "VERYSECRÉT".encode(), "secretKey": SECRET}, "accessKey is not ASCII"),
    ],
)
def test_a_refusal_names_the_key_and_the_remedy_never_a_value(data: dict[str, bytes], named: str) -> None:
    with pytest.raises(CredentialsError) as caught:
        parse_credentials(data)
    text = str(caught.value)
    assert named in text
    assert ":" in text
    assert "VERYSECR" not in text
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__ or caught.value.__context__ is None


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
