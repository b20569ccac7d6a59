"""Kubernetes Events about memberships: posted in the background, repeats counted in one Event.

By the core API, not by events.k8s.io/v1: that one refuses first and last times and counts, by which kubectl sorts.

Not for: deciding what is worth an Event, or anything that matters: an Event that is refused, late or dropped changes
nothing but what `kubectl describe` tells.
"""

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from time import monotonic
from types import TracebackType
from typing import Final, Literal, Self
from uuid import uuid4

from nodepool_membership import redaction
from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Json, Metadata
from nodepool_membership.api.names import API_VERSION, COMPONENT, FIELD_MANAGER, GROUP, KIND
from nodepool_membership.kube.api import METADATA_ONLY, KubeApi, path
from nodepool_membership.kube.errors import GoneError, KubeError

_logger = logging.getLogger(__name__)

EventType = Literal["Normal", "Warning"]

_EVENTS: Final = "/api/v1/namespaces"
_MAX_NOTE_BYTES: Final = 1024
_MAX_NAME: Final = 253 - 33
"""The API server's limits for a message and for a name, less the suffix that makes it unique."""
_REMEMBERED: Final = 1000
_QUEUED: Final = 1000
_SERIES_SECONDS: Final = 3000.0
"""A repeat within this time is counted; the API server forgets Events after an hour (`--event-ttl`)."""
_DRAIN_SECONDS: Final = 3.0


@dataclass(slots=True)
class _Series:
    """One Event and how often it happened."""

    namespace: str
    object_name: str
    uid: str
    reason: str
    type: EventType
    action: str
    note: str
    first: datetime
    last: datetime
    last_used: float
    count: int = 1
    name: str | None = None
    queued: bool = field(default=True)


class Events:
    """Posts Events. An async context manager: its task runs inside, and is drained for a few seconds at the end."""

    def __init__(
        self,
        api: KubeApi,
        *,
        instance: str,
        per_second: float = 10.0,
        burst: int = 50,
        clock: Callable[[], float] = monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`instance` tells replicas apart: the pod's name."""
        self._api = api
        self._instance = instance[:128]
        self._clock = clock
        self._now = now
        self._bucket = _Bucket(per_second, burst, clock)
        self._remembered = _Remembered()
        self._queue = _Queue()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._task: asyncio.Task[None] | None = None
        self._failing = False
        self._made = count()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._post_all(), name="events")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is None:
            return
        try:
            async with asyncio.timeout(_DRAIN_SECONDS):
                await self._idle.wait()
        except TimeoutError:
            _logger.warning("Events not posted at the end", extra={"events": len(self._queue)})
        self._task.cancel()
        await asyncio.wait([self._task])
        if not self._task.cancelled():
            self._task.result()

    def post(self, regarding: Metadata, reason: str, type: EventType, action: str, note: str) -> None:  # noqa: A002
        """Queue an Event; the same object, reason and note again is counted in the Event that is there.

        Never waits and never fails: beyond a thousand waiting Events those of the namespace that has most are dropped.
        """
        note = _cut(redaction.redact(note), _MAX_NOTE_BYTES)
        key = (regarding.uid, reason, note)
        series = self._remembered.get(regarding.namespace, key)
        if series is not None and self._clock() - series.last_used < _SERIES_SECONDS:
            series.count += 1
            series.last = self._now()
            series.last_used = self._clock()
            if series.queued:
                return
        else:
            moment = self._now()
            series = _Series(
                regarding.namespace,
                regarding.name,
                regarding.uid,
                reason,
                type,
                action,
                note,
                moment,
                moment,
                self._clock(),
            )
            self._remembered.put(key, series)
        self._enqueue(series)

    def _enqueue(self, series: _Series) -> None:
        if self._queue.put(series):
            self._complain("too many Events are waiting")
        self._idle.clear()
        self._wake.set()

    async def _post_all(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                await asyncio.sleep(self._bucket.take())
                series = self._queue.take()
                await self._post(series)
            self._idle.set()

    async def _post(self, series: _Series) -> None:
        try:
            if series.name is not None and await self._count(series):
                return
            await self._create(series)
        except KubeError as error:
            self._complain(f"{type(error).__name__}: {error}")
        else:
            self._failing = False

    def _complain(self, why: str) -> None:
        if not self._failing:
            _logger.warning("Events cannot be posted; further failures are not logged until one succeeds: %s", why)
        self._failing = True

    async def _create(self, series: _Series) -> None:
        name = f"{series.object_name[:_MAX_NAME].rstrip('.-')}.{self._suffix(series.first)}"
        body: dict[str, Json] = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": series.namespace},
            "eventTime": _micro_time(series.first),
            "firstTimestamp": rfc3339(series.first),
            **_repeats(series),
            "source": {"component": COMPONENT},
            "reportingComponent": f"{GROUP}/{COMPONENT}",
            "reportingInstance": self._instance,
            "type": series.type,
            "reason": series.reason,
            "action": series.action,
            "message": series.note,
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": KIND,
                "namespace": series.namespace,
                "name": series.object_name,
                "uid": series.uid,
            },
        }
        await self._api.request(
            "event",
            "POST",
            path(_EVENTS, series.namespace, "events"),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            accept=METADATA_ONLY,
        )
        series.name = name

    def _suffix(self, moment: datetime) -> str:
        """Unique, and in the order of time: by name kubectl sorts what happened within the same second."""
        microseconds = int(moment.timestamp() * 1_000_000)
        return f"{microseconds:014x}{next(self._made) % 65_536:04x}{uuid4().hex[:14]}"

    async def _count(self, series: _Series) -> bool:
        """Store the count in the Event that is there; False if the API server has forgotten it."""
        if series.name is None:
            return False
        body = _repeats(series)
        try:
            await self._api.request(
                "event",
                "PATCH",
                path(_EVENTS, series.namespace, "events", series.name),
                query={"fieldManager": FIELD_MANAGER},
                body=body,
                content_type="application/merge-patch+json",
                accept=METADATA_ONLY,
            )
        except GoneError:
            series.first, series.count = series.last, 1
            return False
        return True


class _Queue:
    """Events that wait, by namespace: namespaces take turns, and one that floods has its own dropped."""

    def __init__(self) -> None:
        self._waiting: OrderedDict[str, deque[_Series]] = OrderedDict()
        self._length = 0

    def __len__(self) -> int:
        return self._length

    def put(self, series: _Series) -> bool:
        """Whether one is dropped, for there are too many: the newest of the namespace that has most."""
        self._waiting.setdefault(series.namespace, deque()).append(series)
        series.queued = True
        self._length += 1
        crowded = self._length > _QUEUED
        if crowded:
            self._taken(max(self._waiting, key=lambda namespace: len(self._waiting[namespace])), newest=True)
        return crowded

    def take(self) -> _Series:
        """The oldest of the namespace that has waited longest for its turn."""
        namespace = next(iter(self._waiting))
        self._waiting.move_to_end(namespace)
        return self._taken(namespace, newest=False)

    def _taken(self, namespace: str, *, newest: bool) -> _Series:
        waiting = self._waiting[namespace]
        series = waiting.pop() if newest else waiting.popleft()
        series.queued = False
        self._length -= 1
        if not waiting:
            del self._waiting[namespace]
        return series


class _Remembered:
    """Events that a repeat is counted in, by namespace: one that has many forgets its own."""

    def __init__(self) -> None:
        self._series: dict[str, OrderedDict[tuple[str, str, str], _Series]] = {}
        self._length = 0

    def get(self, namespace: str, key: tuple[str, str, str]) -> _Series | None:
        known = self._series.get(namespace)
        if known is None or key not in known:
            return None
        known.move_to_end(key)
        return known[key]

    def put(self, key: tuple[str, str, str], series: _Series) -> None:
        """In place of the one of that key; too many: the one used least lately of the namespace that has most goes."""
        known = self._series.setdefault(series.namespace, OrderedDict())
        self._length += key not in known
        known[key] = series
        known.move_to_end(key)
        if self._length > _REMEMBERED:
            namespace = max(self._series, key=lambda name: len(self._series[name]))
            self._series[namespace].popitem(last=False)
            self._length -= 1
            if not self._series[namespace]:
                del self._series[namespace]


class _Bucket:
    """A token bucket that tells how long to wait for the token it gives."""

    def __init__(self, per_second: float, burst: int, clock: Callable[[], float]) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        self._tokens = float(burst)
        self._then = clock()

    def take(self) -> float:
        now = self._clock()
        self._tokens = min(self._burst, self._tokens + (now - self._then) * self._per_second) - 1
        self._then = now
        return max(0.0, -self._tokens / self._per_second)


def _repeats(series: _Series) -> dict[str, Json]:
    return {"count": series.count, "lastTimestamp": rfc3339(series.last)}


def _micro_time(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str, limit: int) -> str:
    """At most `limit` bytes of UTF-8, without half a character at the end."""
    raw = text.encode()
    return text if len(raw) <= limit else raw[: limit - 3].decode(errors="ignore") + "…"
