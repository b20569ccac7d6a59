"""The workers: take a key, look at it, plan the next look; a failing look costs its key a backoff and nothing else.

Not for: what a look is (`reconcile`).
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Final, Literal, Protocol

from nodepool_membership.kube.errors import KubeError
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.scheduling.progress import Progress
from nodepool_membership.runtime.scheduling.queue import Key, WorkQueue

_logger = logging.getLogger(__name__)

WORKERS: Final = 16
"""Many, since one that waits for the cloud works nothing else, and a namespace alone has half of them
(`fair_order`). Memory is bounded by `shares`, not by them."""


class KeyWorker(Protocol):
    """Looks at one membership at a time per key; several keys at once."""

    async def reconcile(self, key: Key) -> float | None:
        """One look; the seconds until the next one is due, None if only a change of the object asks for one."""
        ...

    def start(self) -> None:
        """Keys are worked from now on."""
        ...

    async def close(self) -> None:
        """The process is to end, looks are under way: start no further call, wait for the records of those made.

        Cancelled, it gives up what is not recorded.
        """
        ...


class Workers:
    """`count` tasks that empty the queue until it is closed."""

    def __init__(
        self,
        queue: WorkQueue,
        reconciler: KeyWorker,
        metrics: Metrics,
        *,
        stuck_after_seconds: float,
        count: int = WORKERS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._queue = queue
        self._reconciler = reconciler
        self._metrics = metrics
        self._stuck_after = stuck_after_seconds
        self._count = count
        self._clock = clock
        self._progress = Progress(clock)
        self._looks: dict[Key, Progress] = {}
        self._died: list[str] = []
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._reconciler.start()
        for number in range(self._count):
            task = asyncio.create_task(self._work(), name=f"worker-{number}")
            task.add_done_callback(self._ended)
            self._tasks.append(task)

    async def stop(self, patience_seconds: float) -> bool:
        """Close the queue, wait for the looks under way, and cancel what is left after `patience_seconds`.

        Returns whether every call is recorded.
        """
        self._queue.close()
        closing = asyncio.create_task(self._reconciler.close(), name="close-reconciler")
        tasks = [*self._tasks, closing]
        _, late = await asyncio.wait(tasks, timeout=patience_seconds)
        for task in late:
            task.cancel()
        if late:
            _logger.warning("looks under way were cancelled at the end", extra={"looks": len(late)})
        await asyncio.gather(*late, return_exceptions=True)
        for task in tasks:
            if not task.cancelled():
                task.result()
        return closing not in late

    def stuck(self) -> str | None:
        """A liveness check: no worker has died, none waits for ever, and keys do not wait for nothing.

        A look gives a sign of life whenever one of its requests comes to an end, however: one that tries to record an
        answer while the API server is away is not stuck, and must not be ended.
        """
        if self._died:
            return f"reconcile loop: {self._died[0]}"
        for key, look in self._looks.items():
            if look.age() > self._stuck_after:
                name = "/".join(key)
                return f"reconcile loop: {name} is being worked, without a sign of life for {look.age():.0f} s"
        waited = min(look.age() for look in (self._progress, *self._looks.values()))
        waited = min(waited, self._queue.oldest_seconds())
        if waited <= self._stuck_after:
            return None
        return f"reconcile loop: {len(self._queue)} memberships wait, none was finished for {waited:.0f} s"

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if self._queue.closed:
            return
        why = "it was cancelled" if task.cancelled() else repr(task.exception())
        self._died.append(f"{task.get_name()} died: {why}")
        _logger.error(self._died[-1])

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                with self._under_way(key):
                    await self._look(key)
            finally:
                self._queue.done(key)

    @contextmanager
    def _under_way(self, key: Key) -> Iterator[None]:
        look = Progress(self._clock)
        self._looks[key] = look
        try:
            with look.current():
                yield
        finally:
            del self._looks[key]
            self._progress.made()

    async def _look(self, key: Key) -> None:
        started = self._clock()
        outcome: Literal["ok", "error"] = "ok"
        try:
            delay = await self._reconciler.reconcile(key)
        except KubeError as error:
            # The API server's word says it all; a traceback of ours would only hide it.
            outcome = "error"
            _logger.warning("reconcile: %s: %s", type(error).__name__, error, extra=self._retry(key))
        except Exception:
            outcome = "error"
            _logger.exception("reconcile failed", extra=self._retry(key))
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if self._queue.closed or (task is not None and task.cancelling()):
                raise
            # Nobody cancelled this worker: the error of a part must not end it.
            outcome = "error"
            _logger.exception("reconcile was cancelled from within", extra=self._retry(key))
        else:
            self._queue.forget(key)
            if delay is None:
                self._queue.gone(key)
            else:
                self._queue.add_after(key, delay)
        finally:
            self._metrics.reconciled(outcome, self._clock() - started)

    def _retry(self, key: Key) -> dict[str, str | float]:
        return {"object": "/".join(key), "retrySeconds": round(self._queue.retry(key), 1)}
