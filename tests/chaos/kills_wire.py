"""What lies between the operator and its two servers: HTTP proxies on which a call, or its answer, can be held.

Not for: which calls are held (`kills_steering`). A call that is held has left the operator and has not arrived; when
the operator dies its connections close, and what is held then never goes on, exactly as on a network.
"""

import asyncio
import ssl
import threading
import weakref
from collections.abc import Coroutine
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import aiohttp
from aiohttp import web
from yarl import URL

T = TypeVar("T")
_START_SECONDS: Final = 10.0
_HOP_BY_HOP: Final = frozenset({"connection", "keep-alive", "transfer-encoding", "te", "upgrade"})


@dataclass(frozen=True, slots=True)
class WireCall:
    """One request of the operator, as it came."""

    method: str
    path: str
    """With the query."""
    body: bytes


class Gate(Protocol):
    """Decides when a call, and when its answer, may go on. Cancelled when the operator is gone."""

    async def before(self, call: WireCall) -> None:
        """Return when the call may go to the server."""

    async def after(self, call: WireCall, status: int) -> None:
        """Return when the answer may go to the operator; the server has done its part."""


class _Loop(asyncio.SelectorEventLoop):
    """Knows the connections that were made on it, to end those that TLS would still be saying goodbye on."""

    def __init__(self) -> None:
        super().__init__()
        self._made: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def create_connection(self, *arguments: Any, **named: Any) -> Any:  # noqa: ANN401 - asyncio has many forms
        made = await super().create_connection(*arguments, **named)
        self._made.add(made[0])
        return made

    async def abort_connections(self) -> None:
        for transport in list(self._made):
            transport.abort()
        # The loop closes their sockets in its next turn.
        await asyncio.sleep(0)


class Wire:
    """A context manager: a thread with an event loop that serves the proxies."""

    def __init__(self) -> None:
        self._loop = _Loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="wire", daemon=True)
        self._runners: list[web.ServerRunner] = []
        self._sessions: list[aiohttp.ClientSession] = []
        self.failures: list[Exception] = []
        """Errors of gates and proxies: what follows one proves nothing."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_START_SECONDS)
        self._loop.close()

    def proxy(self, upstream: str, gate: Gate, tls: ssl.SSLContext | None = None) -> str:
        """Serve `upstream` (scheme, host and port) on a free port of 127.0.0.1 by plain HTTP; its URL."""
        return self._do(self._serve(upstream, gate, tls))

    def _do(self, work: Coroutine[Any, Any, T]) -> T:  # Any: what a coroutine is sent and yields is asyncio's own
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_SECONDS)

    async def _serve(self, upstream: str, gate: Gate, tls: ssl.SSLContext | None) -> str:
        # A connection for each call: one that is kept may be dead, and who finds that out must not be the proxy.
        connector = aiohttp.TCPConnector(limit=0, force_close=True, ssl=True if tls is None else tls)
        timeout = aiohttp.ClientTimeout(total=None)
        session = aiohttp.ClientSession(connector=connector, auto_decompress=False, timeout=timeout, trust_env=False)
        self._sessions.append(session)

        async def handle(request: web.BaseRequest) -> web.StreamResponse:
            try:
                return await _pass_on(request, session, upstream, gate)
            except aiohttp.ClientError:
                # What the server does to a connection, the operator is to see.
                if request.transport is not None:
                    request.transport.abort()
                return web.Response()
            except ConnectionResetError:
                return web.Response()
            except Exception as error:
                self.failures.append(error)
                raise

        server = web.Server(handle, handler_cancellation=True, access_log=None)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self._runners.append(runner)
        return f"http://127.0.0.1:{runner.addresses[0][1]}"

    async def _close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        for session in self._sessions:
            await session.close()
        await self._loop.abort_connections()


async def _pass_on(
    request: web.BaseRequest, session: aiohttp.ClientSession, upstream: str, gate: Gate
) -> web.StreamResponse:
    call = WireCall(request.method, request.raw_path, await request.read())
    await gate.before(call)
    # Host is passed on as it came: it is signed.
    headers = [(k, v) for k, v in request.headers.items() if k.lower() not in _HOP_BY_HOP | {"content-length"}]
    url = URL(upstream + call.path, encoded=True)
    async with session.request(
        call.method,
        url,
        data=call.body or None,
        headers=headers,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        allow_redirects=False,
    ) as answer:
        await gate.after(call, answer.status)
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        response.headers.extend((k, v) for k, v in answer.headers.items() if k.lower() not in _HOP_BY_HOP)
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        with suppress(ConnectionResetError):
            await response.write_eof()
        return response
