"""What the process measures about itself and its memberships, in a registry of its own.

Not for: serving them (`health`). Names follow Prometheus' conventions; labels are bounded, except for namespace and
name of the memberships themselves.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from typing import Final, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from nodepool_membership import __version__
from nodepool_membership.api.status import OPEN_PHASES, Condition, Phase, Status
from nodepool_membership.cce.errors import CloudError
from nodepool_membership.cce.snapshots import Ended
from nodepool_membership.core.conditions.outcomes import removed, wiped
from nodepool_membership.kube.errors import KubeError
from nodepool_membership.runtime.scheduling.progress import request_ended
from nodepool_membership.runtime.scheduling.queue import Key

_PREFIX: Final = "nodepool_membership"
_SECONDS: Final = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)

CredentialsTried = Literal["ok", "error"]
"""How one look at a membership ended."""

_READY: Final = {"True": 1.0, "False": 0.0, "Unknown": -1.0}
_STATES: Final = ("joined", "joining", "failed", "pending", "surplus")
_TYPES: Final = ("Ready", "Reconciling", "Stalled")
_FINISHED: Final = frozenset(Phase) - OPEN_PHASES - {Phase.QUEUED}

ROUTES: Final = (
    "addNodes",
    "removeNodes",
    "getJob",
    "listNodes",
    "getNode",
    "getNodePool",
    "listNodePools",
    "getCluster",
    "listServers",
    "showServer",
    "listBaremetalServers",
    "showBaremetalServer",
    "listVolumes",
    "listFlavors",
    "showSubnet",
    "createTokenByIdToken",
    "createTemporaryAccessKey",
    "assumeAgencyWithOidc",
    "assumeAgency",
    "agentCredentials",
)
"""Every call to the cloud, by the name that `cce` gives it."""
KINDS: Final = (
    "membership",
    "status",
    "finalizer",
    "event",
    "lease",
    "secret",
    "token",
    "review",
    "namespace",
    "definition",
    "discovery",
)
"""What a request to the API server concerns, as `kube` names it."""


def _errors(base: type[CloudError | KubeError]) -> Iterator[str]:
    """The outcomes that the errors below this type are told as.

    Only those of its own module: the set must not depend on what else is loaded, and each room's errors stand in one.
    """
    for error in base.__subclasses__():
        if error.__module__ == base.__module__:
            yield error.outcome()
            yield from _errors(error)


CLOUD_OUTCOMES: Final = ("ok", "aborted", *sorted({*_errors(CloudError)}))
KUBE_OUTCOMES: Final = ("ok", "Cancelled", *sorted({*_errors(KubeError)}))


@dataclass(frozen=True, slots=True)
class _Sample:
    """What the gauges show of one membership; `servers` in the order of `_STATES`."""

    ready: float
    servers: tuple[int, int, int, int, int]
    conditions: tuple[tuple[str, float], ...]
    """Reason and value, in the order of `_TYPES`."""


def _state(condition: Condition | None) -> tuple[str, float]:
    """A condition that is not there is False, and for no reason."""
    return ("", 0.0) if condition is None else (condition.reason.value, _READY[condition.status])


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
        conditions = GaugeMetricFamily(
            f"{_PREFIX}_condition",
            "Condition of a membership with its reason: 1 True, 0 False or not there, -1 Unknown",
            labels=("namespace", "name", "type", "reason"),
        )
        # A copy: this runs in a thread of its own.
        for key, sample in list(self.samples.items()):
            ready.add_metric(key, sample.ready)
            for kind, (reason, value) in zip(_TYPES, sample.conditions, strict=True):
                conditions.add_metric((*key, kind, reason), value)
            for state, count in zip(_STATES, sample.servers, strict=True):
                servers.add_metric((*key, state), count)
        yield ready
        yield conditions
        yield servers


class Metrics:
    """All metrics of the process. Whatever changed the world is counted after it is recorded, never before.

    Every bounded set of labels is there from the start, at 0: else the first lost answer of a process would be no
    increase.
    """

    def __init__(self) -> None:
        # A time of creation beside each of 200 counters tells nobody anything: a restart shows in the process's own.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        Info(f"{_PREFIX}_build", "The operator's version, always 1", registry=self.registry).info(
            {"version": __version__}
        )
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
        self._cloud = Counter(
            f"{_PREFIX}_cloud_requests_total",
            "Requests to the cloud (addNodes and removeNodes change something); OutcomeUnknown: an answer was lost",
            ("route", "outcome"),
            registry=self.registry,
        )
        self._cloud_seconds = Histogram(
            f"{_PREFIX}_cloud_request_duration_seconds",
            "Time of requests to the cloud",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batches = Counter(
            f"{_PREFIX}_batches_finished_total",
            "Batches whose outcome is recorded",
            ("phase",),
            registry=self.registry,
        )
        self._wiped = Counter(
            f"{_PREFIX}_servers_wiped_total",
            "Servers that accepted adds have wiped; where an answer was lost, those that it left with a node",
            registry=self.registry,
        )
        self._removed = Counter(
            f"{_PREFIX}_servers_removed_total",
            "Servers whose node was removed, which reinstalls them",
            registry=self.registry,
        )
        self._snapshots = Counter(
            f"{_PREFIX}_snapshots_total",
            "Snapshots of clusters by what became of them: whole; doubtful (list and counts of a pool disagree); again"
            " (they disagree, another one is taken first); failed; clockSetBack (thrown away)",
            ("outcome",),
            registry=self.registry,
        )
        self._waited = Counter(
            f"{_PREFIX}_snapshot_waits_total",
            "Memberships that waited for a snapshot: divided by the number of snapshots, so many shared one",
            registry=self.registry,
        )
        self._used = Counter(
            f"{_PREFIX}_snapshot_uses_total",
            "Looks that a snapshot answered, awaited or at hand",
            registry=self.registry,
        )
        self._read_seconds = Counter(
            f"{_PREFIX}_cloud_read_wait_seconds_total",
            "Seconds that reads waited for a place in the read budget (--reads-per-second), all added up",
            registry=self.registry,
        )
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        for outcome in get_args(CredentialsTried):
            self._reconciles.labels(outcome)
        for kind, outcome in product(KINDS, KUBE_OUTCOMES):
            self._kube.labels(kind, outcome)
        for route in ROUTES:
            self._cloud_seconds.labels(route)
            for outcome in CLOUD_OUTCOMES:
                self._cloud.labels(route, outcome)
        for phase in _FINISHED:
            self._batches.labels(phase.value)
        for ended in get_args(Ended):
            self._snapshots.labels(ended)

    def reconciled(self, outcome: CredentialsTried, seconds: float) -> None:
        self._reconciles.labels(outcome).observe(seconds)

    def kube_request(self, kind: str, outcome: str, _seconds: float) -> None:
        self._kube.labels(kind, outcome).inc()
        request_ended()

    def cloud_request(self, route: str, outcome: str, seconds: float) -> None:
        self._cloud.labels(route, outcome).inc()
        self._cloud_seconds.labels(route).observe(seconds)
        request_ended()

    def read_waited(self, seconds: float) -> None:
        self._read_seconds.inc(seconds)

    def snapshot_ended(self, outcome: Ended, waited: int) -> None:
        self._snapshots.labels(outcome).inc()
        self._waited.inc(waited)

    def snapshot_used(self) -> None:
        self._used.inc()

    def stored(self, namespace: str, name: str, old: Status, new: Status) -> None:
        """A status was written: count the batches that it finishes, and the servers that it tells of, and show it."""
        before = {batch.batch: batch.phase for batch in old.jobs}
        for batch in new.jobs:
            if batch.phase in _FINISHED and before.get(batch.batch) != batch.phase:
                self._batches.labels(batch.phase.value).inc()
        self._wiped.inc(wiped(old, new))
        self._removed.inc(removed(old, new))
        self.show(namespace, name, new)

    def show(self, namespace: str, name: str, status: Status) -> None:
        """Show this of the membership from now on."""
        kinds = {condition.type: condition for condition in status.conditions}
        ready = kinds.get("Ready")
        self._memberships.samples[namespace, name] = _Sample(
            ready=_READY[ready.status] if ready is not None else _READY["Unknown"],
            conditions=tuple(_state(kinds.get(kind)) for kind in _TYPES),
            servers=(status.joined, status.joining, status.failed, status.pending, status.surplus),
        )

    def forget(self, namespace: str, name: str) -> None:
        """The membership is gone."""
        self._memberships.samples.pop((namespace, name), None)

    def watch_leadership(self, leads: Callable[[], bool]) -> None:
        """Ask this whenever the metrics are read; to be called once."""
        gauge = Gauge(f"{_PREFIX}_leader", "1 if this process may call the cloud, else 0", registry=self.registry)
        gauge.set_function(lambda: float(leads()))

    def watch_queue(
        self, depth: Callable[[], float], oldest_seconds: Callable[[], float], oldest_new_seconds: Callable[[], float]
    ) -> None:
        """Ask these whenever the metrics are read; to be called once."""
        gauge = Gauge(f"{_PREFIX}_queue_depth", "Memberships that wait for a worker", registry=self.registry)
        gauge.set_function(depth)
        oldest = Gauge(
            f"{_PREFIX}_queue_oldest_seconds", "How long the first of them has waited", registry=self.registry
        )
        oldest.set_function(oldest_seconds)
        new = Gauge(
            f"{_PREFIX}_queue_oldest_new_seconds",
            "How long the first of those that were never looked at has waited for the end of its first look",
            registry=self.registry,
        )
        new.set_function(oldest_new_seconds)

    def text(self) -> bytes:
        """The metrics in Prometheus' text format 0.0.4. For any thread: so must be what the gauges ask."""
        return generate_latest(self.registry)
