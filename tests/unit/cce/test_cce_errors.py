"""Which answer or failure is which error: rule P6 row by row. A wrong row here is a server wiped twice.

Not for: that the client raises them; test_cce_client.
"""

import json

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.errors import (
    CloudError,
    ForbiddenError,
    LockedError,
    NotFoundError,
    NotSentError,
    OutcomeUnknownError,
    RefusedError,
    ThrottledError,
    UnauthenticatedError,
    UnavailableError,
    from_answer,
    from_transport,
    retry_after,
)
from nodepool_membership.core.observed.catalogue import refusal

HTML = b"<html><head><title>504 Gateway Time-out</title></head></html>"


def documented(code: str, text: str = "no") -> bytes:
    return json.dumps({"errorCode": code, "errorMessage": text}).encode()


def on_the_wire(code: str, second: str) -> bytes:
    """Both families in one body, as the cloud sends them (docs/cloud-facts.md, Errors)."""
    document = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": 400,
        "errorCode": code, "errorMessage": "Invalid request.", "error_code": second,
        "error_msg": "Request is invalid", "message": "the useful detail", "reason": "BadRequest",
    }  # fmt: skip
    return json.dumps(document).encode()


def gateway(code: str, text: str = "no") -> bytes:
    return json.dumps({"error_msg": text, "error_code": code, "request_id": "of-the-body"}).encode()


def error(status: int, body: bytes, *, changes: bool, headers: dict[str, str] | None = None) -> CloudError:
    return from_answer(httpx.Response(status, headers=headers), body, changes=changes)


CERTAIN = [
    # status, code, what it is for any call
    (400, "CCE.01400001", RefusedError),
    (400, "CCE.02400001", RefusedError),
    (400, "CCE.03400001", RefusedError),
    *((400, f"CCE.014000{n:02}", RefusedError) for n in (2, 7, 8, 9, 10, 11, 12, 13, 14, 16, 18, 19, 20, 21, 22)),
    *((400, f"CCE.014000{n}", RefusedError) for n in (25, 34, 99)),
    *((400, f"CCE.014000{n}", LockedError) for n in (23, 24, 74, 75)),
    (400, "E.CFE.4000201", RefusedError),
    (400, "CCE_CM.0004", RefusedError),
    (400, "CCE_CM.0201", RefusedError),
    (401, "CCE.01401001", UnauthenticatedError),
    *((401, f"APIGW.{n}", UnauthenticatedError) for n in ("0301", "0303", "0305", "0307")),
    *((403, f"CCE.014030{n}", ForbiddenError) for n in ("01", "02", "08")),
    *((403, f"CCE.014030{n}", LockedError) for n in ("03", "06", "09")),
    *((403, f"APIGW.{n}", ForbiddenError) for n in ("0302", "0304", "0306", "0310", "0801", "0802")),
    (404, "CCE.01404001", NotFoundError),
    (404, "CCE_CM.0003", NotFoundError),
    (404, "APIGW.0101", NotFoundError),
    (404, "APIGW.0103", NotFoundError),
    *((status, "APIGW.0201", RefusedError) for status in (400, 413, 414)),
    (429, "CCE.01429002", LockedError),
    (429, "CCE.01429003", LockedError),
    (429, "CCE.01429004", RefusedError),
    (429, "CCE.02429001", ThrottledError),
    (429, "CCE.01429099", ThrottledError),
    (429, "APIGW.0308", ThrottledError),
]


@pytest.mark.parametrize(
    ("text", "kind"),
    [("cluster is ScalingUp", LockedError), ("Policy doesn't allow cce:node:add to be performed.", ForbiddenError)],
)
def test_a_state_that_comes_with_the_code_of_a_missing_right_is_of_the_moment(
    text: str, kind: type[CloudError]
) -> None:
    assert type(error(403, documented("CCE.01403001", text), changes=True)) is kind


@pytest.mark.parametrize("changes", [True, False])
@pytest.mark.parametrize(("status", "code", "kind"), CERTAIN)
def test_certain_refusals(status: int, code: str, kind: type[CloudError], *, changes: bool) -> None:
    for body in (documented(code), gateway(code)):
        found = error(status, body, changes=changes)
        assert (type(found), found.status, found.code) == (kind, status, code)


NEVER_CERTAIN = [
    *((status, documented("CCE.01500001")) for status in (500, 502, 503, 504)),
    *((status, HTML) for status in (300, 301, 302, 307, 308, 400, 403, 404, 408, 409, 413, 425, 429)),
    *((status, HTML) for status in (500, 502, 503, 504)),
    *((status, b"") for status in (304, 400, 401, 404, 408, 409, 429, 500, 502, 503, 504)),
    # Known codes with a status that is not theirs, and codes of nobody.
    (500, documented("CCE.01400001")),
    (400, documented("CCE.01500001")),
    (400, documented("CCE.01404001")),
    (429, documented("CCE.01400001")),
    (400, documented("E.CFE.5000201")),
    (400, gateway("APIGW.0308")),
    (429, gateway("APIGW.0301")),
    (400, gateway("APIGW.9999")),
    (502, gateway("APIGW.0201")),
    (504, gateway("APIGW.0201")),
    (500, gateway("APIGW.0601")),
    (502, gateway("APIGW.0610")),
    (503, gateway("APIGW.0613")),
    (429, documented("CCE_CM.0004")),
    (400, documented("Ecs.0314")),
    (400, documented("xCCE.01400001")),
    (400, documented("CCE.01400001 and more")),
    (400, documented("CCE.014000010")),
    (400, documented("E.CFE.400201")),
    (400, documented("CCE.0140000\u0661")),
    # A conflict says that somebody changed something, perhaps this very call sent twice by a proxy.
    (409, documented("CCE.01409001")),
    (409, documented("CCE.01409002")),
    (408, documented("CCE.01408001")),
    # JSON, but not an error as this API writes it; cut off; not a text.
    (400, documented("CCE.01400001")[:-1]),
    (400, b'["CCE.01400001"]'),
    (400, b'"CCE.01400001"'),
    (400, b"null"),
    (400, b'{"errorCode": 1400001}'),
    (400, b'{"errorCode": null, "error_code": ""}'),
    (400, b'{"error": {"code": "CCE.01400001", "message": "nested"}}'),
    (400, b"\xff\xfe{"),
    (400, b"[" * 100_000),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body"), NEVER_CERTAIN)
def test_all_else_leaves_a_change_unknown_and_proves_nothing_to_a_read(status: int, body: bytes) -> None:
    changed = error(status, body, changes=True)
    assert (type(changed), changed.status) == (OutcomeUnknownError, status)
    read = error(status, body, changes=False)
    # A read may take the status for what it says - but never that something does not exist.
    assert type(read) in {UnavailableError, UnauthenticatedError, ForbiddenError, ThrottledError}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, UnauthenticatedError), (403, ForbiddenError), (404, UnavailableError), (429, ThrottledError)],
)
def test_a_read_that_is_refused_without_a_code(status: int, kind: type[CloudError]) -> None:
    assert type(error(status, HTML, changes=False)) is kind


@given(status=st.integers(300, 599), code=st.from_regex(r"\A(CCE|APIGW|CCE_CM|E\.CFE)\.\d{4,8}\Z"))
def test_only_a_few_statuses_can_be_a_certain_refusal(status: int, code: str) -> None:
    found = error(status, documented(code), changes=True)
    if isinstance(found, RefusedError):
        assert status in {400, 401, 403, 404, 413, 414, 429}
    else:
        assert type(found) is OutcomeUnknownError


@given(status=st.integers(300, 599), body=st.binary(max_size=200))
def test_no_body_breaks_the_reading_or_passes_for_a_refusal(status: int, body: bytes) -> None:
    assert type(error(status, body, changes=True)) is OutcomeUnknownError


def test_of_two_codes_the_one_with_the_status_counts() -> None:
    found = error(400, on_the_wire("CCE.01400014", "CCE_CM.0004"), changes=True)
    assert (type(found), found.code) == (RefusedError, "CCE.01400014")
    older = error(400, on_the_wire("E.CFE.4000201", "CCE_CM.0201"), changes=True)
    assert (type(older), older.code) == (RefusedError, "E.CFE.4000201")


def test_every_text_of_the_cloud_is_in_the_message_once() -> None:
    found = error(400, on_the_wire("CCE.01400001", "CCE_CM.0004"), changes=True)
    assert found.message == "Request is invalid: Invalid request.: the useful detail"
    assert str(found) == f"400 CCE.01400001 {found.message}"
    twice = error(400, b'{"errorCode": "CCE.01400001", "errorMessage": "same", "message": "same"}', changes=True)
    assert twice.message == "same"


def test_a_message_is_bounded() -> None:
    assert len(error(400, documented("CCE.01400001", "x" * 100_000), changes=True).message) == 2000


def test_without_json_the_message_says_what_came_instead() -> None:
    found = error(504, HTML, changes=True, headers={"Content-Type": "text/html"})
    assert found.message == "an answer of type text/html, not an error's JSON"


@pytest.mark.parametrize("separator", [", ", ",", ": ", " ", "\n", ""])
@pytest.mark.parametrize("word", ["canonicalRequest", "CanonicalRequest", "canonical_request"])
def test_the_gateways_echo_of_what_was_signed_is_cut(separator: str, word: str) -> None:
    echo = f"{word}:GET|/v3/||host:h|x-security-token:SECRET||host|abc\nx-security-token:SECRET"
    text = f"Incorrect IAM authentication information: verify aksk signature fail{separator}{echo}"
    for body in (gateway("APIGW.0301", text), documented("CCE.01401001", text)):
        found = error(401, body, changes=True)
        assert found.message == "Incorrect IAM authentication information: verify aksk signature fail"
        assert "SECRET" not in repr(found)


def test_the_request_id_is_the_headers_else_the_bodys() -> None:
    assert error(429, gateway("APIGW.0308"), changes=True, headers={"X-Request-Id": "a"}).request_id == "a"
    assert error(429, gateway("APIGW.0308"), changes=True).request_id == "of-the-body"
    assert error(400, documented("CCE.01400001"), changes=True).request_id is None


RETRY_AFTER = [
    (None, None),
    ("7", 7.0),
    ("56.818", 56.818),
    (" 7 ", 7.0),
    ("0", 1.0),
    ("0.2", 1.0),
    ("-5", 1.0),
    ("600.5", 600.0),
    ("99999999999999999999", 600.0),
    ("1e300", 600.0),
    ("nan", None),
    ("inf", None),
    ("-inf", None),
    ("1e999", None),
    ("", None),
    ("soon", None),
    ("Wed, 21 Oct 2026 07:28:00 GMT", None),
]


@pytest.mark.parametrize(("text", "seconds"), RETRY_AFTER)
def test_retry_after(text: str | None, seconds: float | None) -> None:
    headers = {} if text is None else {"Retry-After": text}
    assert retry_after(httpx.Headers(headers)) == seconds
    for changes in (True, False):
        found = error(429, gateway("APIGW.0308"), changes=changes, headers=headers)
        assert isinstance(found, ThrottledError)
        assert found.retry_after == seconds


SENT = "Wed, 21 Oct 2026 07:28:00 GMT"
DATES = [
    ("Wed, 21 Oct 2026 07:28:40 GMT", SENT, 40.0),
    ("Thu, 22 Oct 2026 07:28:00 GMT", SENT, 600.0),
    ("Wed, 21 Oct 2026 07:00:00 GMT", SENT, 1.0),
    ("Wed, 21 Oct 2026 07:28:40 -0000", SENT, None),
    ("Wed, 21 Oct 2026 07:28:40 GMT", "yesterday", None),
    ("Wed, 99 Oct 99999 07:28:40 GMT", SENT, None),
]


@pytest.mark.parametrize(("text", "sent", "seconds"), DATES)
def test_a_date_to_ask_again_at_counts_from_the_clock_that_set_it(text: str, sent: str, seconds: float | None) -> None:
    assert retry_after(httpx.Headers({"Retry-After": text, "Date": sent})) == seconds


@given(st.one_of(st.text(st.characters(codec="ascii")), st.floats().map(str), st.integers().map(str)))
def test_retry_after_is_a_sane_number_or_none(text: str) -> None:
    seconds = retry_after({"Retry-After": text})
    assert seconds is None or 1.0 <= seconds <= 600.0


@pytest.mark.parametrize("changes", [True, False])
@pytest.mark.parametrize(
    "kind",
    [httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol],
)
def test_without_a_connection_nothing_was_sent(kind: type[httpx.HTTPError], *, changes: bool) -> None:
    found = from_transport(kind("why"), changes=changes)
    assert type(found) is NotSentError
    assert found.message == f"{kind.__name__}: why"


@pytest.mark.parametrize(
    "kind",
    [
        httpx.ReadError, httpx.ReadTimeout, httpx.WriteError, httpx.WriteTimeout, httpx.CloseError,
        httpx.RemoteProtocolError, httpx.LocalProtocolError, httpx.DecodingError, httpx.TooManyRedirects,
        httpx.HTTPError,
    ],
)  # fmt: skip
def test_every_other_failure_leaves_a_change_unknown(kind: type[httpx.HTTPError]) -> None:
    assert type(from_transport(kind(""), changes=True)) is OutcomeUnknownError
    read = from_transport(kind(""), changes=False)
    assert type(read) is UnavailableError
    assert read.message == kind.__name__


def test_a_proxy_that_refuses_the_tunnel_has_seen_nothing_of_the_call() -> None:
    """httpcore raises ProxyError for the answer to CONNECT, and for nothing else."""
    found = from_transport(httpx.ProxyError("503 Service Unavailable"), changes=True)
    assert type(found) is NotSentError
    assert "503 Service Unavailable" in found.message
    assert "HTTPS_PROXY" in found.message


@pytest.mark.parametrize("kind", [httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError, httpx.WriteError])
@pytest.mark.parametrize("changes", [True, False])
def test_a_call_that_had_not_begun_to_leave_was_not_sent(kind: type[httpx.HTTPError], *, changes: bool) -> None:
    assert type(from_transport(kind("why"), changes=changes, sent=False)) is NotSentError


def test_what_may_be_concluded_follows_from_the_hierarchy() -> None:
    for certain in (LockedError, ThrottledError, UnauthenticatedError, ForbiddenError, NotFoundError):
        assert issubclass(certain, RefusedError)
    for uncertain in (OutcomeUnknownError, UnavailableError, NotSentError):
        assert not issubclass(uncertain, RefusedError)


@pytest.mark.parametrize(("status", "kind"), [(403, ForbiddenError), (404, UnavailableError), (429, ThrottledError)])
def test_the_code_and_text_of_ecs_are_told_and_decide_nothing(status: int, kind: type[CloudError]) -> None:
    body = json.dumps({"error": {"code": "Ecs.0110", "message": "no such thing"}}).encode()
    read = error(status, body, changes=False)
    assert (type(read), read.code, read.message) == (kind, "Ecs.0110", "no such thing")
    assert type(error(status, body, changes=True)) is OutcomeUnknownError


NO_CALL = [
    (404, {"message": "API not found", "request_id": "r-1"}),
    (404, {"error_msg": "The API does not exist or has not been published in the environment", "request_id": "r"}),
    (404, {"message": "no Route matched with those values"}),
    (404, {"error": "404 page not found"}),
    (404, {"error": {"message": "API not found"}}),
    (405, {"message": "Method Not Allowed"}),
    (501, {"error_msg": "Not Implemented"}),
]


@pytest.mark.parametrize(("status", "document"), NO_CALL)
def test_a_gateway_that_does_not_offer_the_call_refuses_certainly(status: int, document: dict[str, object]) -> None:
    """Case 13 of the field: it was taken for a call of unknown outcome, and 200 servers failed after 92 minutes."""
    changed = error(status, json.dumps(document).encode(), changes=True)
    assert type(changed) is NotFoundError
    assert changed.message in json.dumps(document)
    entry = refusal(status, changed.code or "", changed.message)
    assert (entry.condition, entry.blames) == (Reason.NOT_FOUND, False)
    assert "nodes/add" in entry.remedy


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b"404 page not found"),
        (404, b"<html>API not found</html>"),
        (404, b'{"message": "server not found"}'),
        (400, b'{"message": "API not found"}'),
        (500, b'{"message": "API not found"}'),
        (404, b'{"message": "API not found", "error_code": "Ecs.0114"}'),
    ],
)
def test_what_only_resembles_it_leaves_a_change_unknown(status: int, body: bytes) -> None:
    assert type(error(status, body, changes=True)) is OutcomeUnknownError


@pytest.mark.parametrize("changes", [True, False])
@pytest.mark.parametrize(
    ("document", "message"),
    [
        (
            {"errorCode": "CCE.01400001", "errorMessage": "请求无效", "message": "服务器\u0000已\r\n在集群中"},
            "请求无效: 服务器 已 在集群中",
        ),
        ({"error_code": "CCE_CM.0004", "error_msg": "\u001b[31mred\u001b[0m\u009b2J"}, "[31mred [0m 2J"),
        ({"error_code": "CCE_CM.0004", "error_msg": "a\u2028b\u202ec\u2066d"}, "a b c d"),
        ({"error": {"code": "Ecs.0114", "message": "Instance not found"}}, "Instance not found"),
        ({"itemNotFound": {"code": "404", "message": "no such disk"}}, "no such disk"),
    ],
)
def test_texts_of_any_service_come_as_one_plain_line(document: object, message: str, *, changes: bool) -> None:
    found = error(400, json.dumps(document).encode(), changes=changes)
    assert " ".join(found.message.split()) == message
    assert found.message.isprintable()


def test_a_body_of_a_mebibyte_is_told_in_short() -> None:
    body = json.dumps(
        {"error_code": "CCE_CM.0004", "error_msg": "x y" * (1 << 18), "message": "z" * (1 << 20)}
    ).encode()
    found = error(400, body, changes=True)
    assert len(found.message) == 2000
    assert type(found) is RefusedError


@pytest.mark.parametrize("text", ["x" * 129, "a\nb", "\u001b[31m", "a b", "<script>", "é", ""])
def test_a_request_id_or_code_is_one_plain_word_or_none(text: str) -> None:
    found = error(400, json.dumps({"error_code": text, "error_msg": "no", "request_id": text}).encode(), changes=True)
    assert (found.request_id, found.code) == (None, None)
