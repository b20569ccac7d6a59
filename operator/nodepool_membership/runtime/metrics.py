"""What the process measures about itself and its memberships, in a registry of its own.

Not for: serving them (`health`). Names follow Prometheus' conventions; labels are bounded, except for namespace and
name of the memberships themselves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, Literal

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nodepool_membership.api.status import OPEN_PHASES, Phase, Status
from nodepool_membership.runtime.progress import request_ended
from nodepool_membership.runtime.queue import Key

_PREFIX: Final = "nodepool_membership"
_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

_READY: Final = {"True": 1.0, "False": 0.0, "Unknown": -1.0}
_STATES: Final = ("joined", "joining", "failed", "pending", "surplus")
_FINISHED: Final = frozenset(Phase) - OPEN_PHASES - {Phase.QUEUED}


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the gauges show of one membership; `servers` in the order of `_STATES`."""

    ready: float
    servers: tuple[int, int, int, int, int]


class _Memberships(Collector):
    """Gauges made when they are asked for, so that a thousand memberships cost a thousand small tuples."""

    def __init__(self) -> None:
        self.samples: dict[Key, _Sample] = {}

    def collect(self) -> Iterator[GaugeMetricFamily]:
        ready = GaugeMetricFamily(
            f"{_PREFIX}_ready", "Condition Ready: 1 True, 0 False, -1 Unknown", labels=("namespace", "name")
        )
        servers = GaugeMetricFamily(
            f"{_PREFIX}_servers",
            "Servers of a membership by state (surplus: off the list, owed removal)",
            labels=("namespace", "name", "state"),
        )
        # A copy: this runs in a thread of its own.
        for key, sample in list(self.samples.items()):
            ready.add_metric(key, sample.ready)
            for state, count in zip(_STATES, sample.servers, strict=True):
                servers.add_metric((*key, state), count)
        yield ready
        yield servers


class Metrics:
    """All metrics of the process. Whatever changed the world is counted after it is recorded, never before."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._memberships = _Memberships()
        self.registry.register(self._memberships)
        self._reconciles = Histogram(
            f"{_PREFIX}_reconcile_duration_seconds",
            "Time of one look at a membership",
            ("outcome",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._kube = Counter(
            f"{_PREFIX}_kube_requests_total",
            "Requests to the API server by what they concern (status, finalizer, event and most of lease are writes)",
            ("kind", "outcome"),
            registry=self.registry,
        )
        self._cloud = Histogram(
            f"{_PREFIX}_cloud_request_duration_seconds",
            "Requests to the cloud",
            ("route", "outcome"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Counter(
            f"{_PREFIX}_batches_finished_total",
            "Batches whose outcome is recorded",
            ("phase",),
            registry=self.registry,
        )

    def reconciled(self, outcome: Literal["ok", "error"], seconds: float) -> None:
        self._reconciles.labels(outcome).observe(seconds)

    def kube_request(self, kind: str, outcome: str, _seconds: float) -> None:
        self._kube.labels(kind, outcome).inc()
        request_ended()

    def cloud_request(self, route: str, outcome: str, seconds: float) -> None:
        self._cloud.labels(route, outcome).observe(seconds)
        request_ended()

    def stored(self, namespace: str, name: str, old: Status, new: Status) -> None:
        """A status was written: count the batches that it finishes, and show it."""
        before = {batch.batch: batch.phase for batch in old.jobs}
        for batch in new.jobs:
            if batch.phase in _FINISHED and before.get(batch.batch) != batch.phase:
                self._batches.labels(batch.phase.value).inc()
        self.show(namespace, name, new)

    def show(self, namespace: str, name: str, status: Status) -> None:
        """Show this of the membership from now on."""
        ready = status.condition("Ready")
        self._memberships.samples[namespace, name] = _Sample(
            ready=_READY[ready.status] if ready is not None else _READY["Unknown"],
            servers=(status.joined, status.joining, status.failed, status.pending, status.surplus),
        )

    def forget(self, namespace: str, name: str) -> None:
        """The membership is gone."""
        self._memberships.samples.pop((namespace, name), None)

    def watch_leadership(self, leads: Callable[[], bool]) -> None:
        """Ask this whenever the metrics are read; to be called once."""
        gauge = Gauge(f"{_PREFIX}_leader", "1 if this process may call the cloud, else 0", registry=self.registry)
        gauge.set_function(lambda: float(leads()))

    def watch_queue(self, depth: Callable[[], float], oldest_seconds: Callable[[], float]) -> None:
        """Ask these whenever the metrics are read; to be called once."""
        gauge = Gauge(f"{_PREFIX}_queue_depth", "Memberships that wait for a worker", registry=self.registry)
        gauge.set_function(depth)
        oldest = Gauge(
            f"{_PREFIX}_queue_oldest_seconds", "How long the first of them has waited", registry=self.registry
        )
        oldest.set_function(oldest_seconds)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format 0.0.4. For any thread: so must be what the gauges ask."""
        return generate_latest(self.registry)
