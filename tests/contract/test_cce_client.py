"""What the client sends, and what it makes of each answer, over a transport that answers as told.

Not for: the classification of errors (test_cce_errors), or a server that behaves like the cloud (test_cce_simulator).
"""

import asyncio
import contextlib
import gzip
import json
from collections.abc import AsyncIterator, Iterator

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.cce import client as client_module
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import Token
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
)
from nodepool_membership.cce.transport import MAX_ANSWER_BYTES, make_http
from scripted_cloud import (
    CLUSTER,
    ENDPOINT,
    GONE,
    HTML,
    INTENT,
    JOB,
    KEY,
    POOL,
    PROJECT,
    SERVERS,
    Wire,
    always,
    client,
)


async def add(cloud: CloudClient) -> client_module.AcceptedJob:
    return await cloud.add_nodes(CLUSTER, POOL, SERVERS, signed_at=INTENT)


# The add.


async def test_an_add_is_sent_as_documented() -> None:
    wire = always(200, {"jobid": JOB}, X_Request_Id="r-1")
    accepted = await add(client(wire))
    assert (accepted.job_id, accepted.request_id) == (JOB, "r-1")
    (sent,) = wire.seen
    assert sent.method == "POST"
    assert str(sent.url) == (f"{ENDPOINT}/api/v3/projects/{PROJECT}/clusters/{CLUSTER}/nodepools/{POOL}/nodes/add")
    assert json.loads(sent.content) == {
        "apiVersion": "v3",
        "kind": "List",
        "nodeList": [{"serverID": server} for server in SERVERS],
    }
    assert sent.headers["Content-Type"] == "application/json"
    assert sent.headers["X-Project-Id"] == PROJECT
    assert sent.headers["X-Security-Token"] == "TOKEN-IS-SECRET"


async def test_an_add_is_signed_with_the_stored_time_and_a_read_with_the_clocks() -> None:
    """Rule P5."""
    wire = always(200, {"jobid": JOB, "status": {"phase": "Available"}})
    cloud = client(wire)
    await add(cloud)
    await cloud.get_cluster(CLUSTER)
    assert [request.headers["X-Sdk-Date"] for request in wire.seen] == ["20260102T030358Z", "20260102T030405Z"]


@pytest.mark.parametrize("spelling", ["jobid", "jobID", "jobId"])
async def test_the_job_id_is_read_in_each_of_the_clouds_spellings(spelling: str) -> None:
    assert (await add(client(always(200, {spelling: JOB})))).job_id == JOB


async def test_a_token_is_sent_instead_of_a_signature() -> None:
    wire = always(200, {"jobid": JOB})
    await add(client(wire, Token("a-token")))
    assert wire.seen[0].headers["X-Auth-Token"] == "a-token"
    assert "Authorization" not in wire.seen[0].headers


@pytest.mark.parametrize("status", [200, 201, 202, 204])
@pytest.mark.parametrize(
    "body",
    [
        "", "{}", "null", "[]", '"x"', HTML, '{"jobid": null}', '{"jobid": ""}', '{"jobid": 7}',
        '{"jobid": " "}', '{"jobid": "../x"}', '{"jobid": "a\\nb"}', '{"jobid": "%s"}' % ("x" * 129), '{"jobid": "x"',
        '{"status": {"jobID": "x"}}', json.dumps(GONE),
    ],
)  # fmt: skip
async def test_an_accepting_status_without_a_job_id_leaves_the_outcome_unknown(status: int, body: str) -> None:
    wire = always(status, body, X_Request_Id="r-1")
    with pytest.raises(OutcomeUnknownError) as caught:
        await add(client(wire))
    assert (caught.value.status, caught.value.request_id) == (status, "r-1")
    assert len(wire.seen) == 1


REFUSALS = [
    (400, {"errorCode": "CCE.01400001"}, RefusedError),
    (401, {"error_code": "APIGW.0301"}, UnauthenticatedError),
    (403, {"errorCode": "CCE.01403001"}, ForbiddenError),
    (403, {"errorCode": "CCE.01403003"}, LockedError),
    (404, GONE, NotFoundError),
    (429, {"errorCode": "CCE.01429002"}, LockedError),
    (429, {"error_code": "APIGW.0308"}, ThrottledError),
    (429, HTML, OutcomeUnknownError),
    (409, {"errorCode": "CCE.01409002"}, OutcomeUnknownError),
    (301, None, OutcomeUnknownError),
    (307, None, OutcomeUnknownError),
    (308, {"jobid": JOB}, OutcomeUnknownError),
    (500, {"errorCode": "CCE.01500001"}, OutcomeUnknownError),
    (502, HTML, OutcomeUnknownError),
    (503, None, OutcomeUnknownError),
    (504, HTML, OutcomeUnknownError),
]


@pytest.mark.parametrize(("status", "body", "kind"), REFUSALS)
async def test_an_add_is_sent_exactly_once_whatever_is_answered(
    status: int, body: object, kind: type[CloudError]
) -> None:
    """Also no redirect is followed, although the connections of this test would."""
    wire = always(status, body, Location=f"{ENDPOINT}/elsewhere", Retry_After="0", Set_Cookie="a=b")
    with pytest.raises(CloudError) as caught:
        await add(client(wire))
    assert type(caught.value) is kind
    assert len(wire.seen) == 1


FAILURES = [
    (httpx.ConnectError, NotSentError, NotSentError),
    (httpx.ConnectTimeout, NotSentError, NotSentError),
    (httpx.PoolTimeout, NotSentError, NotSentError),
    (httpx.ReadTimeout, OutcomeUnknownError, UnavailableError),
    (httpx.WriteTimeout, OutcomeUnknownError, UnavailableError),
    (httpx.ReadError, OutcomeUnknownError, UnavailableError),
    (httpx.WriteError, OutcomeUnknownError, UnavailableError),
    (httpx.RemoteProtocolError, OutcomeUnknownError, UnavailableError),
]


@pytest.mark.parametrize(("failure", "of_add", "of_read"), FAILURES)
async def test_a_failed_connection(
    failure: type[httpx.TransportError], of_add: type[CloudError], of_read: type[CloudError]
) -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise failure("why")

    wire = Wire(fail)
    with pytest.raises(CloudError) as caught:
        await add(client(wire))
    assert type(caught.value) is of_add
    assert len(wire.seen) == 1
    with pytest.raises(CloudError) as caught:
        await client(wire).get_job(JOB)
    assert type(caught.value) is of_read


async def test_the_whole_call_is_limited_also_when_bytes_trickle() -> None:
    """Each gap is below every time-out of httpx; the sum is not below ours."""

    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                yield b" "
                await asyncio.sleep(0)

    wire = Wire(lambda _: httpx.Response(200, stream=Trickle()))
    cloud = client(wire, timeout=0.05)
    with pytest.raises(OutcomeUnknownError, match="no answer within"):
        await add(cloud)
    with pytest.raises(UnavailableError, match="no answer within"):
        await cloud.get_job(JOB)
    assert len(wire.seen) == 2


class Chunks(httpx.AsyncByteStream):
    """A body in pieces whose length nothing announces; knows whether it was closed."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.parametrize("announced", [True, False])
async def test_an_answer_is_read_only_up_to_a_bound(*, announced: bool) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 2 * MAX_ANSWER_BYTES:
            sent += 1 << 20
            yield b" " * (1 << 20)

    body = Chunks(endless())
    headers = {"Content-Length": str(1 << 40)} if announced else {}
    wire = Wire(lambda _: httpx.Response(200, headers=headers, stream=body))
    with pytest.raises(OutcomeUnknownError, match="more than"):
        await add(client(wire))
    assert sent <= MAX_ANSWER_BYTES + (1 << 20)
    assert body.closed


async def test_the_bound_counts_what_comes_out_of_compression() -> None:
    packed = gzip.compress(b" " * (MAX_ANSWER_BYTES + 1))
    wire = Wire(lambda _: httpx.Response(200, headers={"Content-Encoding": "gzip"}, stream=Chunks(iter([packed]))))
    with pytest.raises(UnavailableError, match="more than"):
        await client(wire).list_nodes(CLUSTER)
    assert len(packed) < MAX_ANSWER_BYTES // 100


async def test_a_body_that_breaks_off_is_no_answer() -> None:
    def broken() -> Iterator[bytes]:
        yield b'{"jobid": '
        raise httpx.RemoteProtocolError("peer closed connection")

    wire = Wire(lambda _: httpx.Response(200, stream=Chunks(broken())))
    with pytest.raises(OutcomeUnknownError):
        await add(client(wire))


async def test_nothing_secret_and_no_echo_is_in_an_error() -> None:
    echo = "verify aksk signature fail, canonicalRequest:POST|/x/||x-security-token:TOKEN-IS-SECRET||x|hash"
    wire = always(401, {"error_code": "APIGW.0301", "error_msg": echo})
    with pytest.raises(UnauthenticatedError) as caught:
        await add(client(wire))
    said = f"{caught.value} {caught.value!r} {caught.value.__dict__} {KEY!r} {Token('TOKEN-IS-SECRET')!r}"
    assert "SECRET" not in said
    assert "POST|" not in said


async def test_a_cancelled_call_is_seen_as_aborted_and_closes_its_answer() -> None:
    started = asyncio.Event()

    async def hang() -> httpx.Response:
        started.set()
        await asyncio.Event().wait()
        raise AssertionError("not reached")

    calls: list[str] = []
    cloud = client(Wire(lambda _: hang()), observe=lambda route, outcome, _: calls.append(f"{route} {outcome}"))
    task = asyncio.create_task(add(cloud))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert calls == ["addNodes aborted"]


async def test_every_call_is_observed_by_route_and_outcome() -> None:
    calls: list[tuple[str, str]] = []

    def observe(route: str, outcome: str, seconds: float) -> None:
        assert 0 <= seconds < 60
        calls.append((route, outcome))

    ok = {"jobid": JOB, "items": [], "status": {"phase": "Available"}}
    cloud = client(always(200, ok), observe=observe)
    await add(cloud)
    await cloud.get_job(JOB)
    await cloud.list_nodes(CLUSTER)
    await cloud.get_node(CLUSTER, "n")
    await cloud.get_node_pool(CLUSTER, POOL)
    await cloud.get_cluster(CLUSTER)
    routes = ["addNodes", "getJob", "listNodes", "getNode", "getNodePool", "getCluster"]
    assert calls == [(route, "ok") for route in routes]
    calls.clear()
    with pytest.raises(OutcomeUnknownError):
        await add(client(always(504, HTML), observe=observe))
    with pytest.raises(ThrottledError):
        await client(always(429, HTML), observe=observe).get_cluster(CLUSTER)
    with pytest.raises(UnavailableError):
        await client(always(404, HTML), observe=observe).get_cluster(CLUSTER)
    assert calls == [("addNodes", "OutcomeUnknown"), ("getCluster", "Throttled"), ("getCluster", "NotFound")]


# The clock.


@pytest.mark.parametrize("status", [200, 401, 504])
async def test_the_clouds_clock_is_read_from_every_answer(status: int) -> None:
    """Rule P21."""
    cloud = client(always(status, {"jobid": JOB}, Date="Fri, 02 Jan 2026 03:14:05 GMT"))
    assert cloud.clock_offset_seconds is None
    with contextlib.suppress(CloudError):
        await add(cloud)
    assert cloud.clock_offset_seconds == 600.0


DATES = [
    "",
    "1767323045",
    "Fri, 02 Jan 2026 03:14:05 -0000",
    "Fri, 99 Jan 2026 03:14:05 GMT",
    "Fri, 02 Jan 99999 03:14:05 GMT",
    "Fri, 02 Jan 2026 03:14:05 +99999999999999",
]


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])) | st.sampled_from(DATES))
async def test_a_date_that_makes_no_sense_costs_no_job_id(date: str) -> None:
    cloud = client(always(200, {"jobid": JOB}, Date=date))
    assert (await add(cloud)).job_id == JOB


async def test_ids_cannot_lead_out_of_their_path() -> None:
    wire = always(200, {"status": {"phase": "x"}})
    await client(wire).get_cluster("a/../../b?c#d e")
    assert wire.seen[0].url.raw_path.endswith(b"/clusters/a%2F..%2F..%2Fb%3Fc%23d%20e")


# The connections.


async def test_the_connections_of_the_process_keep_no_cookies_follow_nothing_and_verify() -> None:
    async with make_http(60) as http:
        assert not http.follow_redirects
        assert (http.timeout.connect, http.timeout.pool, http.timeout.read) == (15, 15, 60)
        answer = httpx.Response(200, headers={"Set-Cookie": "session=1"}, request=httpx.Request("GET", ENDPOINT))
        http.cookies.extract_cookies(answer)
        assert "Cookie" not in http.build_request("GET", ENDPOINT).headers
        assert not http.cookies
