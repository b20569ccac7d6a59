"""The registry of secret values: every form in which clouds echo them, how long they are known, what it costs.

Not for: the places that text leaves by (`test_secrets_stay`).
"""

import base64
import math
import time
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.redaction import REDACTED, Redactor
from unit.echoes import FORMS

SECRET_KEY = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYzEXAMPLEKEY=="
JWT = "eyJhbGciOiJSUzI1NiIsImtpZCI6IjEifQ." + "eyJzdWIiOiJzeXN0ZW0ifQ" * 40 + ".c2lnbmF0dXJl"
VALUES = [SECRET_KEY, JWT]


def knowing(*values: str) -> Redactor:
    redactor = Redactor()
    for value in values:
        redactor.register(value)
    return redactor


@pytest.mark.parametrize("value", VALUES, ids=["secret key", "jwt"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_taken_out(form: str, value: str) -> None:
    echoed = FORMS[form](value)
    said = f"Incorrect IAM authentication information: ak {echoed} not exist"
    clean = knowing(*VALUES).redact(said)
    assert clean.startswith("Incorrect IAM authentication information: ak ")
    assert clean.endswith("not exist")
    assert REDACTED in clean
    left = clean.removeprefix("Incorrect IAM authentication information: ak ").removesuffix("not exist")
    assert not any(map(str.isalnum, left.replace(REDACTED, "").removeprefix("b"))), "quotes may stay, nothing else"


@pytest.mark.parametrize("form", ["plain", "json", "url-encoded", "half", "8 characters", "base64"])
def test_a_token_of_16_kb_goes_to_its_end(form: str) -> None:
    token = "MIIE" + base64.b64encode(bytes(number * 7 % 251 for number in range(12_000))).decode()
    clean = knowing(token).redact(f"token {FORMS[form](token).removesuffix('...')} expired")
    assert clean.replace('"', "") == f"token {REDACTED} expired"


@pytest.mark.parametrize("start", range(20))
def test_any_long_piece_of_a_key_is_taken_out(start: int) -> None:
    assert knowing(SECRET_KEY).redact(f"ak ***{SECRET_KEY[start : start + 24]}***") == f"ak ***{REDACTED}***"


def test_what_is_no_secret_stays() -> None:
    redactor = knowing(*VALUES)
    text = (
        '400 CCE.01400001: {"error_msg":"server aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee: 50%25 of C:\\\\dir is wrong",'
        '"hash":"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}\n 中文 & <b>\n'
    )
    assert redactor.redact(text) == text
    assert redactor.redact("") == ""


def test_several_values_in_one_text() -> None:
    text = f"{SECRET_KEY} and {JWT}, {quote(SECRET_KEY)}{SECRET_KEY}."
    assert knowing(*VALUES).redact(text) == f"{REDACTED} and {REDACTED}, {REDACTED}."


def test_values_that_begin_alike_are_taken_out_each_to_its_end() -> None:
    one, two = JWT + "one", JWT[:30] + "another-one"
    redactor = knowing(one, two)
    assert redactor.redact(f"a {one} b {two} c") == f"a {REDACTED} b {REDACTED} c"


@pytest.mark.parametrize(
    "text",
    [
        "X-Auth-Token: abcdef123",
        '"x-security-token":"abcdef123"',
        "authorization:SDK-HMAC-SHA256 Access=AK, SignedHeaders=host, Signature=abcdef123",
        "Authorization: Bearer abcdef123",
        "proxy http://me:abcdef123@proxy:3128 refuses",
        "content-type:json|x-security-token:abcdef123||hash",
    ],
)
def test_a_label_gives_away_what_nobody_registered(text: str) -> None:
    assert "abcdef123" not in Redactor().redact(text)
    assert REDACTED in Redactor().redact(text)


def test_documents_are_cleaned_inside_and_keep_their_shape() -> None:
    document = {SECRET_KEY: 1, "list": [f"a {SECRET_KEY}", None, True, 1.5, {"deep": quote(SECRET_KEY)}]}
    assert knowing(SECRET_KEY).redact_json(document) == {
        REDACTED: 1,
        "list": [f"a {REDACTED}", None, True, 1.5, {"deep": REDACTED}],
    }


def test_an_id_is_a_secret_only_where_it_is_registered() -> None:
    secret, other = "0b6f1a52-3c1d-4e5f-8a9b-0c1d2e3f4a5b", "9b6f1a52-3c1d-4e5f-8a9b-0c1d2e3f4a5b"
    assert knowing(secret).redact_json([secret, other, secret.upper()]) == [REDACTED, other, REDACTED]


def test_a_value_is_known_for_its_time_and_a_use_prolongs_it() -> None:
    now = 0.0
    redactor = Redactor(clock=lambda: now)
    redactor.register(SECRET_KEY, 60)
    now = 50.0
    redactor.register(SECRET_KEY, 60)
    redactor.register(SECRET_KEY, 1)
    now = 100.0
    redactor.register("something else", 60)
    assert redactor.redact(SECRET_KEY) == REDACTED
    now = 120.0
    redactor.register("a third one", 60)
    assert redactor.redact(SECRET_KEY) == SECRET_KEY
    now = 200.0
    redactor.register("a fourth one", 60)
    assert len(redactor._values) == 1
    assert redactor._bytes == redactor._values["a fourth one"].size


def test_what_is_known_for_longer_keeps_nothing_else() -> None:
    now = 0.0
    redactor = Redactor(clock=lambda: now, max_bytes=100_000)
    redactor.register("for ever and ever", math.inf)
    for number in range(1_000):
        now += 1
        redactor.register(SECRET_KEY, 3600)
        redactor.register(f"{number:08} is a signature", 5)
    assert len(redactor._values) <= 8
    for number in range(1_000):
        redactor.register(f"{number:08} of a flood", 3600)
    assert redactor.redact("for ever and ever") == REDACTED


def test_nothing_is_left_of_what_is_forgotten() -> None:
    now = 0.0
    redactor = Redactor(clock=lambda: now)
    for value in [*VALUES, SECRET_KEY + "2", JWT[:40]]:
        redactor.register(value, 1)
    now = 2.0
    redactor.register("last one", 1)
    now = 4.0
    redactor._make_room()
    assert (redactor._values, redactor._index, redactor._bytes) == ({}, {}, 0)


def test_bounded_and_those_in_use_outlast_a_flood() -> None:
    redactor = Redactor(max_bytes=200_000)
    for number in range(2_000):
        redactor.register(SECRET_KEY)
        redactor.register(f"{number:08} of a flood")
        assert redactor._bytes < 210_000
    assert redactor.redact(f"x {SECRET_KEY}") == f"x {REDACTED}"
    assert redactor.redact("00000001 of a flood") == "00000001 of a flood"
    assert redactor.redact("00001999 of a flood") == REDACTED


def test_values_too_short_to_tell_are_not_taken() -> None:
    assert knowing("", "short", "7 chars").redact("short 7 chars") == "short 7 chars"


def test_a_long_text_costs_milliseconds_however_many_values_are_known() -> None:
    """Compared within one run: ten times the values may not cost twice the time."""
    text = "the cloud answered 400 CCE.01400001 for a server of the pool, and goes on to say why: " * 40

    def seconds(count: int) -> float:
        redactor = knowing(*(f"{number:05}-a-secret-key-of-forty-characters-" for number in range(count)))
        best = float("inf")
        for _ in range(5):
            begun = time.process_time()
            redactor.redact(text)
            best = min(best, time.process_time() - begun)
        return best

    assert seconds(3000) < 5 * seconds(30) + 0.01


printable = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=8, max_size=60)


@given(printable, st.text(max_size=30), st.text(max_size=30), st.sampled_from(["plain", "json", "url-encoded"]))
def test_any_value_between_any_texts(value: str, before: str, after: str, form: str) -> None:
    clean = knowing(value).redact(f"{before} {FORMS[form](value)} {after}")
    assert value.lower() not in clean.replace(REDACTED, "\0").lower() or value.lower() in f"{before} {after}".lower()
    assert REDACTED in clean


@given(st.text(max_size=300))
def test_any_text_without_a_secret_is_left_alone(text: str) -> None:
    assert knowing("Qx9" * 14).redact(text) == text
