"""A control plane with the product installed and a simulator beside it, made anew for each load.

Not for: the operator, of which a load starts as many as it needs.
"""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from bench.apiserver import Writes, writes
from cce_simulator.config import SimulatorConfig
from controlplane import ControlPlane
from harness import Cluster, Operator, SimulatorProcess, wait_for
from harness.identity import grant, trusting
from imagepython.environment import ROOT, image_variables, python_with

NAMESPACE: Final = "bench"
_RUNS: Final = "nodepool_membership_reconcile_duration_seconds_count"
_WAITS: Final = "nodepool_membership_snapshot_waits_total"
_SNAPSHOTS: Final = "nodepool_membership_snapshots_total"
_QUIET_LOOKS: Final = 3
_QUIET_SECONDS: Final = 1.0

Say = Callable[[str], None]
"""Receives one line at a time of what is being done."""


@dataclass(frozen=True, slots=True)
class World:
    """What a load works with."""

    workdir: Path
    cluster: Cluster
    simulator: SimulatorProcess
    kubeconfig: Path
    """Of the service account from `deploy/`."""

    def operator(self, *options: str, name: str = "operator") -> Operator:
        """The operator with these options; a context manager, ready once `wait_ready` returns."""
        # One after another, and killed: the next one must not wait for the lease of the one before.
        alone = ("--no-leader-elect", *options)
        return Operator(
            self.workdir,
            self.kubeconfig,
            [self.simulator.url],
            alone,
            name=name,
            # Packages that only tests need cost memory where httpx imports them if they are there.
            python=python_with(ROOT / "requirements/run.txt"),
            environment=image_variables((ROOT / "Dockerfile").read_text()),
        )

    def writes(self) -> Writes:
        """What the API server has counted so far."""
        return writes(self.cluster.metrics())

    def quiet(self, seconds: float) -> Writes:
        """Wait until nothing has been written for a few seconds, Events included; the counts so far."""
        last: list[Writes] = []

        def same() -> Writes | None:
            last.append(self.writes())
            return last[-1] if last[-_QUIET_LOOKS:] == [last[-1]] * _QUIET_LOOKS else None

        return wait_for("no more writes to the API server", same, seconds=seconds, every=_QUIET_SECONDS)

    def calls(self, route: str) -> int:
        """Calls of a route in the simulator's ledger."""
        counts = self.simulator.get("summary")["calls_per_route"]
        assert isinstance(counts, dict)
        return int(counts.get(route, 0))

    def cloud_reads(self) -> int:
        """GET calls in the simulator's ledger."""
        return int(str(self.simulator.get("summary")["reads"]))


@dataclass(frozen=True, slots=True)
class Looked:
    """How often the operator has looked at memberships and at clusters, by its own count.

    A membership whose cluster has to be read first is worked twice: once to order a snapshot, which holds neither a
    worker nor the object, and once to decide from it. Only the second is a look.
    """

    runs: int
    waits: int
    snapshots: int

    def __sub__(self, before: "Looked") -> "Looked":
        return Looked(self.runs - before.runs, self.waits - before.waits, self.snapshots - before.snapshots)

    @property
    def decided(self) -> int:
        """Looks at memberships that came to a decision; one that waits for its snapshot counts already."""
        return self.runs - self.waits


def looked(exposition: str) -> Looked:
    """Read the counts out of the operator's metrics."""
    families = text_string_to_metric_families(exposition)
    samples = [sample for family in families for sample in family.samples]

    def total(name: str) -> int:
        return int(sum(sample.value for sample in samples if sample.name == name))

    return Looked(total(_RUNS), total(_WAITS), total(_SNAPSHOTS))


def looks(operator: Operator) -> Looked:
    """The counts as they are now."""
    return looked(operator.get("/metrics").text)


@contextmanager
def world(config: SimulatorConfig, *, quota_backend_bytes: int | None = None, keyless: bool = False) -> Iterator[World]:
    """A new one; everything of it is gone when the block ends. `keyless`: the cloud knows no key but the cluster's."""
    workdir = Path(tempfile.mkdtemp(prefix="nodepool-membership-bench-"))
    try:
        with (
            ControlPlane(workdir / "controlplane", quota_backend_bytes=quota_backend_bytes) as control_plane,
            Cluster(control_plane) as cluster,
            SimulatorProcess(workdir, trusting(cluster, NAMESPACE, config) if keyless else config) as simulator,
        ):
            cluster.install()
            control_plane.ensure_namespace(NAMESPACE)
            if keyless:
                grant(cluster, NAMESPACE)
            else:
                cluster.create_secret(NAMESPACE, config)
            yield World(workdir, cluster, simulator, cluster.operator_kubeconfig())
    finally:
        shutil.rmtree(workdir, ignore_errors=True)
