"""The workers: take a key, look at it, plan the next look; a failing look costs its key a backoff and nothing else.

Not for: what a look is (`reconcile`).
"""

import asyncio
import logging
from collections.abc import Callable
from time import monotonic
from typing import Final, Literal, Protocol

from nodepool_membership.kube.errors import KubeError
from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.queue import Key, WorkQueue

_logger = logging.getLogger(__name__)

WORKERS: Final = 8
"""Many, since one that waits for the cloud works nothing else; memory is bounded by `kube.budget`, not by them."""


class Reconciler(Protocol):
    """Looks at one membership at a time per key; several keys at once."""

    async def reconcile(self, key: Key) -> float | None:
        """One look; the seconds until the next one is due, None if only a change of the object asks for one."""
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
        reconciler: Reconciler,
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
        self._progress = clock()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._work(), name=f"worker-{n}") for n in range(self._count)]

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
        """A liveness check: keys wait and no worker has finished one for long."""
        waited = min(self._clock() - self._progress, self._queue.oldest_seconds())
        if waited <= self._stuck_after:
            return None
        return f"reconcile loop: {len(self._queue)} memberships wait, none was finished for {waited:.0f} s"

    async def _work(self) -> None:
        while (key := await self._queue.get()) is not None:
            try:
                await self._look(key)
            finally:
                self._progress = self._clock()
                self._queue.done(key)

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
        else:
            self._queue.forget(key)
            if delay is not None:
                self._queue.add_after(key, delay)
        finally:
            self._metrics.reconciled(outcome, self._clock() - started)

    def _retry(self, key: Key) -> dict[str, str | float]:
        return {"object": "/".join(key), "retrySeconds": round(self._queue.retry(key), 1)}
