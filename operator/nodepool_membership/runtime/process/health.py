"""The process's HTTP endpoints: `/healthz` (restart me), `/readyz` (count on me), `/metrics`.

Not for: knowing what is wrong; each part of the process brings a check of its own. They are served by the loop that
does the work, so a loop that is stuck does not answer either: then the probe times out, and `watchdog` says why.

Whoever reaches the port may ask: what a request costs and how long it may take has a bound.

The kubelet's Event about a failed probe holds the status code, not the text: the reason is in the log, too.
"""

import asyncio
import errno
import logging
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from time import monotonic
from typing import Final

from aiohttp import web
from aiohttp.http import HttpProcessingError

from nodepool_membership import redaction
from nodepool_membership.kube.errors import KubeError
from nodepool_membership.kube.reviews import Reviews, TokenAccess
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.ops.options import Bind

_logger = logging.getLogger(__name__)

MAX_CONNECTIONS: Final = 100
_ASK_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 30.0
_EVERY_SECONDS: Final = 1.0
_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.EPROTONOSUPPORT})

HealthCheck = Callable[[], str | None]
"""None if all is well, else what is wrong, in a sentence for the person on call."""


class BindError(Exception):
    """The endpoints cannot listen where `--bind` says."""


@dataclass(slots=True)
class Health:
    """The checks behind the two probes; parts of the process add theirs."""

    alive: list[HealthCheck] = field(default_factory=list)
    ready: list[HealthCheck] = field(default_factory=list)
    _said: bool = False

    def not_alive(self) -> list[str]:
        reasons = _failing(self.alive)
        if reasons and not self._said:
            _logger.error("not alive, to be restarted: %s", "; ".join(reasons))
        self._said = bool(reasons)
        return reasons

    def not_ready(self) -> list[str]:
        return _failing([*self.alive, *self.ready])


def _failing(checks: Iterable[HealthCheck]) -> list[str]:
    return [reason for check in checks if (reason := check()) is not None]


class _Exposition:
    """The metrics as text, made in a thread and at most once a second, however many ask for them."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._made_at = -_EVERY_SECONDS
        self._next: asyncio.Task[bytes] | None = None

    async def text(self) -> bytes:
        """What is made after now; whoever asks meanwhile gets the same."""
        if self._next is None:
            self._next = asyncio.create_task(self._make(), name="metrics")
        return await asyncio.shield(self._next)

    async def _make(self) -> bytes:
        await asyncio.sleep(self._made_at + _EVERY_SECONDS - monotonic())
        self._made_at, self._next = monotonic(), None
        return await asyncio.to_thread(self._metrics.text)


class _Server(web.Server):
    """One request a connection, which has so long to arrive and to be answered. Beyond the cap, the oldest go first.

    So whoever opens connections and sends nothing keeps no probe out.
    """

    def __init__(self, handler: Callable[[web.BaseRequest], Awaitable[web.StreamResponse]]) -> None:
        super().__init__(handler, access_log=None, logger=_server_logger, lingering_time=0.0)
        self._limits: dict[object, tuple[asyncio.Transport, asyncio.TimerHandle]] = {}

    def connection_made(self, handler: web.RequestHandler, transport: asyncio.Transport) -> None:
        super().connection_made(handler, transport)
        self._limit(handler, transport, _ASK_SECONDS)
        if len(self._limits) > MAX_CONNECTIONS:
            oldest, _ = next(iter(self._limits.values()))
            oldest.abort()

    def asked(self, handler: object) -> None:
        """The request of this connection has arrived."""
        if handler in self._limits:
            transport, timer = self._limits[handler]
            timer.cancel()
            self._limit(handler, transport, _ANSWER_SECONDS)

    def connection_lost(self, handler: web.RequestHandler, exc: BaseException | None = None) -> None:
        super().connection_lost(handler, exc)
        if handler in self._limits:
            self._limits.pop(handler)[1].cancel()

    def _limit(self, handler: object, transport: asyncio.Transport, seconds: float) -> None:
        timer = asyncio.get_running_loop().call_later(seconds, transport.abort)
        self._limits[handler] = (transport, timer)


@asynccontextmanager
async def serve(bind: Bind, health: Health, metrics: Metrics, reviews: Reviews | None = None) -> AsyncIterator[int]:
    """Serve the endpoints while the block runs; gives the port. With `reviews`, /metrics is for those who may read it.

    Raises:
        BindError: the address is taken or is not ours.
    """
    exposition = _Exposition(metrics)

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        server.asked(request.protocol)
        response = await _answer(request, health, exposition, reviews)
        response.force_close()
        return response

    server = _Server(answer)
    runner = web.ServerRunner(server, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await _listening(runner, bind).start()
        except OSError as error:
            raise BindError(f"--bind {bind}: {error.strerror or error}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _listening(runner: web.ServerRunner, bind: Bind) -> web.BaseSite:
    """Where connections are taken; of every address, of both families as far as the host has them."""
    if bind.host not in {"", "::"}:
        return web.TCPSite(runner, bind.host, bind.port)
    try:
        return web.SockSite(runner, _every_address(bind.port))
    except OSError as error:
        if error.errno not in _NO_IPV6:
            raise
        _logger.info("this host has no IPv6: the health endpoints are served by IPv4")
        return web.TCPSite(runner, str(IPv4Address(0)), bind.port)


def _every_address(port: int) -> socket.socket:
    return socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=128)


async def _answer(
    request: web.BaseRequest, health: Health, exposition: _Exposition, reviews: Reviews | None
) -> web.Response:
    if request.method not in {"GET", "HEAD"}:
        return web.Response(status=405, headers={"Allow": "GET, HEAD"})
    match request.path:
        case "/healthz":
            return _verdict(health.not_alive())
        case "/readyz":
            return _verdict(health.not_ready())
        case "/metrics":
            if reviews is not None and (refusal := await _refusal(request, reviews)) is not None:
                return refusal
            headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
            return web.Response(body=await exposition.text(), headers=headers)
        case _:
            return web.Response(text="there are /healthz, /readyz and /metrics", status=404)


async def _refusal(request: web.BaseRequest, reviews: Reviews) -> web.Response | None:
    """Why metrics are not shown; None: they may be."""
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    try:
        access = await reviews.access(token.strip() if kind.lower() == "bearer" else "")
    except KubeError as error:
        _logger.warning("metrics are shown to nobody: a token cannot be reviewed: %s", error)
        return web.Response(text="the API server was asked about the token and did not say", status=503)
    match access:
        case TokenAccess.ALLOWED:
            return None
        case TokenAccess.FORBIDDEN:
            return web.Response(text="the bearer of this token may not get /metrics", status=403)
        case TokenAccess.UNKNOWN:
            headers = {"WWW-Authenticate": "Bearer"}
            return web.Response(text="show a token that may get /metrics", status=401, headers=headers)


def _verdict(reasons: list[str]) -> web.Response:
    return web.Response(text=redaction.redact("\n".join(reasons)) or "ok", status=503 if reasons else 200)


def _is_ours(record: logging.LogRecord) -> bool:
    """False for what a client did wrong: it is told by the answer, and anybody could fill the log with it."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError)


_server_logger = logging.getLogger(f"{__name__}.server")
_server_logger.addFilter(_is_ours)
