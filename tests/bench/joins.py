"""A membership of n new servers, from apply to Ready and then idle, with an operator process of its own.

Not for: many memberships at once (`fleets`). The same join with and without a look at each server stands side by side.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Final

from bench.apiserver import Writes
from bench.figures import Figure, Limit, Section
from bench.world import NAMESPACE, Say, World, looks, world
from cce_simulator.config import Behaviour, SimulatorConfig, server_id
from harness import MembershipSpec, Operator, wait_for
from harness.cluster import is_ready
from harness.editor import everywhere

_BATCH: Final = 200
_NAME: Final = "join"
_SEED: Final = "bench"
_WRITES_PER_MINUTE: Final = 1000
_DEADLINE_SECONDS: Final = 900.0
_LARGEST_OBJECT: Final = 1_200_000
_IDS_PER_READ: Final = 50


@dataclass(frozen=True, slots=True)
class Join:
    """One load. Durations in seconds; the poll interval is to the job as the default 15 s is to minutes."""

    servers: int
    max_parallel_jobs: int = 1
    job: float = 10.0
    poll: float = 0.5
    resync: int = 10

    @property
    def name(self) -> str:
        return f"join-{self.servers}"

    @property
    def batches(self) -> int:
        return -(-self.servers // _BATCH)

    @property
    def options(self) -> Sequence[str]:
        return (
            f"--poll-interval={round(self.poll * 1000)}ms",
            f"--resync-interval={self.resync}s",
            f"--writes-per-minute={_WRITES_PER_MINUTE}",
            "--reads-per-second=1000",
        )

    @property
    def cloud(self) -> SimulatorConfig:
        return SimulatorConfig(seed=_SEED, behaviour=Behaviour(job_seconds=self.job), writes_per_minute=0)

    @property
    def settings(self) -> str:
        return (
            f"batchSize {_BATCH}, maxParallelJobs {self.max_parallel_jobs}, jobs of {self.job:g} s,"
            f" --poll-interval={self.poll:g}s, --resync-interval={self.resync}s,"
            f" --writes-per-minute={_WRITES_PER_MINUTE}, --reads-per-second=1000, no write limit in the simulator"
        )


@dataclass(frozen=True, slots=True)
class _Busy:
    """What was measured from apply until the last write of the busy period."""

    seconds: float
    job_seconds: float
    writes: Writes
    object_bytes: int
    job_reads: int
    node_reads: int


@dataclass(frozen=True, slots=True)
class _Idle:
    """What was measured over whole resyncs of the settled membership."""

    writes: Writes
    reads: int


def measure(load: Join, say: Say) -> Section:
    """Run the load in a world of its own."""
    with world(load.cloud) as here, here.operator(*load.options) as operator:
        operator.wait_ready()
        say(f"{load.name}: {load.batches} batches, about {load.job * load.batches / load.max_parallel_jobs:.0f} s")
        busy = _join(load, here, operator)
        say(f"{load.name}: Ready after {busy.seconds:.1f} s; watching idle resyncs")
        idle = _idle(load, here, operator)
        figures = _figures(load, here, busy, idle, operator.peak_memory_mib())
    return Section(load.name, load.settings, tuple(figures))


def measure_looks(load: Join, say: Say) -> Section:
    """Run the load with `spec.preflight.mode: Off`, then with `Report`: each server is read before it is named."""
    _, without = _looked(load, say, "Off")
    reads, peak = _looked(load, say, "Report")
    figures = (
        Figure(f"reads of servers / (n/{_IDS_PER_READ} + 1)", reads / (load.servers / _IDS_PER_READ + 1), "",
               Limit(1, counted=True), f"{reads} reads"),
        Figure("peak memory / the same without", peak / without, "", Limit(1.05), f"{peak:.1f} over {without:.1f} MiB"),
    )  # fmt: skip
    return Section(f"looks-{load.servers}", load.settings, figures)


def _looked(load: Join, say: Say, mode: str) -> tuple[int, float]:
    """Reads of servers, and the peak of memory in MiB."""
    with (
        world(load.cloud) as here,
        here.operator(*load.options, everywhere(here.simulator.url, here.workdir)) as operator,
    ):
        operator.wait_ready()
        busy = _join(load, here, operator, {"preflight": {"mode": mode}})
        say(f"looks-{load.servers}: {mode}: Ready after {busy.seconds:.1f} s")
        return here.calls("listServers"), operator.peak_memory_mib()


def _join(load: Join, here: World, operator: Operator, more: Mapping[str, object] | None = None) -> _Busy:
    wanted = [server_id(_SEED, index) for index in range(load.servers)]
    more = {"maxParallelJobs": load.max_parallel_jobs, **(more or {})}
    before = here.writes()
    begun = monotonic()
    here.cluster.create(MembershipSpec(_NAME, wanted, here.simulator.url, NAMESPACE, more=more))

    def ready() -> bool | None:
        operator.check()
        return True if here.cluster.rows()[0]["Ready"] == "True" else None

    wait_for(f"{load.name} is Ready", ready, seconds=_DEADLINE_SECONDS, every=0.1)
    seconds = monotonic() - begun
    here.cluster.wait(NAMESPACE, _NAME, "the finalizer is gone", lambda m: not _finalizers(m) and is_ready(m))
    job_reads, node_reads = here.calls("getJob"), here.calls("listNodes")
    return _Busy(
        seconds=seconds,
        job_seconds=sum(_job_seconds(here)),
        writes=here.quiet(60) - before,
        object_bytes=here.cluster.stored_bytes(NAMESPACE, _NAME),
        job_reads=job_reads,
        node_reads=node_reads,
    )


def _finalizers(membership: dict[str, object]) -> object:
    metadata = membership["metadata"]
    assert isinstance(metadata, dict)
    return metadata.get("finalizers")


def _job_seconds(here: World) -> Sequence[float]:
    jobs = here.simulator.get("jobs")["jobs"]
    assert isinstance(jobs, list)
    return [job["ended"] - job["created"] for job in jobs]


def _idle(load: Join, here: World, operator: Operator) -> _Idle:
    """Two resyncs of the settled membership, a snapshot each; the first one seen only marks the beginning."""

    def next_snapshot(count: int) -> int:
        def more() -> int | None:
            operator.check()
            seen = looks(operator).snapshots
            return seen if seen > count else None

        return wait_for(f"an idle resync of {load.name}", more, seconds=4 * load.resync + 30)

    seen = next_snapshot(looks(operator).snapshots)
    before, reads = here.quiet(60), here.cloud_reads()
    for _ in range(2):
        seen = next_snapshot(seen)
    return _Idle(here.quiet(60) - before, here.cloud_reads() - reads)


def _figures(load: Join, here: World, busy: _Busy, idle: _Idle, peak_mib: float) -> Sequence[Figure]:
    summary = here.simulator.get("summary")
    adds, doubled, accepted = (int(str(summary[k])) for k in ("add_calls", "double_adds", "servers_accepted"))
    batches, wrote = load.batches, busy.writes
    ideal = busy.job_seconds / load.max_parallel_jobs
    per_batch = f"{wrote.status} for {batches} batches and 1 busy period"
    return (
        Figure("add calls / ceil(n/200)", adds / batches, "", Limit(1, "exactly", counted=True), f"{adds} calls"),
        Figure("servers accepted", accepted, "", Limit(load.servers, "exactly", counted=True)),
        Figure("servers added twice", doubled, "", Limit(0, "exactly", counted=True)),
        Figure("status writes, less 2 of the busy period, / batch", (wrote.status - 2) / batches, "",
               Limit(3, counted=True), per_batch),
        Figure("finalizer writes", wrote.metadata, "", Limit(2, counted=True)),
        Figure("Events written / batch", wrote.events / batches, "", Limit(4, counted=True), f"{wrote.events}"),
        Figure("bytes of membership writes / batch", wrote.membership_bytes / batches, "B"),
        Figure("bytes of Events / batch", wrote.event_bytes / batches, "B"),
        Figure("stored object", busy.object_bytes, "B", Limit(_LARGEST_OBJECT, counted=True)),
        Figure("time from apply to Ready / (job times / parallel jobs)", busy.seconds / ideal, "", Limit(1.5),
               f"{busy.seconds:.1f} s over {ideal:.1f} s"),
        Figure("cloud reads of jobs / batch", busy.job_reads / batches, "", None,
               f"a job lasts {load.job / load.poll:.0f} poll intervals"),
        Figure("cloud reads of node pages / batch", busy.node_reads / batches),
        Figure("API-server writes in two idle resyncs", idle.writes.total, "", Limit(0, "exactly", counted=True),
               f"while the ledger shows {idle.reads} cloud reads"),
        Figure("peak memory (VmHWM)", peak_mib, "MiB"),
    )  # fmt: skip
