"""The process: puts the parts together, runs them until a signal, and ends them in order.

Not for: what any part does. `make_reconciler` brings the one part that knows the cloud.
"""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Final, Literal

from nodepool_membership import __version__
from nodepool_membership.kube.api import KubeApi, NoClusterError
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.secrets import Secrets
from nodepool_membership.runtime import health, logs
from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.options import SAFE_SETTLE_WINDOW, Options, format_duration
from nodepool_membership.runtime.queue import WorkQueue
from nodepool_membership.runtime.watch import Watch
from nodepool_membership.runtime.workers import Reconciler, Workers

_logger = logging.getLogger(__name__)

MakeReconciler = Callable[[Options, Memberships, Secrets, Events, Metrics], AbstractAsyncContextManager[Reconciler]]
"""Opens what a reconciler needs of the cloud; left after the last look has ended."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_RECORD_SECONDS: Final = 15.0
"""On top of the cloud's time-out, for storing the answer of the last call."""
_STUCK_TIMEOUTS: Final = 10
"""A look makes several calls to the cloud, each of which may take a time-out."""


async def run(options: Options, make_reconciler: MakeReconciler) -> int:
    """Run until SIGTERM or SIGINT; the exit code: 0 after a signal, 1 if the process could not start or failed."""
    logs.configure(options.log_format, options.log_level)
    if options.settle_window < SAFE_SETTLE_WINDOW:
        _logger.warning("--settle-window is below %s: a server may be added twice", format_duration(SAFE_SETTLE_WINDOW))
    try:
        with _stop_on_signal() as stop:
            await _run(options, make_reconciler, stop)
    except (NoClusterError, health.BindError) as error:
        _logger.error("cannot start: %s", error)  # noqa: TRY400 - the text is for a user, a traceback is not
        return 1
    _logger.info("stopped")
    return 0


async def _run(options: Options, make_reconciler: MakeReconciler, stop: asyncio.Event) -> None:
    metrics, checks, queue = Metrics(), health.Health(), WorkQueue()
    timeout = options.http_timeout.total_seconds()
    metrics.watch_queue(lambda: len(queue), queue.oldest_seconds)
    async with AsyncExitStack() as parts:
        api = await parts.enter_async_context(KubeApi.connect(observer=metrics.kube_request))
        watch = Watch(api, queue.add, namespaces=options.namespaces)
        checks.alive.append(watch.alive)
        checks.ready.append(watch.ready)
        port = await parts.enter_async_context(health.serve(options.bind, checks, metrics))
        events = await parts.enter_async_context(Events(api, instance=os.environ.get("POD_NAME", socket.gethostname())))
        reconciler = await parts.enter_async_context(
            make_reconciler(options, Memberships(api), Secrets(api), events, metrics)
        )
        workers = Workers(queue, reconciler, metrics, stuck_after_seconds=max(600.0, _STUCK_TIMEOUTS * timeout))
        checks.alive.append(workers.stuck)
        workers.start()
        _logger.info("started", extra={"version": __version__, "server": api.login.server, "port": port})
        watching = asyncio.create_task(watch.run(), name="watch")
        await _first(watching, asyncio.create_task(stop.wait(), name="stop"))
        _logger.info("stopping: no new work is taken, calls under way are waited for")
        watch.stop()
        await asyncio.gather(workers.stop(timeout + _RECORD_SECONDS), watching)


async def _first(*tasks: "asyncio.Task[None] | asyncio.Task[Literal[True]]") -> None:
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)


@contextmanager
def _stop_on_signal() -> Iterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second one ends the process at once."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in _SIGNALS:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in _SIGNALS:
            loop.remove_signal_handler(number)
