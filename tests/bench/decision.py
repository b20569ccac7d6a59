"""`decide()` on 10,000 ids over the plain set difference `set(spec) - set(members)` of two lists.

Not for: reading the object or the node list, which cost more and are measured with the loads.
"""

import gc
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from statistics import median
from time import perf_counter
from typing import Final

from bench.figures import Figure, Limit, Section
from nodepool_membership.api.membership import Membership, parse_membership
from nodepool_membership.core.decision.decide import Decision, decide
from nodepool_membership.core.observed.observation import (
    ACTIVE,
    ClusterReport,
    JobPhase,
    JobReport,
    NamespaceState,
    Node,
    NodeTable,
    Observation,
    PoolReport,
)
from nodepool_membership.core.preflight.facts import Inspection, Server
from nodepool_membership.core.state.settings import Settings

_IDS: Final = 10_000
_BATCH: Final = 200
_POOL: Final = "66666666-7777-8888-9999-000000000000"
_JOB: Final = "2ec9b78d-9368-46f3-8f29-d1a95622a568"
_NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
LIMIT: Final = Limit(10)


@dataclass(frozen=True, slots=True)
class _Input:
    """One thing to decide; made anew for every run, as no object is decided twice."""

    raw: bytes
    spec_and_members: bytes
    nodes: tuple[str, ...]
    jobs: tuple[str, ...]
    plans: tuple[str, ...]
    """Servers that the decision is to send: they were read, and are fit."""


def _ids() -> list[str]:
    # Spread like random ones: neighbours in the list are not neighbours in a hash table or in sorted order.
    return [f"{(n * 2654435761) % 2**32:08x}-1111-4222-8333-{n:012x}" for n in range(_IDS)]


def _input(members: int, open_servers: int) -> _Input:
    ids = _ids()
    joined, batch = sorted(ids[:members]), sorted(ids[members : members + open_servers])
    status: dict[str, object] = {
        "observedGeneration": 2,
        "conditions": [],
        "desired": _IDS,
        "joined": members,
        "joining": open_servers,
        "failed": 0,
        "pending": _IDS - members - open_servers,
        "surplus": 0,
        "lastBatch": 1 if open_servers else 0,
        "members": joined,
    }
    if open_servers:
        open_batch = {
            "batch": 1,
            "operation": "Add",
            "attempt": 1,
            "phase": "Running",
            "servers": open_servers,
            "jobID": _JOB,
            "serverIDs": batch,
            "submitTime": "2026-01-02T03:00:00Z",
        }
        status |= {"jobs": [open_batch], "lastJobID": _JOB}
    document = {
        "metadata": {
            "name": "bench",
            "namespace": "bench",
            "uid": "b",
            "resourceVersion": "7",
            "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "finalizers": ["cce.nodepools.dev/release"] if open_servers else [],
        },
        "spec": {
            "nodePool": {"region": "cn-north-4", "projectID": "p", "clusterID": "c", "nodePoolID": _POOL},
            "credentialsRef": {"name": "cce-credentials"},
            "serverIDs": ids,
            "maxParallelJobs": 2,
        },
        "status": status,
    }
    return _Input(
        raw=json.dumps(document).encode(),
        spec_and_members=json.dumps([ids, joined]).encode(),
        nodes=(*joined, *batch),
        jobs=(_JOB,) if open_servers else (),
        plans=tuple(sorted(ids[members + open_servers :])[:_BATCH]),
    )


def _decision(what: _Input) -> Callable[[], Decision]:
    membership = parse_membership(what.raw)
    if not isinstance(membership, Membership):
        raise TypeError(f"the bench's own object does not read: {membership.problem}")
    # Ids of a listing are strings of their own, as they are when they come over the wire.
    nodes = (Node(f"{i}-"[:-1], f"uid-{i}", _POOL, ACTIVE, _NOW) for i in what.nodes)
    seen = Observation(
        read_at=_NOW - timedelta(seconds=1),
        object_bytes=len(what.raw),
        listing=NodeTable(_NOW, nodes),
        jobs={job: JobReport(job, JobPhase.RUNNING) for job in what.jobs},
        pool=PoolReport(""),
        cluster=ClusterReport("Available"),
        write_wait=0.0,
        namespace_state=NamespaceState(),
        inspection=Inspection(_NOW, frozenset(what.plans), {i: Server(i, "ACTIVE") for i in what.plans}),
    )

    def run() -> Decision:
        decided = decide(membership, seen, _NOW, Settings())
        if not isinstance(decided, Decision):
            raise TypeError(f"everything was seen, yet more is asked for: {decided}")
        return decided

    return run


def _difference(what: _Input) -> Callable[[], set[str]]:
    spec, members = json.loads(what.spec_and_members)

    def run() -> set[str]:
        return set(spec) - set(members)

    return run


def _seconds(make: Callable[[], Callable[[], object]], runs: int) -> float:
    """The median over runs, each on an input of its own, without the collector's pauses (as timeit does it)."""
    spent = []
    for _ in range(runs):
        run = make()
        gc.collect()
        gc.disable()
        try:
            begun = perf_counter()
            run()
            spent.append(perf_counter() - begun)
        finally:
            gc.enable()
    return median(spent)


def _figure(name: str, what: _Input, runs: int) -> Figure:
    decided = _decision(what)()
    planned = () if decided.intent is None else decided.intent.server_ids
    if planned != what.plans:
        raise ValueError(f"{name}: {len(planned)} servers planned, {len(what.plans)} expected")
    mine, plain = _seconds(lambda: _decision(what), runs), _seconds(lambda: _difference(what), runs)
    remark = f"{mine * 1000:.2f} ms over {plain * 1000:.2f} ms"
    return Figure(f"decide() / set difference, {name}", mine / plain, "", LIMIT, remark)


def measure(runs: int) -> Section:
    """The ratio for a settled, a fresh and a half joined membership; each is held to the limit, so the worst counts."""
    figures = (
        _figure("settled", _input(_IDS, 0), runs),
        _figure("fresh, plans 200", _input(0, 0), runs),
        _figure("half joined, open batch, plans 200", _input(_IDS // 2, _BATCH), runs),
    )
    return Section("decide", f"{_IDS:,} ids, median of {runs} runs on fresh inputs", figures)
