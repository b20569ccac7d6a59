"""The endpoints and the metrics behind them."""

import socket
from dataclasses import replace

import httpx
import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Condition, Operation, Phase, Status
from nodepool_membership.runtime.health import BindError, Health, serve
from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.options import Bind

FREE = Bind("127.0.0.1", 0)


async def test_the_probes_say_what_is_wrong() -> None:
    wrong: dict[str, str | None] = {"alive": None, "ready": None}
    health = Health(alive=[lambda: wrong["alive"]], ready=[lambda: wrong["ready"]])
    async with serve(FREE, health, Metrics()) as port, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        for probe in ("/healthz", "/readyz"):
            answer = await http.get(probe)
            assert (answer.status_code, answer.text) == (200, "ok")
        wrong["ready"] = "watch: not yet"
        assert (await http.get("/healthz")).status_code == 200
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.text) == (503, "watch: not yet")
        wrong["alive"] = "loop: stuck"
        answer = await http.get("/healthz")
        assert (answer.status_code, answer.text) == (503, "loop: stuck")
        assert (await http.get("/readyz")).text == "loop: stuck\nwatch: not yet"


def test_the_reason_is_in_the_log_once(caplog: pytest.LogCaptureFixture) -> None:
    wrong: list[str | None] = [None]
    health = Health(alive=[lambda: wrong[0]])
    for state in (None, "loop: stuck", "loop: stuck", None, "watch: silent"):
        wrong[0] = state
        health.not_alive()
        health.not_ready()
    assert [r.getMessage() for r in caplog.records] == [
        "not alive, to be restarted: loop: stuck",
        "not alive, to be restarted: watch: silent",
    ]


async def test_an_address_in_use_names_the_option() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"--bind 127.0.0.1:{port}: .*in use"):
            async with serve(Bind("127.0.0.1", port), Health(), Metrics()):
                pass


async def test_metrics_are_served_in_the_text_format() -> None:
    metrics = Metrics()
    metrics.watch_queue(lambda: 3, lambda: 1.5)
    metrics.reconciled("ok", 0.02)
    metrics.kube_request("status", "Stale", 0.1)
    metrics.cloud_request("add_nodes", "ok", 0.3)
    batch = Batch(batch=1, operation=Operation.ADD, attempt=1, phase=Phase.RUNNING, servers=2)
    running = Status(jobs=(batch,), joining=2)
    done = replace(
        running,
        jobs=(replace(batch, phase=Phase.SUCCEEDED),),
        conditions=(Condition("Ready", "True", Reason.SUCCEEDED),),
        joined=2,
        surplus=1,
        joining=0,
    )
    metrics.stored("ns", "a", Status(), running)
    metrics.stored("ns", "a", running, done)
    metrics.stored("ns", "a", done, done)
    metrics.stored("ns", "b", Status(), Status())
    metrics.forget("ns", "b")
    async with serve(FREE, Health(), metrics) as port, httpx.AsyncClient() as http:
        answer = await http.get(f"http://127.0.0.1:{port}/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = answer.text.splitlines()
    for line in (
        "nodepool_membership_queue_depth 3.0",
        "nodepool_membership_queue_oldest_seconds 1.5",
        'nodepool_membership_reconcile_duration_seconds_count{outcome="ok"} 1.0',
        'nodepool_membership_kube_requests_total{kind="status",outcome="Stale"} 1.0',
        'nodepool_membership_cloud_request_duration_seconds_count{outcome="ok",route="add_nodes"} 1.0',
        'nodepool_membership_batches_finished_total{phase="Succeeded"} 1.0',
        'nodepool_membership_ready{name="a",namespace="ns"} 1.0',
        'nodepool_membership_servers{name="a",namespace="ns",state="joined"} 2.0',
        'nodepool_membership_servers{name="a",namespace="ns",state="surplus"} 1.0',
    ):
        assert line in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    assert 'name="b"' not in answer.text
