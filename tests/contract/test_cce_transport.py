"""Bodies from endpoints that are hostile or broken: packed, packed twice, cut off, larger than sane."""

import asyncio
import gzip
import json
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Final

import httpx
import pytest
from aiohttp import web
from pydantic import TypeAdapter

import turns
from nodepool_membership.cce import server_wire, wire
from nodepool_membership.cce.calls import MANY_VALUES, ApiAnswer, read, read_page
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import Token
from nodepool_membership.cce.errors import (
    IdentityError,
    OutcomeUnknownError,
    UnavailableError,
    from_answer,
    http_date,
    request_id_of,
)
from nodepool_membership.cce.sources.exchange import Exchange, Via
from nodepool_membership.cce.sources.wire import read_temporary_key
from nodepool_membership.cce.transport import FEW_VALUES, MAX_ANSWER_BYTES, make_http, read_bounded
from scripted_cloud import JOB

GOOD = b'{"status": {"phase": "Running"}}'
PACKED = gzip.compress(GOOD, mtime=0)
"""Without a time: the same in each process of the test runner."""


@contextmanager
def answering(body: bytes, encoding: str, status: int = 200) -> Iterator[str]:
    """The address of a server that answers this to everything."""
    started: Future[tuple[int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Encoding": encoding} if encoding else {})

    async def serve() -> None:
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        end = asyncio.Event()
        started.set_result((int(runner.addresses[0][1]), asyncio.get_running_loop(), end))
        await end.wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    port, loop, end = started.result(30)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        loop.call_soon_threadsafe(end.set)
        thread.join()


async def read_of(body: bytes, encoding: str) -> None:
    with answering(body, encoding) as endpoint:
        async with make_http(10) as http:
            cloud = CloudClient(http, endpoint, "p", Token("token"), now=lambda: datetime.now(UTC), timeout_seconds=10)
            assert (await cloud.get_job(JOB)).job_id == JOB


@pytest.mark.parametrize(
    ("body", "encoding"), [(GOOD, ""), (GOOD, "identity"), (PACKED, "gzip")], ids=["none", "named", "gzip"]
)
async def test_an_answer_is_plain_or_packed_once(body: bytes, encoding: str) -> None:
    await read_of(body, encoding)


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (gzip.compress(PACKED, mtime=0), "gzip, gzip", "content encoding"),
        (PACKED, "gzip,identity", "content encoding"),
        (zlib.compress(GOOD), "deflate", "content encoding"),
        (GOOD, "br", "content encoding"),
        (GOOD, "zstd", "content encoding"),
        (GOOD, "x" * 4000, "content encoding"),
        (GOOD, "gzip", "cannot be unpacked"),
        (PACKED[:-9], "gzip", "cut off"),
        (PACKED + b"more", "gzip", "behind its gzip"),
        (PACKED + PACKED, "gzip", "behind its gzip"),
        (b"", "gzip", "cut off"),
        (gzip.compress(b" " * (MAX_ANSWER_BYTES + 1), mtime=0), "gzip", "more than 8 MiB"),
        (b" " * (MAX_ANSWER_BYTES + 1), "", "more than 8 MiB"),
    ],
)
async def test_any_other_answer_is_none(body: bytes, encoding: str, why: str) -> None:
    with pytest.raises(UnavailableError, match=why) as raised:
        await read_of(body, encoding)
    assert len(str(raised.value)) < 300


async def test_a_bomb_is_unpacked_no_further_than_the_bound() -> None:
    packer = zlib.compressobj(9, wbits=16 + zlib.MAX_WBITS)
    packed = b"".join(packer.compress(b"\0" * (1 << 20)) for _ in range(512)) + packer.flush()
    with answering(packed, "gzip") as endpoint:
        async with make_http(60) as http:
            answer = await http.send(http.build_request("GET", endpoint), stream=True)
            tracemalloc.start()
            try:
                with pytest.raises(httpx.ReadError, match="more than 8 MiB"):
                    await read_bounded(answer)
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
                await answer.aclose()
    assert peak < 3 * MAX_ANSWER_BYTES


async def test_an_endpoint_whose_answers_take_long_fills_no_connections_of_others() -> None:
    async def slow(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    ended = asyncio.Event()
    server = await asyncio.start_server(slow, "127.0.0.1", 0)
    with answering(GOOD, "") as endpoint:
        async with make_http(2) as http:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            waiting = [asyncio.create_task(http.get(url)) for _ in range(40)]
            await asyncio.sleep(0.2)
            assert (await http.get(endpoint)).status_code == httpx.codes.OK
            ended.set()
            await asyncio.gather(*waiting, return_exceptions=True)
    server.close()


COMMAS: Final = b'{"status": {}, "items": [%s]}'
TOO_MANY: Final = {
    "an empty object": COMMAS % b",".join([b"{}"] * MANY_VALUES),
    "null": COMMAS % b",".join([b"null"] * (MANY_VALUES + 2)),
    "an empty list": COMMAS % b",".join([b"[]"] * MANY_VALUES),
    "lists in one another": b'{"status": {}, "items": [{"x": %s}]}' % (b"[" * MANY_VALUES + b"]" * MANY_VALUES),
    "objects in one another": b'{"status": {}, "items": [%s1%s]}' % (b'{"x":' * MANY_VALUES, b"}" * MANY_VALUES),
}


@pytest.mark.parametrize("adapter", [wire.NODE_PAGE, wire.JOB, wire.POOL, wire.CLUSTER])
@pytest.mark.parametrize("of", TOO_MANY)
def test_an_answer_of_too_many_values_is_not_read(adapter: TypeAdapter[object], of: str) -> None:
    """Two million empty items of a page took half a minute, in which nothing else happened."""
    with pytest.raises(UnavailableError, match="more than 400000 values"):
        read(adapter, ApiAnswer(TOO_MANY[of], 200, None), max_values=MANY_VALUES)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
@pytest.mark.parametrize("changes", [True, False])
def test_an_error_of_too_many_values_is_not_read(status: int, changes: bool) -> None:
    """Three million empty lists took the loop for 2.6 s, and 180 MB."""
    body = b'{"error_code": "APIGW.0301", "error_msg": "told", "x": [%s]}' % b",".join([b"[]"] * FEW_VALUES)
    error = from_answer(httpx.Response(status), body, changes=changes)
    assert (error.code, "not an error's JSON" in error.message) == (None, True)
    assert isinstance(error, OutcomeUnknownError) is changes


async def test_nor_is_an_answer_with_keys_or_a_job() -> None:
    many = b",".join([b"[]"] * FEW_VALUES)
    with pytest.raises(ValueError, match="more than 20000 values"):
        read_temporary_key(b'{"credential": {}, "x": [%s]}' % many)
    with answering(b'{"error_msg": "told", "x": [%s]}' % many, "", status=400) as endpoint:
        async with make_http(5) as http:
            exchange = Exchange(Via(http, lambda: datetime.now(UTC), 5), "IAM", lambda _status, _code: "")
            with pytest.raises(IdentityError, match="not an error's JSON"):
                await exchange.post("agentCredentials", endpoint, {}, {})
    with answering(b'{"jobid": "j", "x": [%s]}' % many, "") as endpoint:
        async with make_http(5) as http:
            client = CloudClient(http, endpoint, "p", Token("t" * 20), now=lambda: datetime.now(UTC), timeout_seconds=5)
            with pytest.raises(OutcomeUnknownError):
                await client.add_nodes("c", "p", ["s"], signed_at=datetime.now(UTC))


@pytest.mark.parametrize("date", ["Fri, 31 Dec 9999 23:59:59 -1200", "Mon, 01 Jan 2020 00:00:00 +9999", "soon"])
def test_a_date_that_is_none_is_left_out(date: str) -> None:
    assert http_date(date) is None


def test_a_job_has_as_many_sub_jobs_as_values_are_read_and_each_costs_no_copy_of_another() -> None:
    def job(subs: int) -> ApiAnswer:
        return ApiAnswer(b'{"spec": {"subJobs": [' + b",".join([b"{}"] * subs) + b"]}}", 200, None)

    jobs = list(read(wire.JOB, job(9900)).sub_jobs())
    assert {id(part) for each in jobs for part in (each.metadata, each.spec, each.status)} == {id(None)}
    with pytest.raises(UnavailableError, match="more than 20000 values"):
        read(wire.JOB, job(10_000))


def test_a_page_has_at_most_twice_the_items_that_are_ever_asked_for() -> None:
    def page(items: int, item: bytes = b"{}") -> ApiAnswer:
        return ApiAnswer(b'{"items": [' + b",".join([item] * items) + b"]}", 200, None)

    assert len(read(wire.NODE_PAGE, page(4000)).documents) == 4000
    # Of whole nodes, 2,000 are asked for at once.
    whole = b'{"x": {' + b",".join(b'"k%d": {}' % number for number in range(74)) + b"}}"
    assert len(read(wire.NODE_PAGE, page(2000, whole), max_values=MANY_VALUES).documents) == 2000
    with pytest.raises(UnavailableError, match="items"):
        read(wire.NODE_PAGE, page(4001))


async def test_the_loop_turns_while_a_page_at_its_bounds_is_read() -> None:
    """It takes a tenth of a second, for which nobody else's work may wait."""
    node = b'{"metadata": {"uid": "%s"}, "status": {"phase": "Active"}, "spec": [%s]}'
    items = b",".join([node % (b"u" * 36, b",".join([b'"%s"' % (b"x" * 18)] * 92))] * 4000)
    answer = ApiAnswer(b'{"items": [%s]}' % items, 200, None)
    assert 0.9 < len(answer.content) / MAX_ANSWER_BYTES < 1
    with turns.counted() as others:
        page = await read_page(wire.NODE_PAGE, answer)
    assert len(page.documents) == 4000
    assert others.count > 10


@pytest.mark.parametrize(
    ("adapter", "page", "most"),
    [
        (server_wire.SERVERS, b'{"servers": [%s]}', 2000),
        (server_wire.SERVERS, b'{"servers": [{"network_interfaces": [%s]}]}', 128),
        (server_wire.SERVERS, b'{"servers": [{"addresses": {"v": [%s]}}]}', 128),
        (server_wire.SERVERS, b'{"servers": [{"os-extended-volumes:volumes_attached": [%s]}]}', 128),
        (server_wire.VOLUMES, b'{"volumes": [%s]}', 120),
        (server_wire.FLAVORS, b'{"flavors": [%s]}', 2000),
        (wire.POOLS, b'{"items": [%s]}', 1000),
    ],
)
def test_a_list_of_the_cloud_has_a_most(adapter: TypeAdapter[object], page: bytes, most: int) -> None:
    """A list of 200,000 empty servers took nine seconds."""

    def answer(items: int) -> ApiAnswer:
        return ApiAnswer(page % b",".join([b'{"status": {}}'] * items), 200, None)

    read(adapter, answer(most))
    with pytest.raises(UnavailableError, match="at most"):
        read(adapter, answer(most + 1))


@pytest.mark.parametrize(("length", "kept"), [(36, True), (128, True), (129, False), (300_000, False)])
def test_an_id_has_at_most_128_characters(length: int, kept: bool) -> None:
    text = "a" * length
    body = json.dumps({"items": [{"metadata": {"uid": text}, "status": {"serverId": text, "jobID": text}}]}).encode()
    (node,) = (document.node() for document in read(wire.NODE_PAGE, ApiAnswer(body, 200, None)).documents)
    assert (node.uid, node.server_id, node.job_id) == ((text,) * 3 if kept else ("", "", ""))


def test_of_no_text_more_is_kept_than_is_told() -> None:
    """20,000 nodes with phases of 400 KB each were 8 GB within all bounds, and 16 lists of flavors 600 MB."""
    long = "y" * 3000
    node = {"metadata": {"annotations": {"kubernetes.io/node-pool.id": long}}, "status": {"phase": long}}
    body = {"items": [node], "pageInfo": {"nextMarker": long}}
    page = read(wire.NODE_PAGE, ApiAnswer(json.dumps(body).encode(), 200, None))
    assert len(repr(page.documents[0].node())) < 1000
    assert len(page.next_marker) == wire.MAX_TEXT
    group = {"spec": {"flavor": long, "az": long}}
    nodes: dict[str, object] = {
        "flavor": long,
        "nodeNicSpec": {"primaryNic": {"subnetList": [long, *map(str, range(999))]}},
    }
    nodes["dataVolumes"] = [{"volumetype": long}] * 1000
    pool = {"status": {"phase": long}, "spec": {"nodeTemplate": nodes, "extensionScaleGroups": [group] * 500}}
    assert len(repr(read(wire.POOL, ApiAnswer(json.dumps(pool).encode(), 200, None)).report())) < 50_000
    cluster = {"status": {"phase": long}, "spec": {"hostNetwork": {"vpc": long}, "version": long, "flavor": long}}
    assert len(repr(read(wire.CLUSTER, ApiAnswer(json.dumps(cluster).encode(), 200, None)).report())) < 3000
    job = {"status": {"phase": "Failed", "reason": long}}
    assert len(repr(read(wire.JOB, ApiAnswer(json.dumps(job).encode(), 200, None)).report("j"))) < 3000
    flavors = {"flavors": [{"id": long}, {"id": "c7.large"}]}
    assert "c7.large" in server_wire.FLAVORS.validate_python(flavors).by_id()
    assert long not in server_wire.FLAVORS.validate_python(flavors).by_id()


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("0a1b-2C_3", True),
        ("a" * 128, True),
        ("a" * 129, False),
        ("a b", False),
        ("a\x1b[31m", False),
        ("a\n", False),
        ("", False),
        ("\u0661", False),
    ],
)
def test_a_request_id_is_one_or_it_is_left_out(text: str, kept: bool) -> None:
    body = json.dumps({"error_code": "CCE.01400014", "error_msg": "no", "request_id": text}).encode()
    error = from_answer(httpx.Response(400), body, changes=True)
    assert error.request_id == (text if kept else None)
    assert request_id_of(text) == (text if kept else None)
