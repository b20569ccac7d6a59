"""Many memberships that add at once on few clusters: what is read of a cluster must not grow with them (promise 12).

Not for: one large membership (`joins`), or many that have nothing to add (`fleets`).
A race sets such a load beside one membership that makes the same calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from bench.figures import Figure, Limit, Section
from bench.world import NAMESPACE, Say, World, world
from cce_simulator.config import Behaviour, ClusterConfig, NodePoolConfig, SimulatorConfig, generated_id
from harness import MembershipSpec, Operator, wait_for

_SEED: Final = "bench"
_READS_PER_SECOND: Final = 1000
_DEADLINE_SECONDS: Final = 900.0
_CALM: Final = frozenset({"", "Pending", "Progressing", "Starting", "Succeeded"})
"""Reasons that tell of nothing wrong; in these loads nothing is."""
_A_POLL: Final = 2
_BURST: Final = 5
_COUNTED: Final = "nodepool_membership_snapshots"
_ALARMS: Final = "memberships that showed an alarm that was none"
_ROUTES: Final = ("listNodes", "getNodePool", "listNodePools", "getCluster", "getJob")


@dataclass(frozen=True, slots=True)
class Crowd:
    """One load. Durations in seconds."""

    memberships: int
    clusters: int = 1
    ids: int = 20
    job: float = 10.0
    poll: float = 1.0
    resync: int = 60
    writes: int = 1000
    """A minute."""
    batch: int = 200
    parallel: int = 1
    most: float | None = None
    """So many times as long as the write budget needs it may take."""

    @property
    def name(self) -> str:
        return f"crowd-{self.memberships}-over-{self.clusters}"

    @property
    def batches(self) -> int:
        """Calls of all memberships together."""
        return self.memberships * -(-self.ids // self.batch)

    @property
    def least(self) -> float:
        """Seconds that the write budget takes to let all calls through, and the last job."""
        return 60 * self.batches / self.writes + self.job

    @property
    def options(self) -> tuple[str, ...]:
        return (
            f"--poll-interval={round(self.poll * 1000)}ms",
            f"--resync-interval={self.resync}s",
            f"--writes-per-minute={self.writes}",
            f"--reads-per-second={_READS_PER_SECOND}",
        )

    @property
    def settings(self) -> str:
        return (
            f"{self.memberships:,} memberships of {self.ids:,} new servers each over {self.clusters} clusters,"
            f" batchSize {self.batch}, maxParallelJobs {self.parallel}, jobs of {self.job:g} s,"
            f" {' '.join(self.options)}, no limits in the simulator"
        )


@dataclass(frozen=True, slots=True)
class Race:
    """Many memberships, and one with the same batches under the same options."""

    many: Crowd
    one: Crowd
    most: float

    @property
    def name(self) -> str:
        return f"race-{self.many.memberships}-over-{self.many.clusters}"


@dataclass(slots=True)
class _Seen:
    """What was measured from the first membership until all are Ready."""

    seconds: float = 0.0
    alarms: dict[str, str] = field(default_factory=dict)
    """Memberships that said that something is wrong, and what last."""
    calls: Mapping[str, int] = field(default_factory=dict)
    snapshots: float = 0.0
    waits: float = 0.0
    cpu: float = 0.0
    """Seconds of the operator."""
    simulator_cpu: float = 0.0


def measure(load: Crowd, say: Say) -> Section:
    """Run the load in a world of its own."""
    return _measured(load, say)[0]


def measure_race(race: Race, say: Say) -> Section:
    """Both after one another, each in a world of its own."""
    one, alone = _measured(race.one, say)
    many, seconds = _measured(race.many, say)
    ratio = Figure(
        "time from apply to Ready of many / of one", seconds / alone, "", Limit(race.most), f"one: {alone:.1f} s"
    )
    alarms = next(figure for figure in one.figures if figure.limit is not None and figure.name == _ALARMS)
    figures = (ratio, *many.figures, replace(alarms, name=f"{_ALARMS}, where there is one membership"))
    return Section(race.name, f"{many.settings}; beside {one.settings}", figures)


def _measured(load: Crowd, say: Say) -> tuple[Section, float]:
    """The figures, and the seconds until all were Ready."""
    with world(_config(load)) as here, here.operator(*load.options) as operator:
        operator.wait_ready()
        seen = _watched(load, here, operator)
        say(f"{load.name}: Ready after {seen.seconds:.1f} s, {seen.snapshots:.0f} snapshots")
        figures = _figures(load, here, seen, operator.peak_memory_mib())
        return Section(load.name, load.settings, tuple(figures)), seen.seconds


def _config(load: Crowd) -> SimulatorConfig:
    clusters = (
        ClusterConfig(
            id=generated_id(_SEED, "cluster", index),
            node_pools=(NodePoolConfig(id=generated_id(_SEED, "pool", index)),),
        )
        for index in range(load.clusters)
    )
    behaviour = Behaviour(job_seconds=load.job)
    return SimulatorConfig(
        seed=_SEED, clusters=tuple(clusters), behaviour=behaviour, writes_per_minute=0, ledger_reads="counts"
    )


def _memberships(load: Crowd, endpoint: str) -> Iterator[MembershipSpec]:
    for number in range(load.memberships):
        cluster = number % load.clusters
        yield MembershipSpec(
            f"crowd-{number}",
            [f"{number:08x}-0000-4000-8000-{index:012x}" for index in range(load.ids)],
            endpoint,
            NAMESPACE,
            cluster_id=generated_id(_SEED, "cluster", cluster),
            node_pool_id=generated_id(_SEED, "pool", cluster),
            more={"batchSize": load.batch, "maxParallelJobs": load.parallel},
        )


def _watched(load: Crowd, here: World, operator: Operator) -> _Seen:
    seen, begun = _Seen(), monotonic()
    busy, simulating = operator.cpu_seconds(), here.simulator.cpu_seconds()
    here.cluster.create_many(_memberships(load, here.simulator.url))

    def ready() -> bool | None:
        operator.check()
        rows = here.cluster.rows()
        seen.alarms |= {str(row["Name"]): str(row["Reason"]) for row in rows if is_alarm(row)}
        return True if all(row["Ready"] == "True" for row in rows) else None

    wait_for(f"all of {load.name} are Ready", ready, seconds=_DEADLINE_SECONDS, every=0.5)
    seen.seconds = monotonic() - begun
    seen.cpu, seen.simulator_cpu = operator.cpu_seconds() - busy, here.simulator.cpu_seconds() - simulating
    seen.calls = {route: here.calls(route) for route in _ROUTES}
    counted = _counted(operator.get("/metrics").text)
    seen.snapshots = sum(value for name, value in counted.items() if name.startswith(f"{_COUNTED}_total"))
    seen.waits = counted["nodepool_membership_snapshot_waits_total"]
    return seen


def is_alarm(row: Mapping[str, object]) -> bool:
    """Whether a row of `kubectl get` tells of something wrong."""
    return str(row["Reason"] or "") not in _CALM


def _counted(text: str) -> Mapping[str, float]:
    """Samples by name and, where there are any, values of labels."""
    families = text_string_to_metric_families(text)
    samples = [sample for family in families for sample in family.samples]
    return {" ".join((sample.name, *sample.labels.values())): sample.value for sample in samples}


def _figures(load: Crowd, here: World, seen: _Seen, peak_mib: float) -> Sequence[Figure]:
    summary = here.simulator.get("summary")
    adds, doubled, accepted = (int(str(summary[k])) for k in ("add_calls", "double_adds", "servers_accepted"))
    polls = seen.seconds / load.poll
    most = _A_POLL * polls + _BURST
    counts = (seen.calls["getNodePool"] + seen.calls["listNodePools"]) / 2

    def often(calls: float) -> str:
        return f"{calls / load.clusters / polls:.2f} a poll interval, {calls / adds:.2f} an add"

    return (
        Figure("servers accepted", accepted, "", Limit(load.memberships * load.ids, "exactly", counted=True)),
        Figure("servers added twice", doubled, "", Limit(0, "exactly", counted=True)),
        Figure("add calls", adds, "", Limit(load.batches, "exactly", counted=True)),
        Figure(_ALARMS, len(seen.alarms), "", Limit(0, "exactly", counted=True),
               ", ".join(sorted(set(seen.alarms.values())))),
        Figure("time from apply to Ready of all", seen.seconds, "s", None, f"{polls:.0f} poll intervals"),
        Figure("time / (what the write budget needs and one job)", seen.seconds / load.least, "",
               None if load.most is None else Limit(load.most), f"{load.least:.0f} s"),
        Figure("snapshots of a cluster", seen.snapshots / load.clusters, "", Limit(most, counted=True),
               f"{_A_POLL} a poll interval and {_BURST}; {seen.waits / max(seen.snapshots, 1):.1f} waited for each"),
        Figure("snapshots of a cluster / poll interval", seen.snapshots / load.clusters / polls),
        Figure("looks at a cluster's pools / 2", counts / load.clusters, "", Limit(most, counted=True), often(counts)),
        Figure("looks at a cluster's phase", seen.calls["getCluster"] / load.clusters, "", Limit(most, counted=True),
               often(seen.calls["getCluster"])),
        Figure("node pages of a cluster", seen.calls["listNodes"] / load.clusters, "", None,
               often(seen.calls["listNodes"])),
        Figure("snapshots / add", seen.snapshots / adds, "", None, f"{adds} adds"),
        Figure("cloud reads of jobs / add", seen.calls["getJob"] / adds, "", None,
               f"{seen.calls['getJob'] / load.clusters / polls:.2f} a poll interval; a job lasts"
               f" {load.job / load.poll:.0f} of them"),
        Figure("cores in use by the operator", seen.cpu / seen.seconds, "", None, f"{seen.cpu:.1f} s"),
        Figure("cores in use by the simulator", seen.simulator_cpu / seen.seconds, "", None,
               f"{sum(seen.calls.values()) / max(seen.simulator_cpu, 0.01):.0f} reads a second of its CPU"),
        Figure("peak memory (VmHWM)", peak_mib, "MiB"),
    )  # fmt: skip
