"""What the bench reads and how it judges; what it measures is measured when it runs."""

from dataclasses import replace

import pytest

from bench.apiserver import Writes, writes
from bench.crowds import Crowd, is_alarm
from bench.figures import Figure, Limit, Section, is_over, lines
from bench.fleets import GIB, First, Fleet, lacks_memory
from bench.keys import Keys, figures
from bench.latency import Latency
from bench.world import Looked, looked

_REQUESTS = "apiserver_request_total"
_BYTES = "apiserver_request_body_size_bytes_sum"
_MEMBERSHIPS = ("cce.nodepools.dev", "nodepoolmemberships")
_EVENTS = ("", "events")


def _sample(name: str, kind: tuple[str, str], verb: str, value: int, subresource: str = "", code: str = "200") -> str:
    labels = {"code": code, "group": kind[0], "resource": kind[1], "subresource": subresource, "verb": verb}
    return name + "{" + ",".join(f'{key}="{label}"' for key, label in labels.items()) + f"}} {value}"


_METRICS = "\n".join(
    [
        f"# TYPE {_REQUESTS} counter",
        _sample(_REQUESTS, _MEMBERSHIPS, "GET", 90),
        _sample(_REQUESTS, _MEMBERSHIPS, "POST", 1),
        _sample(_REQUESTS, _MEMBERSHIPS, "PATCH", 2),
        _sample(_REQUESTS, _MEMBERSHIPS, "PATCH", 8, "status"),
        _sample(_REQUESTS, _MEMBERSHIPS, "PATCH", 1, "status", "409"),
        _sample(_REQUESTS, _EVENTS, "POST", 6),
        _sample(_REQUESTS, _EVENTS, "PATCH", 1),
        _sample(_REQUESTS, ("", "namespaces"), "PATCH", 50, "status"),
        _sample(_BYTES, _MEMBERSHIPS, "create", 18_000),
        _sample(_BYTES, _MEMBERSHIPS, "patch", 9_000),
        _sample(_BYTES, _EVENTS, "create", 3_000),
    ]
)


def test_writes_are_counted_by_what_they_change() -> None:
    assert writes(_METRICS) == Writes(status=9, metadata=2, events=7, membership_bytes=9000, event_bytes=3000)


def test_writes_of_a_period_are_a_difference() -> None:
    assert writes(_METRICS) - Writes(1, 1, 1, 1, 1) == Writes(8, 1, 6, 8999, 2999)


def test_metrics_of_another_name_are_no_zero() -> None:
    with pytest.raises(ValueError, match="lack"):
        writes(_METRICS.replace(_REQUESTS, "apiserver_requests"))


@pytest.mark.parametrize(
    ("value", "limit", "kept"),
    [
        (1.0, Limit(1, "exactly"), True),
        (0.99, Limit(1, "exactly"), False),
        (10.0, Limit(10), True),
        (10.1, Limit(10), False),
        (1e9, None, True),
    ],
)
def test_a_limit_is_an_upper_bound_or_exact(value: float, limit: Limit | None, kept: bool) -> None:
    assert Figure("f", value, limit=limit).is_kept is kept


def test_with_quick_only_counts_decide() -> None:
    slow, many = Figure("time", 9, limit=Limit(1)), Figure("calls", 9, limit=Limit(1, counted=True))
    assert is_over([slow], counts_only=False)
    assert not is_over([slow], counts_only=True)
    assert is_over([slow, many], counts_only=True)


def test_a_figure_is_printed_with_its_limit_and_verdict() -> None:
    section = Section("load", "settings", (Figure("calls", 4, "", Limit(3, counted=True), "why"), Figure("free", 1.5)))
    printed = [" ".join(line.split()) for line in lines(section, counts_only=True)]
    assert printed == ["load", "with settings", "calls 4 at most 3: OVER why", "free 1.50"]


def test_a_load_that_does_not_fit_says_what_it_needs() -> None:
    fleet = Fleet(1000, 10_000, suspend=True, peak_mib=120, needs_bytes=1_000_000 * GIB)
    assert "fleet-1000x10000 needs 1000000 GiB" in str(lacks_memory(fleet))
    assert lacks_memory(Fleet(1000, 50, suspend=False, peak_mib=100)) is None


@pytest.mark.parametrize(
    ("reason", "alarm"),
    [("", False), (None, False), ("Pending", False), ("Progressing", False), ("ListingImplausible", True),
     ("Throttled", True), ("MemberMissing", True)],
)  # fmt: skip
def test_a_reason_that_tells_of_trouble_is_an_alarm(reason: str | None, alarm: bool) -> None:
    assert is_alarm({"Reason": reason}) is alarm


def test_the_write_budget_alone_needs_the_time_of_all_calls_and_one_job() -> None:
    many, one = Crowd(300, job=2.0, writes=120), Crowd(1, ids=6_000, batch=20, job=2.0, writes=120)
    assert (many.batches, many.least) == (one.batches, one.least) == (300, 152.0)


def test_ordering_a_snapshot_is_no_look() -> None:
    told = """
nodepool_membership_reconcile_duration_seconds_count{outcome="ok"} 199.0
nodepool_membership_reconcile_duration_seconds_count{outcome="error"} 1.0
nodepool_membership_snapshots_total{outcome="whole"} 60.0
nodepool_membership_snapshots_total{outcome="again"} 40.0
nodepool_membership_snapshot_waits_total 100.0
"""
    seen = looked(told)
    assert seen == Looked(runs=200, waits=100, snapshots=100)
    assert ((seen - Looked(10, 5, 5)).decided, seen.decided) == (95, 100)


STATIC = First(9.0, Writes(0, 0, 0, 0, 0), 90.0, 1.0, 0, Latency((1.0,), (1.0,)), 95.0, 0)


@pytest.mark.parametrize(
    ("settled", "peak", "idle", "exchanges", "kept"),
    [(92.0, 97.0, 1.5, 1, True), (92.1, 95.0, 1.0, 1, False), (90.0, 97.1, 1.0, 1, False),
     (90.0, 95.0, 1.6, 1, False), (90.0, 95.0, 1.0, 1000, False)],
)  # fmt: skip
def test_temporary_keys_cost_two_mebibytes_and_no_cpu_on_top(
    settled: float, peak: float, idle: float, exchanges: int, kept: bool
) -> None:
    keyless = replace(STATIC, settled_mib=settled, peak_mib=peak, idle_ms=idle, exchanges=exchanges)
    found = figures(Keys(Fleet(1000, 50, suspend=False, peak_mib=100)), STATIC, keyless)
    assert is_over(found, counts_only=False) is not kept
