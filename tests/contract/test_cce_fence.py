"""The last look before bytes of an add leave (rule P5): over a real connection, at which nothing must arrive.

Not for: when the fence is closed (`runtime.reconcile.send`).
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime

import pytest

from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.errors import WithheldError
from nodepool_membership.cce.transport import make_http
from scripted_cloud import CLUSTER, INTENT, JOB, KEY, POOL, PROJECT, SERVERS

ANSWER = b'{"jobid": "' + JOB.encode() + b'"}'


class Listener:
    """Accepts connections, notes what arrives, and answers every request as accepted."""

    def __init__(self) -> None:
        self.connections = 0
        self.received = b""
        self.ended = asyncio.Event()
        """The connection is closed."""

    async def over(self) -> None:
        """Wait until whatever was sent has arrived."""
        async with asyncio.timeout(5):
            await self.ended.wait()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while chunk := await reader.read(65536):
                self.received += chunk
                if self.received.endswith(b"]}"):
                    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
                    writer.write(head.encode() + ANSWER)
        finally:
            writer.close()
            self.ended.set()


@pytest.fixture
async def listener() -> AsyncIterator[tuple[Listener, str]]:
    made = Listener()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield made, f"http://{host}:{port}"


async def add(url: str, fence: Callable[[], str | None], *, times: int = 1) -> None:
    assert isinstance(KEY, AccessKey)
    async with make_http(5.0) as http:
        cloud = CloudClient(http, url, PROJECT, KEY, now=lambda: datetime.now(UTC), timeout_seconds=5.0)
        for _ in range(times):
            await cloud.add_nodes(CLUSTER, POOL, SERVERS, signed_at=INTENT, fence=fence)


async def test_an_open_fence_lets_the_call_pass(listener: tuple[Listener, str]) -> None:
    server, url = listener
    await add(url, lambda: None)
    assert server.received.startswith(b"POST /api/v3/projects/")


async def test_a_fence_that_closes_while_the_connection_is_made_keeps_every_byte(
    listener: tuple[Listener, str],
) -> None:
    server, url = listener
    asked: list[bytes] = []

    def closed() -> str:
        asked.append(server.received)
        return "the lease is gone"

    with pytest.raises(WithheldError, match="the lease is gone"):
        await add(url, closed)
    await server.over()
    # The connection was there: the fence was asked after it was made.
    assert server.connections == 1
    assert asked == [b""]
    assert server.received == b""


async def test_a_fence_that_closes_within_the_request_keeps_the_servers(listener: tuple[Listener, str]) -> None:
    server, url = listener
    answers = iter([None, "the lease is gone"])
    with pytest.raises(WithheldError, match="the lease is gone"):
        await add(url, lambda: next(answers))
    await server.over()
    assert all(server_id.encode() not in server.received for server_id in SERVERS)


async def test_a_connection_that_is_kept_is_fenced_too(listener: tuple[Listener, str]) -> None:
    server, url = listener
    answers = iter([None, None, "the lease is gone"])
    with pytest.raises(WithheldError, match="the lease is gone"):
        await add(url, lambda: next(answers), times=2)
    assert server.received.count(b"POST") == server.connections == 1
