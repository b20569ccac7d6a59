"""The endpoints and the metrics behind them."""

import ast
import asyncio
import errno
import logging
import socket
import threading
import time
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

import nodepool_membership
from nodepool_membership import __version__
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Condition, Operation, Phase, Status
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import KubeError, UnansweredError
from nodepool_membership.kube.reviews import Reviews, TokenAccess
from nodepool_membership.runtime.ops.metrics import KINDS, ROUTES, Metrics
from nodepool_membership.runtime.ops.options import Bind, Options
from nodepool_membership.runtime.process import health as health_module
from nodepool_membership.runtime.process.health import MAX_CONNECTIONS, BindError, Health, serve

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
    metrics.watch_queue(lambda: 3, lambda: 1.5, lambda: 0.5)
    metrics.reconciled("ok", 0.02)
    metrics.kube_request("status", "Stale", 0.1)
    metrics.cloud_request("addNodes", "ok", 0.3)
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
        "nodepool_membership_queue_oldest_new_seconds 0.5",
        'nodepool_membership_reconcile_duration_seconds_count{outcome="ok"} 1.0',
        'nodepool_membership_kube_requests_total{kind="status",outcome="Stale"} 1.0',
        'nodepool_membership_cloud_requests_total{outcome="ok",route="addNodes"} 1.0',
        'nodepool_membership_cloud_requests_total{outcome="OutcomeUnknown",route="addNodes"} 0.0',
        'nodepool_membership_cloud_request_duration_seconds_count{route="addNodes"} 1.0',
        'nodepool_membership_condition{name="a",namespace="ns",reason="Succeeded",type="Ready"} 1.0',
        'nodepool_membership_condition{name="a",namespace="ns",reason="",type="Stalled"} 0.0',
        f'nodepool_membership_build_info{{version="{__version__}"}} 1.0',
        'nodepool_membership_batches_finished_total{phase="Succeeded"} 1.0',
        'nodepool_membership_ready{name="a",namespace="ns"} 1.0',
        'nodepool_membership_servers{name="a",namespace="ns",state="joined"} 2.0',
        'nodepool_membership_servers{name="a",namespace="ns",state="surplus"} 1.0',
    ):
        assert line in lines
    assert any(line.startswith("process_resident_memory_bytes ") for line in lines)
    assert 'name="b"' not in answer.text
    assert "_created" not in answer.text


async def _status(host: str, port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(request)
        return await reader.read()
    finally:
        writer.close()
        await writer.wait_closed()


GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize("host", ["", "::"])
async def test_the_default_serves_both_families(host: str) -> None:
    assert Options().bind == Bind("", 8080)
    async with serve(Bind(host, 0), Health(), Metrics()) as port:
        assert (await _status("127.0.0.1", port, GET)).startswith(b"HTTP/1.1 200")
        assert (await _status("::1", port, GET)).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("number", [errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL])
async def test_a_host_without_ipv6_is_served_by_ipv4(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def none(*_: object, **__: object) -> socket.socket:
        raise OSError(number, "no IPv6")

    monkeypatch.setattr(health_module, "_every_address", none)
    async with serve(Bind("", 0), Health(), Metrics()) as port:
        assert (await _status("127.0.0.1", port, GET)).startswith(b"HTTP/1.1 200")


async def test_a_port_in_use_is_named_also_by_the_default() -> None:
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(BindError, match=f"--bind :{port}: .*in use"):
            async with serve(Bind("", port), Health(), Metrics()):
                pass


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"POST /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", b"405"),
        (b"GET /elsewhere HTTP/1.1\r\nHost: x\r\n\r\n", b"404"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\n\r\n" * 3, b"200"),
        (b"HEAD /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 100 + b"\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nA\x00B: c\r\n\r\n", b"400"),
        (b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/1.1\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"400"),
        (b"GET /healthz HTTP/9.9\r\nHost: x\r\n\r\n", b"400"),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", b"400"),
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"4"),
        (b"POST /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nabc", b"405"),
    ],
)
async def test_bad_bytes_are_answered_and_not_logged(
    request_: bytes, status: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with serve(FREE, Health(), Metrics()) as port:
        answer = await _status("127.0.0.1", port, request_)
        assert answer.startswith((b"HTTP/1.1 " + status, b"HTTP/1.0 " + status))
        assert answer.count(b"HTTP/1.") == 1
        assert b"Traceback" not in answer
    assert caplog.records == []


async def test_a_token_of_bad_bytes_is_nobodys_and_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    reviews = Reviews(KubeApi.__new__(KubeApi), "/metrics")
    async with serve(FREE, Health(), Metrics(), reviews) as port:
        raw = b"GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abcdefgh\xff\xed\xa0\x80\r\n\r\n"
        assert (await _status("127.0.0.1", port, raw)).startswith(b"HTTP/1.1 401")
    assert caplog.records == []


async def test_what_goes_wrong_on_our_side_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> str:
        raise RuntimeError("ours")

    async with serve(FREE, Health(alive=[broken]), Metrics()) as port:
        assert (await _status("127.0.0.1", port, GET)).startswith(b"HTTP/1.1 500")
    assert "ours" in caplog.text


@pytest.mark.parametrize(
    ("found", "status"),
    [
        (TokenAccess.ALLOWED, 200),
        (TokenAccess.FORBIDDEN, 403),
        (TokenAccess.UNKNOWN, 401),
        (UnansweredError("no route"), 503),
    ],
)
async def test_metrics_are_shown_as_the_api_server_says(
    found: TokenAccess | KubeError, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []

    async def access(_: Reviews, token: str) -> TokenAccess:
        shown.append(token)
        if isinstance(found, KubeError):
            raise found
        return found

    monkeypatch.setattr(Reviews, "access", access)
    reviews = Reviews(KubeApi.__new__(KubeApi), "/metrics")
    async with serve(FREE, Health(), Metrics(), reviews) as port, httpx.AsyncClient(trust_env=False) as http:
        for authorization, token in (("Bearer a-token", "a-token"), ("bearer  b", "b"), ("Basic dTpw", ""), ("", "")):
            headers = {"Authorization": authorization}
            answer = await http.get(f"http://127.0.0.1:{port}/metrics", headers=headers)
            assert answer.status_code == status
            assert ("nodepool_membership" in answer.text) is (status == 200)
            assert shown.pop() == token
        assert (await http.get(f"http://127.0.0.1:{port}/healthz")).status_code == 200


async def test_half_sent_requests_keep_no_probe_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_ASK_SECONDS", 3600.0)
    async with serve(FREE, Health(), Metrics()) as port, AsyncExitStack() as halves:
        first: asyncio.StreamReader | None = None
        for _ in range(3 * MAX_CONNECTIONS):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            first = first or reader
            halves.callback(writer.close)
            writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        assert (await _status("127.0.0.1", port, GET)).startswith(b"HTTP/1.1 200")
        assert first is not None
        # Closed by the cap: its time to ask is far from over.
        with suppress(ConnectionResetError):
            assert await first.read() == b""


async def test_a_request_has_so_long_to_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health_module, "_ASK_SECONDS", 0.1)
    async with serve(FREE, Health(), Metrics()) as port:
        for half in (b"", b"G", b"GET /healthz HTTP/1.1\r\nX-Slow: "):
            with suppress(ConnectionResetError):
                assert await _status("127.0.0.1", port, half) == b""


async def test_an_answer_has_so_long_to_be_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Large(Metrics):
        def text(self) -> bytes:
            return b"x" * (64 << 20)

    monkeypatch.setattr(health_module, "_ANSWER_SECONDS", 0.1)
    async with serve(FREE, Health(), Large()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
        received = 0
        with suppress(ConnectionResetError):
            while chunk := await reader.read(1 << 16):
                received += len(chunk)
                await asyncio.sleep(0.05)
        assert received < 64 << 20
        writer.close()


async def test_metrics_are_made_at_most_once_a_second_and_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []

    class Counting(Metrics):
        def text(self) -> bytes:
            made.append(threading.get_ident())
            return f"made {len(made)}".encode()

    monkeypatch.setattr(health_module, "_EVERY_SECONDS", 0.5)
    async with (
        serve(FREE, Health(), Counting()) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http,
    ):
        first = (await http.get("/metrics")).text
        begun = time.monotonic()
        answers = await asyncio.gather(*(http.get("/metrics") for _ in range(20)))
        seconds = time.monotonic() - begun
        later = (await http.get("/metrics")).text
    assert first == "made 1"
    assert len(made) <= 3 + seconds / 0.5
    assert {answer.text for answer in answers} == {"made 2"} or seconds > 0.9
    assert later not in {"made 1", "made 2"}
    assert threading.get_ident() not in made


def _names(folder: str, methods: set[str]) -> set[str]:
    """The texts that calls of these methods begin with, in one part of the operator's sources."""
    found = set()
    for path in (Path(nodepool_membership.__file__).parent / folder).glob("**/*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in methods:
                texts = [a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str)]
                found |= set(texts[:1])
    return found


def test_every_route_and_kind_begins_at_zero() -> None:
    """One that is not listed would first be seen when it is counted: too late for `increase`."""
    assert {name for name in _names("cce", {"call", "_get", "_one", "post"}) if name != "GET"} == set(ROUTES)
    assert _names("kube", {"request", "_patch"}) - {"GET", "PATCH"} == set(KINDS) - {"namespace", "definition"}
