"""What counts as no answer of an endpoint, over real connections: then all but one request fail at once.

Not for: the waits (`tests/unit/cce/test_cce_breaker.py`).
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from time import monotonic

import pytest

from nodepool_membership.cce.breaker import Breaker
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.errors import CloudError, NotSentError, UnavailableError
from nodepool_membership.cce.transport import make_http
from scripted_cloud import CLUSTER, INTENT, KEY, POOL, PROJECT, SERVERS

SECONDS = 2.0


@asynccontextmanager
async def a_client(url: str, breaker: Breaker) -> AsyncIterator[CloudClient]:
    async with make_http(SECONDS) as http:
        yield CloudClient(
            http, url, PROJECT, KEY, now=lambda: datetime.now(UTC), timeout_seconds=SECONDS, breaker=breaker
        )


class Endpoint:
    """Counts connections; answers with `answer`, or not at all."""

    def __init__(self) -> None:
        self.answer = b""
        self.connections = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.read(65536)
        if self.answer:
            writer.write(self.answer)
            await writer.drain()
        else:
            await reader.read()
        writer.close()


@pytest.fixture
async def endpoint() -> AsyncIterator[tuple[Endpoint, str]]:
    made = Endpoint()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield made, f"http://{host}:{port}"


async def test_of_many_that_name_an_endpoint_which_hangs_one_asks(endpoint: tuple[Endpoint, str]) -> None:
    hangs, url = endpoint
    breaker = Breaker(clock=monotonic)
    async with a_client(url, breaker) as cloud:
        with pytest.raises(UnavailableError, match="no answer within"):
            await cloud.get_cluster(CLUSTER)
        answers = await asyncio.gather(*(cloud.get_cluster(CLUSTER) for _ in range(100)), return_exceptions=True)
        assert hangs.connections == 2
        assert sum("not asked" in str(answer) for answer in answers) == 99
        with pytest.raises(NotSentError, match="not asked"):
            await cloud.add_nodes(CLUSTER, POOL, SERVERS, signed_at=INTENT)


async def test_an_endpoint_that_refuses_connections_does_not_answer() -> None:
    breaker = Breaker(clock=monotonic)
    async with a_client("http://127.0.0.1:1", breaker) as cloud:
        with pytest.raises(CloudError):
            await cloud.get_cluster(CLUSTER)
    assert breaker.is_open


@pytest.mark.parametrize("status", ["200 OK", "503 Unavailable", "404 Not Found"])
async def test_whatever_is_answered_is_an_answer(endpoint: tuple[Endpoint, str], status: str) -> None:
    answers, url = endpoint
    breaker = Breaker(clock=monotonic)
    async with a_client(url, breaker) as cloud:
        with pytest.raises(CloudError):
            await cloud.get_cluster(CLUSTER)
        assert breaker.is_open
        answers.answer = f"HTTP/1.1 {status}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()
        with pytest.raises(CloudError) as raised:
            await cloud.get_cluster(CLUSTER)
    assert "not asked" not in str(raised.value)
    assert not breaker.is_open
