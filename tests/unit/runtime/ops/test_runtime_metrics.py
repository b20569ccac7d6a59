"""What the metrics say of reading a cluster: snapshots by what became of them, who waited, who used them.

Not for: when that is told (`cce/test_cce_snapshots`), or the page of metrics (`tests/pages`).
"""

from nodepool_membership.runtime.ops.metrics import Metrics


def value(metrics: Metrics, name: str, labels: dict[str, str] | None = None) -> float | None:
    return metrics.registry.get_sample_value(f"nodepool_membership_{name}", labels or {})


def test_the_reads_of_clusters_are_counted_by_what_became_of_them_and_by_how_many_shared_them() -> None:
    metrics = Metrics()
    assert value(metrics, "snapshots_total", {"outcome": "failed"}) == 0
    metrics.snapshot_ended("again", 3)
    metrics.snapshot_ended("whole", 4)
    metrics.snapshot_used()
    metrics.read_waited(2.5)
    outcomes = {name: value(metrics, "snapshots_total", {"outcome": name}) for name in ("again", "whole", "failed")}
    assert outcomes == {"again": 1, "whole": 1, "failed": 0}
    assert value(metrics, "snapshot_waits_total") == 7
    assert value(metrics, "snapshot_uses_total") == 1
    assert value(metrics, "cloud_read_wait_seconds_total") == 2.5
