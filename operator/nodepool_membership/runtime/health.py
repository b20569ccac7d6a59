"""The process's HTTP endpoints: `/healthz` (restart me), `/readyz` (count on me), `/metrics`.

Not for: knowing what is wrong; each part of the process brings a check of its own. They are served by the loop that
does the work, so a loop that is stuck does not answer either: then the probe times out, and `watchdog` says why.

The kubelet's Event about a failed probe holds the status code, not the text: the reason is in the log, too.
"""

import logging
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from nodepool_membership import redaction
from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.options import Bind

_logger = logging.getLogger(__name__)

Check = Callable[[], str | None]
"""None if all is well, else what is wrong, in a sentence for the person on call."""


class BindError(Exception):
    """The endpoints cannot listen where `--bind` says."""


@dataclass(slots=True)
class Health:
    """The checks behind the two probes; parts of the process add theirs."""

    alive: list[Check] = field(default_factory=list)
    ready: list[Check] = field(default_factory=list)
    _said: bool = False

    def not_alive(self) -> list[str]:
        reasons = _failing(self.alive)
        if reasons and not self._said:
            _logger.error("not alive, to be restarted: %s", "; ".join(reasons))
        self._said = bool(reasons)
        return reasons

    def not_ready(self) -> list[str]:
        return _failing([*self.alive, *self.ready])


def _failing(checks: Iterable[Check]) -> list[str]:
    return [reason for check in checks if (reason := check()) is not None]


@asynccontextmanager
async def serve(bind: Bind, health: Health, metrics: Metrics) -> AsyncIterator[int]:
    """Serve the endpoints while the block runs; gives the port.

    Raises:
        BindError: the address is taken or is not ours.
    """

    async def healthz(_request: web.Request) -> web.Response:
        return _answer(health.not_alive())

    async def readyz(_request: web.Request) -> web.Response:
        return _answer(health.not_ready())

    async def exposition(_request: web.Request) -> web.Response:
        headers = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}
        return web.Response(body=metrics.text(), headers=headers)

    app = web.Application()
    app.router.add_get("/healthz", healthz)
    app.router.add_get("/readyz", readyz)
    app.router.add_get("/metrics", exposition)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, bind.host, bind.port)
        try:
            await site.start()
        except OSError as error:
            raise BindError(f"--bind {bind.host}:{bind.port}: {error.strerror or error}") from None
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _answer(reasons: list[str]) -> web.Response:
    return web.Response(text=redaction.redact("\n".join(reasons)) or "ok", status=503 if reasons else 200)
