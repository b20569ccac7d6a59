"""Our signatures are the official SDK's, byte for byte, and the two published vectors come out.

Not for: how a server checks them; test_simulator_auth.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from urllib.parse import quote, urlencode

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.sdk_request import SdkRequest
from huaweicloudsdkcore.signer.signer import Signer
from hypothesis import example, given
from hypothesis import strategies as st

from nodepool_membership.cce.credentials import AccessKey, Token
from nodepool_membership.cce.signing import SignatureAuth, authentication, sdk_date, sign

HOST = "cce.cn-north-4.myhuaweicloud.com"
PROJECT = "0123456789abcdef0123456789abcdef"
CLUSTER = f"/api/v3/projects/{PROJECT}/clusters/11111111-2222-3333-4444-555555555555"
DATE = "20260102T030405Z"
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NO_SLASH = False
"""No slash at the end of the path: hypothesis takes the values of an example by position."""
EXAMPLE = AccessKey("AKEXAMPLE", "SKEXAMPLE")
FOUR = "content-type;host;x-project-id;x-sdk-date"

Pairs = Sequence[tuple[str, str]]

printable = st.characters(min_codepoint=0x20, max_codepoint=0x7E)
keys = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=40)
segments = st.text(st.characters(exclude_categories=("Cs", "Cc"), exclude_characters="/"), min_size=1, max_size=12)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
queries = st.lists(st.tuples(st.one_of(st.sampled_from(("limit", "marker")), texts), texts), max_size=6)
header_names = st.from_regex(r"\A[A-Za-z][A-Za-z0-9-]{0,12}\Z").map(lambda name: f"X-{name}")
header_values = st.text(printable, max_size=20)


def by_sdk(key: AccessKey, method: str, path: str, query: Pairs, headers: dict[str, str], body: bytes) -> str:
    """What the official SDK puts into Authorization; path and query not encoded."""
    request = SdkRequest(
        method=method,
        schema="https",
        host=headers.get("Host", HOST),
        resource_path=path,
        query_params=list(query),
        header_params=dict(headers),
        body=body,
    )
    signed = Signer(BasicCredentials(key.access_key, key.secret_key)).sign(request)
    value = signed.header_params["Authorization"]
    assert isinstance(value, str)
    return value


def encoded(path: str, query: Pairs) -> tuple[str, str]:
    return quote(path, safe="/~"), urlencode(query)


@given(
    key=st.builds(AccessKey, keys, keys),
    method=st.sampled_from(("GET", "POST", "PUT", "DELETE", "post")),
    path=st.lists(segments, max_size=4).map(lambda parts: "/" + "/".join(parts)),
    trailing=st.booleans(),
    query=queries,
    more=st.dictionaries(header_names, header_values, max_size=4),
    body=st.one_of(st.just(b""), st.binary(max_size=60)),
)
@example(
    EXAMPLE,
    "GET",
    "/a b/c+d/%41/~e",
    NO_SLASH,
    [("k", ""), ("k", "b"), ("k", "a"), ("{", "~"), ("a", "+ /=&%")],
    {},
    b"",
)
@example(EXAMPLE, "POST", "/", NO_SLASH, [], {"X-Spaces": "  within  and around  "}, b"\x00\xff")
def test_signature_is_the_official_sdks(
    key: AccessKey, method: str, path: str, trailing: bool, query: Pairs, more: dict[str, str], body: bytes
) -> None:
    path = path + "/" if trailing else path
    # Names that differ by case only are one header on the wire; X-Sdk-* has a meaning of its own.
    by_name = {name.lower(): name for name in more if not name.lower().startswith("x-sdk-")}
    headers = {name: more[name] for name in by_name.values()}
    headers |= {"Content-Type": "application/json", "Host": HOST, "X-Sdk-Date": DATE}
    raw_path, raw_query = encoded(path.replace("%", "%25"), query)
    # The SDK decodes the path before it encodes it: it is given what stands in the URL.
    theirs = by_sdk(key, method, raw_path, query, headers, body)
    assert sign(key, method, raw_path, raw_query, headers, body) == theirs


@given(
    key=st.builds(AccessKey, keys, keys, st.none() | keys),
    method=st.sampled_from(("GET", "POST")),
    path=st.lists(segments, min_size=1, max_size=4).map("/".join),
    query=queries,
    body=st.binary(max_size=60),
    moment=st.integers(0, 4_000_000_000).map(lambda seconds: datetime.fromtimestamp(seconds, UTC)),
)
def test_what_httpx_sends_is_signed_as_the_sdk_would_have_signed_it(
    key: AccessKey, method: str, path: str, query: Pairs, body: bytes, moment: datetime
) -> None:
    url = f"https://{HOST}:8443/api/v3/x{quote(path, safe='')}"
    headers = {"Content-Type": "application/json", "X-Project-Id": PROJECT, "User-Agent": "not signed"}
    request = httpx.Request(method, url, params=tuple(query), headers=headers, content=body)
    sent = next(SignatureAuth(key, now=lambda: moment).auth_flow(request))
    wanted = {
        "Content-Type": "application/json",
        "Host": f"{HOST}:8443",
        "X-Project-Id": PROJECT,
        "X-Sdk-Date": sdk_date(moment),
    }
    if key.security_token is not None:
        wanted["X-Security-Token"] = key.security_token
    raw_path = sent.url.raw_path.decode().partition("?")[0]
    assert sent.headers["Authorization"] == by_sdk(key, method, raw_path, query, wanted, body)
    assert {name: sent.headers[name] for name in wanted} == wanted


def test_vector_a_an_add() -> None:
    body = b'{"apiVersion": "v3", "kind": "List", "nodeList": [{"serverID": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}]}'
    path = f"{CLUSTER}/nodepools/66666666-7777-8888-9999-000000000000/nodes/add"
    signature = "b3f156456d57be712bfa9ad502c57cfa449d52ace9e951678d0af107a655a9d3"
    headers = {"Content-Type": "application/json", "X-Project-Id": PROJECT, "X-Sdk-Date": DATE}
    request = httpx.Request("POST", f"https://{HOST}{path}", headers=headers, content=body)
    sent = next(SignatureAuth(EXAMPLE, now=never).auth_flow(request))
    assert sent.headers["Authorization"] == (
        f"SDK-HMAC-SHA256 Access=AKEXAMPLE, SignedHeaders={FOUR}, Signature={signature}"
    )


def test_vector_b_a_listing_with_a_security_token() -> None:
    key = AccessKey("AKEXAMPLE", "SKEXAMPLE", "TOK")
    signature = "c23ba242d8775e51f1dc7f36e247cc1be042da53a8d3e195aa79acbd431abdae"
    headers = {"Content-Type": "application/json", "X-Project-Id": PROJECT}
    query = {"limit": "2", "marker": "m/1 x"}
    request = httpx.Request("GET", f"https://{HOST}{CLUSTER}/nodes", params=query, headers=headers)
    sent = next(SignatureAuth(key, now=lambda: MOMENT).auth_flow(request))
    assert sent.headers["Authorization"] == (
        f"SDK-HMAC-SHA256 Access=AKEXAMPLE, SignedHeaders={FOUR};x-security-token, Signature={signature}"
    )


@pytest.mark.parametrize(
    "moment",
    [MOMENT, MOMENT.replace(microsecond=999_999), MOMENT.astimezone(timezone(timedelta(hours=8)))],
)
def test_date_is_utc_in_whole_seconds(moment: datetime) -> None:
    assert sdk_date(moment) == DATE


def test_a_date_that_is_set_already_is_kept_and_signed() -> None:
    """Rule P5: the signature's date is the stored submitTime, whatever the clock says now."""
    request = httpx.Request("GET", f"https://{HOST}/x", headers={"X-Sdk-Date": DATE})
    sent = next(SignatureAuth(EXAMPLE, now=never).auth_flow(request))
    assert sent.headers["X-Sdk-Date"] == DATE
    assert "x-sdk-date" in sent.headers["Authorization"]


def test_a_token_is_sent_as_it_is_and_nothing_is_signed() -> None:
    request = httpx.Request("GET", f"https://{HOST}/x")
    sent = next(authentication(Token("a.token+="), now=never).auth_flow(request))
    assert sent.headers["X-Auth-Token"] == "a.token+="
    assert "Authorization" not in sent.headers


def test_each_authentication_makes_one_request_only() -> None:
    for credentials in (EXAMPLE, Token("t")):
        flow = authentication(credentials, now=lambda: MOMENT).auth_flow(httpx.Request("GET", f"https://{HOST}/x"))
        next(flow)
        with pytest.raises(StopIteration):
            flow.send(httpx.Response(401))


def never() -> datetime:
    raise AssertionError("the clock is not to be asked")
