"""Bodies from endpoints that are hostile or broken: packed, packed twice, cut off, larger than sane."""

import asyncio
import gzip
import threading
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import httpx
import pytest
from aiohttp import web

from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import Token
from nodepool_membership.cce.errors import UnavailableError
from nodepool_membership.cce.transport import MAX_ANSWER_BYTES, make_http, read_bounded
from scripted_cloud import JOB

GOOD = b'{"status": {"phase": "Running"}}'


@contextmanager
def answering(body: bytes, encoding: str, status: int = 200) -> Iterator[str]:
    """The address of a server that answers this to everything."""
    started, seen = threading.Event(), {}

    async def answer(_: web.BaseRequest) -> web.Response:
        return web.Response(body=body, status=status, headers={"Content-Encoding": encoding} if encoding else {})

    async def serve() -> None:
        seen["loop"], seen["end"] = asyncio.get_running_loop(), asyncio.Event()
        runner = web.ServerRunner(web.Server(answer))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        seen["port"] = runner.addresses[0][1]
        started.set()
        await seen["end"].wait()
        await runner.cleanup()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(30)
    try:
        yield f"http://127.0.0.1:{seen['port']}"
    finally:
        seen["loop"].call_soon_threadsafe(seen["end"].set)
        thread.join()


async def read_of(body: bytes, encoding: str) -> None:
    with answering(body, encoding) as endpoint:
        async with make_http(10) as http:
            cloud = CloudClient(http, endpoint, "p", Token("token"), now=lambda: datetime.now(UTC), timeout_seconds=10)
            assert (await cloud.get_job(JOB)).job_id == JOB


@pytest.mark.parametrize(("body", "encoding"), [(GOOD, ""), (GOOD, "identity"), (gzip.compress(GOOD), "gzip")])
async def test_an_answer_is_plain_or_packed_once(body: bytes, encoding: str) -> None:
    await read_of(body, encoding)


@pytest.mark.parametrize(
    ("body", "encoding", "why"),
    [
        (gzip.compress(gzip.compress(GOOD)), "gzip, gzip", "content encoding"),
        (gzip.compress(GOOD), "gzip,identity", "content encoding"),
        (zlib.compress(GOOD), "deflate", "content encoding"),
        (GOOD, "br", "content encoding"),
        (GOOD, "zstd", "content encoding"),
        (GOOD, "x" * 4000, "content encoding"),
        (GOOD, "gzip", "cannot be unpacked"),
        (gzip.compress(GOOD)[:-9], "gzip", "cut off"),
        (gzip.compress(GOOD) + b"more", "gzip", "behind its gzip"),
        (gzip.compress(GOOD) + gzip.compress(GOOD), "gzip", "behind its gzip"),
        (b"", "gzip", "cut off"),
        (gzip.compress(b" " * (MAX_ANSWER_BYTES + 1)), "gzip", "more than 8 MiB"),
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
