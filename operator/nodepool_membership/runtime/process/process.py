"""The process: puts the parts together, runs them until a signal, and ends them in order.

Not for: what any part does. `make_reconciler` brings the one part that knows the cloud.
"""

import asyncio
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, contextmanager
from typing import Final, Literal

from nodepool_membership import __version__
from nodepool_membership.kube.api import KubeApi, NoClusterError
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.lease import LeaseObject, lease_namespace
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.reviews import Reviews
from nodepool_membership.kube.secrets import Secrets
from nodepool_membership.kube.service_accounts import ServiceAccounts
from nodepool_membership.net.proxies import describe
from nodepool_membership.net.trust import CaFileError
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.ops import logs
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.ops.options import SAFE_SETTLE_WINDOW, Options, format_duration
from nodepool_membership.runtime.process import health, watchdog
from nodepool_membership.runtime.process.workers import WORKERS, KeyWorker, Workers
from nodepool_membership.runtime.scheduling.leader import Alone, Candidate, Leadership, MayCall, Timing, own_identity
from nodepool_membership.runtime.scheduling.queue import Key, WorkQueue
from nodepool_membership.runtime.watch.watch import OnKey, Watch

_logger = logging.getLogger(__name__)

MakeReconciler = Callable[
    [Options, Memberships, Secrets, ServiceAccounts, Events, Metrics, MayCall, OnKey, Unread],
    AbstractAsyncContextManager[KeyWorker],
]
"""Opens what a reconciler needs of the cloud, once this process leads; left after the last look has ended."""

Ends = tuple["asyncio.Task[None]", "asyncio.Task[Literal[True]]"]
"""Whichever of these is done first ends the process: the watch, the wait for a signal."""

_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_RECORD_SECONDS: Final = 15.0
"""On top of the cloud's time-out, for storing the answer of the last call."""
_STUCK_TIMEOUTS: Final = 20
"""A look gives a sign of life with each request that ends; snapshots, which take many, are awaited outside of looks."""


async def run(options: Options, make_reconciler: MakeReconciler) -> int:
    """Run until SIGTERM or SIGINT, or until the lease is lost.

    Returns the exit code: 0 after a signal; 1 if the process could not start, lost its lease, or leaves a call
    unrecorded.
    """
    logs.configure(options.log_format, options.log_level)
    # One byte and not none: it also keeps dumps from a program that they are piped to (man 5 core). They hold keys.
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    for warning in _warnings(options):
        _logger.warning(warning)
    try:
        with _stop_on_signal() as stop:
            clean = await _run(options, make_reconciler, stop)
    except (NoClusterError, CaFileError, health.BindError) as error:
        _logger.error("cannot start: %s", error)  # noqa: TRY400 - the text is for a user, a traceback is not
        return 1
    _logger.info("stopped")
    return 0 if clean else 1


def _warnings(options: Options) -> Iterator[str]:
    """What somebody should know of who started this with such options."""
    if options.settle_window < SAFE_SETTLE_WINDOW:
        yield f"--settle-window is below {format_duration(SAFE_SETTLE_WINDOW)}: a server may be added twice"
    for endpoint in options.allow_endpoints:
        if endpoint.startswith("http://"):
            yield f"--allow-endpoint {endpoint}: without TLS, whoever is on the way reads tokens and changes answers"
    yield from options.proxies.warnings


async def _run(options: Options, make_reconciler: MakeReconciler, stop: asyncio.Event) -> bool:
    """Follow, lead if it comes to that, and end; whether all is well."""
    metrics, checks, queue = Metrics(), health.Health(), WorkQueue(workers=WORKERS)
    async with AsyncExitStack() as parts:
        await parts.enter_async_context(watchdog.watch_loop())
        api = await parts.enter_async_context(KubeApi.connect(observer=metrics.kube_request))
        leadership = _leadership(options, api)
        metrics.watch_leadership(leadership.may_call)
        unread = Unread()

        def changed(key: Key) -> None:
            unread.changed(key)
            queue.add(key)

        watch = Watch(api, changed, namespaces=options.namespaces)
        checks.alive.append(watch.alive)
        checks.ready += [watch.ready, leadership.ready]
        reviews = Reviews(api, "/metrics") if options.metrics_auth else None
        port = await parts.enter_async_context(health.serve(options.bind, checks, metrics, reviews))
        events = await parts.enter_async_context(Events(api, instance=os.environ.get("POD_NAME", socket.gethostname())))
        _logger.info("started", extra=_facts(options, api, port))
        watching = asyncio.create_task(watch.run(), name="watch")
        ends: Ends = (watching, asyncio.create_task(stop.wait(), name="stop"))
        winning = asyncio.create_task(leadership.win(), name="win")
        await _first(*ends, winning)
        clean = True
        if any(end.done() for end in ends):
            await _cancel(winning)
        else:
            await winning
            _logger.info("leading")
            # Only here: what a reconciler remembers begins with the term of its leader.
            brings = make_reconciler(
                options,
                Memberships(api),
                Secrets(api),
                ServiceAccounts(api),
                events,
                metrics,
                leadership.may_call,
                queue.add,
                unread,
            )
            async with brings as reconciler:
                clean = await _work(options, queue, reconciler, metrics, checks, leadership, ends)
        watch.stop()
        await leadership.release()
        await watching
        return clean


def _facts(options: Options, api: KubeApi, port: int) -> dict[str, object]:
    """What is logged at the start."""
    facts: dict[str, object] = {"version": __version__, "server": api.login.server, "port": port}
    if api.login.proxy is not None:
        facts["serverProxy"] = api.login.proxy.url
    return facts | dict(describe(options.proxies))


async def _work(  # noqa: PLR0913 - the parts of the process, put together once
    options: Options,
    queue: WorkQueue,
    reconciler: KeyWorker,
    metrics: Metrics,
    checks: health.Health,
    leadership: Leadership,
    ends: Ends,
) -> bool:
    """Work the queue until the end or until the lease is lost, then wait for what is under way; whether all is well."""
    timeout = options.http_timeout.total_seconds()
    workers = Workers(queue, reconciler, metrics, stuck_after_seconds=max(1200.0, _STUCK_TIMEOUTS * timeout))
    checks.alive.append(workers.stuck)
    metrics.watch_queue(lambda: len(queue), queue.oldest_seconds, queue.oldest_new_seconds)
    holding = asyncio.create_task(leadership.hold(), name="hold")
    workers.start()
    await _first(*ends, holding)
    _logger.info("stopping: no new work is taken, calls under way are waited for")
    # The lease is kept meanwhile: a successor shall find these calls recorded.
    recorded = await workers.stop(timeout + _RECORD_SECONDS)
    lost = not leadership.may_call()
    await _cancel(holding)
    return recorded and not lost


def _leadership(options: Options, api: KubeApi) -> Leadership:
    if not options.leader_elect:
        return Alone()
    timing = Timing.of(options.lease_duration, options.renew_deadline)
    lease = LeaseObject(api, options.lease_namespace or lease_namespace(), options.lease_name)
    return Candidate(lease, own_identity(), timing)


async def _cancel(task: "asyncio.Task[None]") -> None:
    """End a task; an error that ended it before is raised."""
    task.cancel()
    await asyncio.wait([task])
    if not task.cancelled():
        task.result()


async def _first(*tasks: "asyncio.Task[None] | asyncio.Task[Literal[True]]") -> None:
    """Return when one of them has ended, however."""
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
