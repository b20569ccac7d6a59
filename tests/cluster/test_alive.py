"""Alive means working: what breaks between the operator and the API server heals by itself, or a probe names it.

Not for: the arithmetic of the probes (`test_runtime_streams`, `test_runtime_workers`), which is tried with a clock of
the tests' own; here, waits that take minutes in production are as long as the API server makes them, or shortened by a
parameter.
"""

import asyncio
import gc
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import httpx
import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from cluster.objects import create, object_path
from controlplane import ControlPlane
from harness import Operator, Scene, wait_for
from harness.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, jobs
from harness.operator_process import FAST
from harness.proxy import Proxy
from harness.scene import server_ids
from harness.sources import ROOT
from nodepool_membership.api.names import GROUP, PLURAL, VERSION
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.runtime.scheduling.queue import Key
from nodepool_membership.runtime.watch.streams import AT_FAULT_SECONDS, SILENT_SECONDS
from nodepool_membership.runtime.watch.watch import Watch
from times import until

QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)
CRD = ROOT / "crds" / "nodepoolmemberships.yaml"
HARNESS = ROOT / "tests" / "harness"
RARE_RESYNC = tuple("--resync-interval=10m" if option.startswith("--resync-interval") else option for option in FAST)
"""So that only the watch can wake a key."""

Stage = Callable[..., Scene]
Operate = Callable[..., Operator]


@pytest.fixture
def proxy(control_plane: ControlPlane) -> Iterator[Proxy]:
    with Proxy(int(control_plane.url.rpartition(":")[2])) as running:
        yield running


class Seen:
    """The keys that the watch named, in order."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    async def until(self, key: Key, seconds: float = 30) -> None:
        await until(lambda: key in self.keys, seconds)


@asynccontextmanager
async def watching(
    api: KubeApi,
    namespace: str,
    *,
    inactivity_seconds: float = 70,
    doubt_seconds: float = 30,
    clock: Callable[[], float] = time.monotonic,
) -> AsyncIterator[tuple[Watch, Seen]]:
    seen = Seen()
    watch = Watch(
        api,
        seen.keys.append,
        namespaces=(namespace,),
        inactivity_seconds=inactivity_seconds,
        doubt_seconds=doubt_seconds,
        clock=clock,
    )
    task = asyncio.create_task(watch.run())
    try:
        await until(lambda: watch.ready() is None)
        yield watch, seen
    finally:
        watch.stop()
        async with asyncio.timeout(15):
            await task


def connect(kubeconfig: Path) -> AbstractAsyncContextManager[KubeApi]:
    return KubeApi.connect(environ={"KUBECONFIG": str(kubeconfig)})


async def delete(api: KubeApi, namespace: str, name: str) -> None:
    await api.request("test", "DELETE", object_path(namespace, name))


@pytest.mark.usefixtures("crd")
async def test_a_watch_that_stalls_silently_is_opened_again(
    control_plane: ControlPlane, proxy: Proxy, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin_kubeconfig
    async with (
        connect(admin) as direct,
        connect(proxy.kubeconfig(admin, tmp_path)) as api,
        watching(api, namespace, inactivity_seconds=2) as (watch, seen),
    ):
        proxy.stall()
        await create(direct, namespace, "unseen", [])
        await asyncio.sleep(1)
        assert seen.keys == []
        proxy.resume()
        await seen.until((namespace, "unseen"))
        await until(lambda: watch.ready() is None)
        assert watch.alive() is None


@pytest.mark.usefixtures("crd")
@pytest.mark.filterwarnings("always::ResourceWarning")
async def test_connections_that_nobody_answers_do_not_outlive_the_watch(
    control_plane: ControlPlane, proxy: Proxy, namespace: str, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    admin = control_plane.admin_kubeconfig
    async with (
        connect(proxy.kubeconfig(admin, tmp_path)) as api,
        watching(api, namespace, inactivity_seconds=2) as (watch, _),
    ):
        await until(lambda: watch.ready() is None)
        proxy.stall()
        before = proxy.opened
        await until(lambda: proxy.opened > before)
    gc.collect()
    left = (ResourceWarning, pytest.PytestUnraisableExceptionWarning)
    assert [str(warning.message) for warning in recwarn if warning.category in left] == []


@pytest.mark.usefixtures("crd")
@pytest.mark.filterwarnings("always::ResourceWarning")
def test_a_request_that_nobody_answers_does_not_outlive_its_client(
    control_plane: ControlPlane, proxy: Proxy, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    async def ask() -> None:
        async with connect(proxy.kubeconfig(control_plane.admin_kubeconfig, tmp_path)) as api:
            assert await api.serves(GROUP, VERSION, PLURAL)
            proxy.stall()
            async with asyncio.timeout(0.5):
                await api.serves(GROUP, VERSION, PLURAL)

    with pytest.raises(TimeoutError):
        asyncio.run(ask())
    gc.collect()
    left = (ResourceWarning, pytest.PytestUnraisableExceptionWarning)
    assert [str(warning.message) for warning in recwarn if warning.category in left] == []


@pytest.mark.usefixtures("crd")
async def test_an_api_server_out_of_reach_is_told_by_readiness_only(
    control_plane: ControlPlane, proxy: Proxy, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin_kubeconfig
    async with (
        connect(proxy.kubeconfig(admin, tmp_path)) as api,
        watching(api, namespace, inactivity_seconds=2) as (watch, _),
    ):
        proxy.stall()
        await until(lambda: "no answer from the API server" in str(watch.ready()), 40)
        assert watch.alive() is None
        proxy.resume()
        await until(lambda: watch.ready() is None)


@pytest.mark.usefixtures("crd")
async def test_after_410_gone_nothing_is_missed_neither_what_came_nor_what_went(
    control_plane: ControlPlane, proxy: Proxy, namespace: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "kopf")
    admin = control_plane.admin_kubeconfig
    async with connect(admin) as direct, connect(proxy.kubeconfig(admin, tmp_path)) as api:
        await create(direct, namespace, "goes", [])
        await create(direct, namespace, "stays", [])
        async with watching(api, namespace, inactivity_seconds=3) as (watch, seen):
            await seen.until((namespace, "goes"))
            await seen.until((namespace, "stays"))
            seen.keys.clear()
            proxy.stall()
            await delete(direct, namespace, "goes")
            await create(direct, namespace, "comes", [])
            # Its cache of changes begins with its start: the version that the watch goes on from is too old for it.
            await asyncio.to_thread(control_plane.restart_apiserver)
            proxy.resume()
            await seen.until((namespace, "comes"), 60)
            await seen.until((namespace, "goes"))
            assert "Restarting the watch-stream" in caplog.text
            await until(lambda: watch.ready() is None)
            assert watch.alive() is None


@pytest.mark.usefixtures("crd")
async def test_a_refused_login_is_told_tried_rarely_and_survived(control_plane: ControlPlane, namespace: str) -> None:
    refused: list[str] = []
    async with connect(control_plane.admin_kubeconfig) as api:
        good = api.login.authorization

        async def authorization() -> str | None:
            return refused[0] if refused else await good()

        api._login = replace(api.login, authorization=authorization)
        async with watching(api, namespace, inactivity_seconds=2) as (watch, seen):
            before = refusals(control_plane)
            refused.append("Bearer expired")
            await until(lambda: "the login is refused" in str(watch.ready()), 40)
            assert watch.alive() is None
            assert 1 <= refusals(control_plane) - before <= 10
            refused.clear()
            await create(api, namespace, "comes", [])
            await seen.until((namespace, "comes"))
            await until(lambda: watch.ready() is None)


def refusals(control_plane: ControlPlane) -> int:
    """How often the API server has refused a login since its start."""
    text = control_plane.kubectl("get", "--raw", "/metrics").stdout
    counts = re.findall(r'^authentication_attempts\{result="(?:error|failure)"\} (\d+)', text, re.MULTILINE)
    return sum(map(int, counts))


def until_says(operator: Operator, path: str, text: str) -> None:
    wait_for(f"{path} says {text!r}", lambda: text in operator.get(path).text or None)


@pytest.mark.usefixtures("crd")
async def test_a_kopf_thread_that_is_blocked_fails_liveness(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = 0.0
    entered, free = threading.Event(), threading.Event()

    def block(*_: object) -> bool:
        entered.set()
        free.wait(120)
        return False

    def clock() -> float:
        return time.monotonic() + later

    async with (
        connect(control_plane.admin_kubeconfig) as api,
        watching(api, namespace, inactivity_seconds=1, doubt_seconds=0.05, clock=clock) as (watch, _),
    ):
        monkeypatch.setattr(watch._change_filter, "changed", block)
        try:
            await create(api, namespace, "any", [])
            await until(entered.is_set)
            later += SILENT_SECONDS
            assert watch.alive() is None
            # kopf at work gives the watch up after 1 s, opens it again 2 s later, and is silent no more.
            with pytest.raises(TimeoutError):
                await until(lambda: not watch._streams.silent(), 6)
            await until(lambda: watch._streams._at_fault is not None)
            later += AT_FAULT_SECONDS + 1
            assert "though the API server answers others" in str(watch.alive())
        finally:
            free.set()


@pytest.mark.usefixtures("crd")
async def test_an_api_server_that_is_away_for_long_does_not_fail_liveness(
    control_plane: ControlPlane, namespace: str
) -> None:
    later = 0.0
    unanswered = 0

    def observe(kind: str, outcome: str, _seconds: float) -> None:
        nonlocal unanswered
        unanswered += (kind, outcome) == ("discovery", "Unanswered")

    def clock() -> float:
        return time.monotonic() + later

    environ = {"KUBECONFIG": str(control_plane.admin_kubeconfig)}
    async with (
        KubeApi.connect(environ=environ, observer=observe) as api,
        watching(api, namespace, doubt_seconds=0.05, clock=clock) as (watch, _),
    ):
        await asyncio.to_thread(control_plane.stop_apiserver)
        try:
            for wait in (SILENT_SECONDS, AT_FAULT_SECONDS + 1, 1200.0):
                later += wait
                # The second one from here on was asked after the jump.
                enough = unanswered + 2
                await until(partial(lambda enough: unanswered >= enough, enough))
                assert watch.alive() is None
            assert "no answer from the API server" in str(watch.ready())
        finally:
            await asyncio.to_thread(control_plane.start_apiserver)
        await until(lambda: watch.ready() is None)


@pytest.mark.usefixtures("crd")
async def test_objects_that_go_unseen_with_their_type_are_looked_at(
    control_plane: ControlPlane, proxy: Proxy, namespace: str, tmp_path: Path
) -> None:
    admin = control_plane.admin_kubeconfig
    async with (
        connect(admin) as direct,
        connect(proxy.kubeconfig(admin, tmp_path)) as api,
        watching(api, namespace, inactivity_seconds=2) as (watch, seen),
    ):
        await create(direct, namespace, "goes", [])
        await seen.until((namespace, "goes"))
        seen.keys.clear()
        proxy.stall()
        try:
            await asyncio.to_thread(control_plane.kubectl, "delete", "-f", str(CRD))
            assert seen.keys == []
            proxy.resume()
            proxy.cut()
            await until(lambda: "is not served" in str(watch.ready()))
            await seen.until((namespace, "goes"))
        finally:
            await asyncio.to_thread(control_plane.install_crd, CRD)
        await until(lambda: watch.ready() is None)


def test_a_blocked_event_loop_answers_no_probe_and_the_log_says_where(stage: Stage) -> None:
    scene = stage(QUICK, program=(str(HARNESS / "blocked_loop.py"),))
    scene.create(server_ids(2))
    scene.until_logged("the event loop is blocked for 10 s: block (blocked_loop.py:")
    with pytest.raises(httpx.ReadTimeout):
        scene.operator.get("/healthz")


def test_a_rotated_token_is_taken_up_by_watch_and_requests(
    control_plane: ControlPlane, stage: Stage, tmp_path: Path
) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    token = control_plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT)
    (account / "token").write_text(token)
    (account / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
    host, _, port = control_plane.url.removeprefix("https://").rpartition(":")
    scene = stage(
        QUICK,
        options=RARE_RESYNC,
        kubeconfig=None,
        program=(str(HARNESS / "in_cluster.py"), str(account)),
        environment={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "HOME": str(tmp_path)},
    )
    (account / "token").write_text("expired")
    # An open watch is not asked for its login again.
    control_plane.stop_apiserver()
    scene.cluster.start_apiserver()
    until_says(scene.operator, "/readyz", "the login is refused")
    assert scene.operator.get("/healthz").text == "ok"
    (account / "token").write_text(control_plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT))
    scene.operator.wait_ready()
    scene.create(server_ids(2))
    scene.until_joined(server_ids(2))


def test_the_crd_is_deleted_and_applied_again(stage: Stage, control_plane: ControlPlane) -> None:
    scene = stage(QUICK, options=RARE_RESYNC)
    scene.create(server_ids(2))
    scene.until_joined(server_ids(2))
    shown = f'nodepool_membership_ready{{name="m",namespace="{scene.namespace}"}}'
    assert shown in scene.operator.get("/metrics").text
    try:
        control_plane.kubectl("delete", "-f", str(CRD))
        until_says(scene.operator, "/readyz", "is not served; apply crds/")
        wait_for("forgotten", lambda: shown not in scene.operator.get("/metrics").text or None, seconds=10)
        assert scene.operator.get("/healthz").text == "ok"
    finally:
        control_plane.install_crd(CRD)
    scene.operator.wait_ready()
    wanted = server_ids(3)
    scene.create(wanted)
    done = scene.until_ready()
    assert scene.accepted(wanted) == dict.fromkeys(wanted, 1)
    assert len(jobs(done)) == 1
    assert scene.operator.exit_code is None
