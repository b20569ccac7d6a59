"""Many memberships in five clusters: what an operator process costs that handles, watches and resyncs them all.

Not for: add calls (`joins`); a fleet is adopted, or suspended with most of its nodes absent.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Final

from bench.apiserver import Writes
from bench.figures import Figure, Limit, Section
from bench.latency import Latency, of_changes
from bench.world import NAMESPACE, Say, World, looks, world
from cce_simulator.config import ClusterConfig, NodePoolConfig, SimulatorConfig, generated_id, server_id
from harness import MembershipSpec, wait_for
from harness.identity import FEDERATION

_SEED: Final = "bench"
_CLUSTERS: Final = 5
_NODES: Final = 10_000
_IDLE_SECONDS: Final = 60.0
_CHANGES: Final = 20
_HANDLED_SECONDS: Final = 900.0
_LONG: Final = "1h"
"""A resync interval in which nothing is due for at least 6 minutes after a look."""
_EXCHANGE: Final = "createSecurityToken"
GIB: Final = 1 << 30


@dataclass(frozen=True, slots=True)
class Peer:
    """A Go controller (controller-runtime, caches the resource, writes one status each), measured once, elsewhere."""

    mib: int
    p50_ms: str


@dataclass(frozen=True, slots=True)
class Fleet:
    """One load. `resync` is the interval in seconds in which one full resync is measured."""

    memberships: int
    ids: int
    suspend: bool
    peak_mib: int
    idle_ms: int | None = None
    p50_ms: int | None = None
    resync: int = 60
    quota_backend_bytes: int | None = None
    needs_bytes: int = 0
    peer: Peer | None = None
    keyless: bool = False
    """With the keys of a service account in place of a Secret's."""

    @property
    def name(self) -> str:
        return f"fleet-{self.memberships}x{self.ids}"

    @property
    def there(self) -> int:
        """Servers of each membership that are Active nodes."""
        return min(self.ids, _NODES // (self.memberships // _CLUSTERS))

    @property
    def settings(self) -> str:
        state = "suspended" if self.suspend else "to adopt"
        return (
            f"{self.memberships:,} memberships {state}, {self.ids:,} ids each of which {self.there} are nodes, in"
            f" {_CLUSTERS} clusters of {_NODES:,} Active nodes; --resync-interval={_LONG} (idle: none is due), then a"
            f" second process with --resync-interval={self.resync}s; all else default but --no-leader-elect"
        )

    def is_handled(self, row: dict[str, object]) -> bool:
        """Whether this row of `kubectl get` tells of a look at the nodes."""
        if self.suspend:
            return "would add" in str(row["Message"])
        return row["Ready"] == "True" and row["Joined"] == self.ids


def lacks_memory(load: Fleet) -> str | None:
    """Why the load cannot run on this machine, None if it can."""
    available = next(
        int(line.split()[1]) * 1024
        for line in Path("/proc/meminfo").read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    if available >= load.needs_bytes:
        return None
    return f"{load.name} needs {load.needs_bytes / GIB:.0f} GiB of free memory, {available / GIB:.1f} GiB are available"


@dataclass(frozen=True, slots=True)
class First:
    """The process that handles a new fleet, idles, and answers changes."""

    handled_seconds: float
    writes: Writes
    settled_mib: float
    idle_ms: float
    idle_writes: int
    latency: Latency
    peak_mib: float
    exchanges: int
    """For temporary keys."""


@dataclass(frozen=True, slots=True)
class _Second:
    """A process started on the settled fleet, over one resync interval."""

    cpu_seconds: float
    looks: int
    reads: int
    writes: int
    start_writes: int
    peak_mib: float


def measure(load: Fleet, say: Say) -> Section:
    """Run the load in a world of its own."""
    with world(_config(), quota_backend_bytes=load.quota_backend_bytes) as here:
        first = _handle(load, here, say)
        second = _resync(load, here, first.idle_ms, say)
    return Section(load.name, load.settings, tuple(_figures(load, first, second)))


def measure_first(load: Fleet, say: Say) -> First:
    """The process that handles a new fleet, in a world of its own."""
    with world(_config(), keyless=load.keyless) as here:
        return _handle(load, here, say)


def _config() -> SimulatorConfig:
    clusters = (
        ClusterConfig(
            id=generated_id(_SEED, "cluster", index),
            node_pools=(
                NodePoolConfig(id=generated_id(_SEED, "pool", index), server_count=_NODES, first_server=index * _NODES),
            ),
        )
        for index in range(_CLUSTERS)
    )
    return SimulatorConfig(seed=_SEED, clusters=tuple(clusters), ledger_reads="counts")


def _memberships(load: Fleet, endpoint: str) -> Iterator[MembershipSpec]:
    for number in range(load.memberships):
        cluster = number % _CLUSTERS
        yield MembershipSpec(
            f"fleet-{number}",
            _ids(load, number),
            endpoint,
            NAMESPACE,
            cluster_id=generated_id(_SEED, "cluster", cluster),
            node_pool_id=generated_id(_SEED, "pool", cluster),
            secret=None if load.keyless else "cce-credentials",
            more={
                **({"suspend": True} if load.suspend else {}),
                **({"identityRef": FEDERATION} if load.keyless else {}),
            },
        )


def _ids(load: Fleet, number: int) -> Iterator[str]:
    """Those of one membership: first servers that are nodes, then absent ones; no other membership names them."""
    first = number % _CLUSTERS * _NODES + number // _CLUSTERS * load.there
    for index in range(first, first + load.there):
        yield server_id(_SEED, index)
    for index in range(load.ids - load.there):
        yield f"{number:08x}-0000-4000-8000-{index:012x}"


def _handle(load: Fleet, here: World, say: Say) -> First:
    begun = monotonic()
    here.cluster.create_many(_memberships(load, here.simulator.url))
    say(f"{load.name}: created in {monotonic() - begun:.0f} s; starting the operator")
    before, begun = here.writes(), monotonic()
    with here.operator(f"--resync-interval={_LONG}") as operator:

        def handled() -> bool | None:
            operator.check()
            return True if all(map(load.is_handled, here.cluster.rows())) else None

        wait_for(f"all of {load.name} are handled", handled, seconds=_HANDLED_SECONDS, every=0.5)
        seconds = monotonic() - begun
        say(f"{load.name}: handled after {seconds:.0f} s; waiting until all Events are posted")
        written = here.quiet(600)
        settled = operator.memory_mib()
        say(f"{load.name}: idling for {_IDLE_SECONDS:.0f} s")
        busy = operator.cpu_seconds()
        sleep(_IDLE_SECONDS)
        busy = operator.cpu_seconds() - busy
        idle_writes = (here.writes() - written).total
        latency = of_changes(here.cluster, NAMESPACE, [f"fleet-{number}" for number in range(_CHANGES)])
        peak = operator.peak_memory_mib()
        say(f"{load.name}: peak {peak:.0f} MiB, idle {busy * 1000 / _IDLE_SECONDS:.2f} ms/s, p50 {latency.p50:.0f} ms")
        if operator.terminate() != 0:
            raise operator.failed("did not end with exit code 0")
    return First(
        handled_seconds=seconds,
        writes=written - before,
        settled_mib=settled,
        idle_ms=busy * 1000 / _IDLE_SECONDS,
        idle_writes=idle_writes,
        latency=latency,
        peak_mib=peak,
        exchanges=here.calls(_EXCHANGE),
    )


def _resync(load: Fleet, here: World, idle_ms: float, say: Say) -> _Second:
    start = here.quiet(60)
    with here.operator(f"--resync-interval={load.resync}s", name="operator-resync") as operator:
        operator.wait_ready()

        def all_seen() -> bool | None:
            operator.check()
            return True if looks(operator).decided >= load.memberships else None

        wait_for(f"all of {load.name} are seen", all_seen, seconds=_HANDLED_SECONDS, every=0.5)
        # Moments are periodic; one that is due in less than a tenth of the interval after a look is left out.
        sleep(load.resync / 10)
        say(f"{load.name}: one full resync, {load.resync} s")
        before, reads, seen, busy = here.writes(), here.cloud_reads(), looks(operator), operator.cpu_seconds()
        sleep(load.resync)
        return _Second(
            cpu_seconds=operator.cpu_seconds() - busy - idle_ms / 1000 * load.resync,
            looks=(looks(operator) - seen).decided,
            reads=here.cloud_reads() - reads,
            writes=(here.writes() - before).total,
            start_writes=(before - start).total,
            peak_mib=operator.peak_memory_mib(),
        )


def _figures(load: Fleet, first: First, second: _Second) -> Sequence[Figure]:
    none = Limit(0, "exactly", counted=True)
    go = load.peer
    beside = "" if go is None else f"Go controller, measured once: {go.mib} MiB"
    p50_beside = "" if go is None else f"Go controller, measured once: {go.p50_ms} ms"
    return (
        Figure("time from process start until all are handled", first.handled_seconds, "s"),
        Figure("status writes / membership until then", first.writes.status / load.memberships),
        Figure("finalizer writes", first.writes.metadata, "", none),
        Figure("Events written / membership", first.writes.events / load.memberships),
        Figure("peak memory (VmHWM)", first.peak_mib, "MiB", Limit(load.peak_mib), beside),
        Figure("settled memory (VmRSS)", first.settled_mib, "MiB"),
        Figure("idle CPU over 60 s, no resync due", first.idle_ms, "ms/s", _limit(load.idle_ms)),
        Figure("API-server writes while idle", first.idle_writes, "", none),
        Figure("spec change to status, p50", first.latency.p50, "ms", _limit(load.p50_ms), p50_beside),
        Figure("spec change to status, longest of 20", first.latency.longest, "ms"),
        Figure("the same from the patch's answer on, p50", first.latency.p50_from_answer, "ms"),
        Figure("CPU of one full resync, above idle", second.cpu_seconds, "s", None, f"{second.looks} looks"),
        Figure("cloud reads of one full resync", second.reads, "", None, f"{_CLUSTERS} clusters share their listings"),
        Figure("API-server writes of one full resync", second.writes, "", none),
        Figure("API-server writes after a restart", second.start_writes, "", none),
        Figure("peak memory (VmHWM) after a restart", second.peak_mib, "MiB", Limit(load.peak_mib)),
    )


def _limit(value: int | None) -> Limit | None:
    return None if value is None else Limit(value)
