"""A hundred memberships in as many clusters, 100,000 servers together: memory, a resync, and all adding at once.

Not for: many memberships on one cluster (`crowds`), or what the API server bears (`fleets`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import monotonic, sleep
from typing import Final

from bench.figures import Figure, Limit, Section
from bench.world import NAMESPACE, Looked, Say, World, looks, world
from cce_simulator.config import Behaviour, ClusterConfig, NodePoolConfig, SimulatorConfig, generated_id, server_id
from harness import MembershipSpec, Operator, wait_for

_SEED: Final = "bench"
_DEADLINE_SECONDS: Final = 900.0
_MIB: Final = 1 << 20
_FULL: Final = 0.9
"""Of a core; a thread of Python gets no more than one."""


@dataclass(frozen=True, slots=True)
class Estate:
    """One load. `resync` and `job` in seconds."""

    clusters: int = 100
    nodes: int = 1000
    added: int = 20
    peak_mib: int = 150
    resync: int = 120
    job: float = 60.0
    reads: int = 200

    @property
    def name(self) -> str:
        return f"estate-{self.clusters}x{self.nodes}"

    @property
    def settings(self) -> str:
        return (
            f"{self.clusters} memberships, each of {self.nodes:,} Active nodes of a cluster of its own, all with one"
            f" key; then {self.added} new servers for each at once, jobs of {self.job:g} s;"
            f" --resync-interval={self.resync}s, --reads-per-second={self.reads}, --writes-per-minute=1000, all else"
            " default but --no-leader-elect; no limits in the simulator"
        )


@dataclass(frozen=True, slots=True)
class _Used:
    """What a time of so many seconds cost."""

    seconds: float
    cpu: float
    reads: int
    listings: int
    bytes: int
    simulator_cpu: float

    def __sub__(self, before: "_Used") -> "_Used":
        return _Used(
            self.seconds - before.seconds,
            self.cpu - before.cpu,
            self.reads - before.reads,
            self.listings - before.listings,
            self.bytes - before.bytes,
            self.simulator_cpu - before.simulator_cpu,
        )


def measure(load: Estate, say: Say) -> Section:
    """Run the load in a world of its own."""
    with world(_config(load)) as here:
        here.cluster.create_many(_memberships(load, here.simulator.url))
        say(f"{load.name}: created; starting the operator")
        options = (
            f"--resync-interval={load.resync}s",
            f"--reads-per-second={load.reads}",
            "--writes-per-minute=1000",
        )
        with here.operator(*options) as operator:
            begun = monotonic()
            _wait_joined(load, here, operator, load.nodes)
            adopted = monotonic() - begun
            say(f"{load.name}: adopted after {adopted:.0f} s, {operator.peak_memory_mib():.0f} MiB; one resync")
            # Moments are periodic; one that is due in less than a tenth of the interval after a look is left out.
            sleep(load.resync / 10)
            seen, before = looks(operator), _used(here, operator)
            sleep(load.resync)
            resync, looked = _used(here, operator) - before, looks(operator) - seen
            say(f"{load.name}: {resync.cpu:.1f} s of CPU, {resync.bytes / _MIB:.0f} MiB; all are adding")
            peak = operator.peak_memory_mib()
            before = _used(here, operator)
            _add(load, here)
            _wait_joined(load, here, operator, load.nodes + load.added)
            adding = _used(here, operator) - before
            say(f"{load.name}: all Ready after {adding.seconds:.0f} s, {adding.cpu:.1f} s of CPU")
            figures = _figures(load, here, adopted, looked, resync, adding, (peak, operator.peak_memory_mib()))
            return Section(load.name, load.settings, tuple(figures))


def _config(load: Estate) -> SimulatorConfig:
    clusters = (
        ClusterConfig(
            id=generated_id(_SEED, "cluster", index),
            node_pools=(
                NodePoolConfig(
                    id=generated_id(_SEED, "pool", index), server_count=load.nodes, first_server=index * load.nodes
                ),
            ),
        )
        for index in range(load.clusters)
    )
    return SimulatorConfig(
        seed=_SEED,
        clusters=tuple(clusters),
        behaviour=Behaviour(job_seconds=load.job),
        writes_per_minute=0,
        ledger_reads="counts",
    )


def _nodes(load: Estate, number: int) -> list[str]:
    return [server_id(_SEED, index) for index in range(number * load.nodes, (number + 1) * load.nodes)]


def _memberships(load: Estate, endpoint: str) -> Iterator[MembershipSpec]:
    for number in range(load.clusters):
        yield MembershipSpec(
            f"estate-{number}",
            _nodes(load, number),
            endpoint,
            NAMESPACE,
            cluster_id=generated_id(_SEED, "cluster", number),
            node_pool_id=generated_id(_SEED, "pool", number),
        )


def _add(load: Estate, here: World) -> None:
    for number in range(load.clusters):
        new = [f"{number:08x}-0000-4000-8000-{index:012x}" for index in range(load.added)]
        here.cluster.patch(NAMESPACE, f"estate-{number}", {"spec": {"serverIDs": [*_nodes(load, number), *new]}})


def _wait_joined(load: Estate, here: World, operator: Operator, joined: int) -> None:
    def done() -> bool | None:
        operator.check()
        rows = here.cluster.rows()
        return True if all((row["Ready"], row["Joined"]) == ("True", joined) for row in rows) else None

    wait_for(f"all of {load.name} have {joined} members", done, seconds=_DEADLINE_SECONDS, every=5)


def _used(here: World, operator: Operator) -> _Used:
    summary = here.simulator.get("summary")
    sent = summary["bytes_per_route"]
    assert isinstance(sent, dict)
    return _Used(
        seconds=monotonic(),
        cpu=operator.cpu_seconds(),
        reads=int(str(summary["reads"])),
        listings=here.calls("listNodes"),
        bytes=sum(int(number) for number in sent.values()),
        simulator_cpu=here.simulator.cpu_seconds(),
    )


def _figures(
    load: Estate,
    here: World,
    adopted: float,
    looked: Looked,
    resync: _Used,
    adding: _Used,
    peaks: tuple[float, float],
) -> Sequence[Figure]:
    summary = here.simulator.get("summary")
    adds, doubled, accepted = (int(str(summary[k])) for k in ("add_calls", "double_adds", "servers_accepted"))
    serves = adding.listings / max(adding.simulator_cpu, 0.01)
    return (
        Figure("time from process start until all are adopted", adopted, "s"),
        Figure("peak memory (VmHWM) of adoption and resync", peaks[0], "MiB", Limit(load.peak_mib)),
        Figure("snapshots in one resync", looked.snapshots, "", Limit(load.clusters, "exactly", counted=True)),
        Figure("looks at memberships in one resync", looked.decided, "", Limit(load.clusters, "exactly", counted=True),
               f"each was also worked once to order its snapshot: {looked.runs} runs"),
        Figure("CPU of one resync", resync.cpu, "s", None, f"{resync.cpu / load.resync * 1000:.1f} ms/s"),
        Figure("cloud reads of one resync", resync.reads, "", None, f"{resync.listings} node pages"),
        Figure("bytes read in one resync", resync.bytes / _MIB, "MiB"),
        Figure("add calls", adds, "", Limit(load.clusters, "exactly", counted=True)),
        Figure("servers accepted", accepted, "", Limit(load.clusters * load.added, "exactly", counted=True)),
        Figure("servers added twice", doubled, "", Limit(0, "exactly", counted=True)),
        Figure("time from apply to Ready of all", adding.seconds, "s", None, f"a job lasts {load.job:g} s"),
        Figure("cores in use while all add", adding.cpu / adding.seconds, "", Limit(_FULL), f"{adding.cpu:.1f} s"),
        Figure("cloud reads while all add", adding.reads, "", None, f"{adding.listings} node pages"),
        Figure("bytes read while all add", adding.bytes / _MIB, "MiB"),
        Figure("peak memory (VmHWM) with the adds", peaks[1], "MiB", Limit(load.peak_mib)),
        Figure("cores in use by the simulator meanwhile", adding.simulator_cpu / adding.seconds, "", None,
               f"a core of it serves {serves:.0f} node pages a second, with all else that is asked"),
    )  # fmt: skip
