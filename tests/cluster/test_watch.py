"""The watch on a real API server: what wakes a key, what does not, and that kopf writes nothing."""

import asyncio
import json
import logging
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from cluster.objects import connect, create, create_many, merge, object_path, server_ids
from controlplane import ControlPlane
from controlplane.ports import free_ports
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import RECONCILE_ANNOTATIONS
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Condition
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import KubeError
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.secrets import Secrets
from nodepool_membership.kube.service_accounts import ServiceAccounts
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.ops import logs
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.ops.options import Bind, Options
from nodepool_membership.runtime.process import process
from nodepool_membership.runtime.scheduling.leader import MayCall
from nodepool_membership.runtime.scheduling.queue import Key
from nodepool_membership.runtime.watch.watch import Watch
from times import until

READY = Condition("Ready", "True", Reason.SUCCEEDED, "", 1, datetime(2026, 1, 2, tzinfo=UTC))


class Seen:
    """The keys that the watch named, in order."""

    def __init__(self) -> None:
        self.keys: list[Key] = []

    def __call__(self, key: Key) -> None:
        self.keys.append(key)

    async def until(self, true: Callable[[list[Key]], bool], seconds: float = 20) -> None:
        await until(lambda: true(self.keys), seconds)

    def clear(self) -> None:
        self.keys.clear()


@asynccontextmanager
async def watching(api: KubeApi, *namespaces: str) -> AsyncIterator[tuple[Watch, Seen]]:
    seen = Seen()
    watch = Watch(api, seen, namespaces=namespaces)
    task = asyncio.create_task(watch.run())
    try:
        yield watch, seen
    finally:
        watch.stop()
        async with asyncio.timeout(15):
            await task


async def until_ready(watch: Watch, seconds: float = 20) -> None:
    await until(lambda: watch.ready() is None, seconds)


async def raw(api: KubeApi, namespace: str) -> dict[str, tuple[str, object]]:
    """resourceVersion and metadata of every object, by name."""
    listing = json.loads(await api.request("test", "GET", object_path(namespace)))
    return {o["metadata"]["name"]: (o["metadata"]["resourceVersion"], o["metadata"]) for o in listing["items"]}


@pytest.mark.usefixtures("crd")
async def test_all_are_seen_none_is_written_and_own_writes_do_not_wake(
    control_plane: ControlPlane, namespace: str
) -> None:
    names = [f"pool-{n:03}" for n in range(300)]
    async with connect(control_plane) as api:
        await create_many(api, namespace, names, server_ids(10))
        before = await raw(api, namespace)
        async with watching(api, namespace) as (watch, seen):
            await seen.until(lambda keys: len(keys) >= 300)
            assert sorted(seen.keys) == [(namespace, name) for name in names]
            await until_ready(watch)
            assert watch.alive() is None
            seen.clear()

            memberships = Memberships(api)
            found = await memberships.read(namespace, "pool-001")
            assert isinstance(found, Membership)
            status = replace(found.status, observed_generation=1, conditions=(READY,), last_batch=0)
            version = await memberships.write_status(found.metadata, found.status, status)
            await memberships.add_finalizer(replace(found.metadata, resource_version=version))
            await merge(api, namespace, "pool-002", '{"metadata": {"labels": {"a": "b"}}}')
            await merge(api, namespace, "pool-003", '{"spec": {"batchSize": 7}}')
            await seen.until(lambda keys: (namespace, "pool-003") in keys)
            for number, annotation in enumerate(RECONCILE_ANNOTATIONS, start=4):
                request = json.dumps({"metadata": {"annotations": {annotation: "now"}}})
                await merge(api, namespace, f"pool-{number:03}", request)
            await api.request("test", "DELETE", object_path(namespace, "pool-006"))
            # Written last, all seen, and in no order: what came before them has woken nobody.
            await seen.until(lambda keys: len(keys) >= 4)
            assert sorted(seen.keys) == [(namespace, f"pool-{n:03}") for n in (3, 4, 5, 6)]

            seen.clear()
            await api.request("test", "DELETE", object_path(namespace, "pool-001"))
            await seen.until(lambda keys: (namespace, "pool-001") in keys)
            gone = await memberships.read(namespace, "pool-001")
            assert isinstance(gone, Membership)
            assert gone.metadata.deleting
            await memberships.remove_finalizer(gone.metadata)
            await seen.until(lambda keys: len(keys) >= 2)
            assert seen.keys == [(namespace, "pool-001")] * 2
        after = await raw(api, namespace)
    untouched = set(names[7:])
    assert {n: before[n] for n in untouched} == {n: after[n] for n in untouched}
    assert "kopf" not in json.dumps(sorted(after.items()))


@pytest.mark.usefixtures("crd")
async def test_other_namespaces_are_not_watched(control_plane: ControlPlane, namespace: str) -> None:
    other = f"{namespace}-other"
    control_plane.ensure_namespace(other)
    async with connect(control_plane) as api:
        async with watching(api, namespace) as (watch, seen):
            await until_ready(watch)
            await create(api, other, "theirs", [])
            await create(api, namespace, "ours", [])
            await seen.until(lambda keys: len(keys) >= 1)
            assert seen.keys == [(namespace, "ours")]
        async with watching(api) as (watch, seen):
            await seen.until(lambda keys: {(namespace, "ours"), (other, "theirs")} <= set(keys))


@pytest.mark.usefixtures("crd")
async def test_an_outage_of_the_api_server_is_survived(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        async with watching(api, namespace) as (watch, seen):
            await seen.until(lambda keys: (namespace, "pool") in keys)
            await asyncio.to_thread(control_plane.restart_apiserver, 3)
            seen.clear()
            await merge(api, namespace, "pool", '{"spec": {"batchSize": 7}}')
            await seen.until(lambda keys: (namespace, "pool") in keys, 30)
            assert watch.alive() is None
            await until_ready(watch)


async def test_waits_for_the_crd_and_starts_again_after_it_was_removed(
    control_plane: ControlPlane, crd: str, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    definition = control_plane.kubectl("get", "crd", crd, "-o", "json").stdout
    plain = json.loads(definition)
    plain["metadata"] = {"name": crd}
    del plain["status"]

    def apply() -> None:
        control_plane.apply(json.dumps(plain))
        control_plane.wait_until_served(crd)

    async with connect(control_plane) as api:
        await asyncio.to_thread(control_plane.kubectl, "delete", "crd", crd)
        try:
            async with watching(api) as (watch, seen):
                await until(lambda: "waiting for the resource type" in caplog.text)
                problem = watch.ready()
                assert problem is not None
                assert crd in problem
                assert watch.alive() is None
                await asyncio.to_thread(apply)
                await until_ready(watch)
                await create(api, namespace, "first", [])
                await seen.until(lambda keys: (namespace, "first") in keys)

                await asyncio.to_thread(control_plane.kubectl, "delete", "crd", crd)
                await asyncio.to_thread(apply)
                async with asyncio.timeout(60):
                    while True:
                        try:
                            await create(api, namespace, "second", [])
                            break
                        except KubeError as error:
                            logging.getLogger(__name__).info("not served yet: %s", error)
                            await asyncio.sleep(0.1)
                await seen.until(lambda keys: (namespace, "second") in keys, 60)
        finally:
            await asyncio.to_thread(apply)


@pytest.mark.usefixtures("crd")
async def test_kopf_leaves_our_signals_and_tasks_alone(control_plane: ControlPlane, namespace: str) -> None:
    loop = asyncio.get_running_loop()
    got = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, got.set)
    try:
        async with connect(control_plane) as api:
            async with watching(api, namespace) as (watch, _):
                await until_ready(watch)
                bystander = asyncio.create_task(asyncio.Event().wait())
                signal.raise_signal(signal.SIGTERM)
                async with asyncio.timeout(5):
                    await got.wait()
                assert watch.ready() is None
            assert not bystander.done()
            bystander.cancel()
    finally:
        loop.remove_signal_handler(signal.SIGTERM)


class Counting:
    """A reconciler that reads its object and is slow to end when told so."""

    def __init__(self, memberships: Memberships) -> None:
        self.memberships = memberships
        self.looks: list[Key] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.ended: list[Key] = []

    async def reconcile(self, key: Key) -> float | None:
        self.looks.append(key)
        async with self.memberships.open(*key) as found:
            await self.gate.wait()
            if found is None:
                raise RuntimeError("a look that fails")
        self.ended.append(key)
        return None

    def start(self) -> None:
        return None

    async def close(self) -> None:
        return None


@pytest.mark.usefixtures("crd")
async def test_the_process_works_keys_answers_probes_and_ends_in_order(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(control_plane.admin_kubeconfig))
    monkeypatch.setattr(logs, "configure", lambda *_: None)
    made: list[Counting] = []
    left: list[int] = []

    @asynccontextmanager
    async def make(
        _options: Options,
        memberships: Memberships,
        _secrets: Secrets,
        _accounts: ServiceAccounts,
        events: Events,
        _metrics: Metrics,
        may_call: MayCall,
        _wake: Callable[[Key], None],
        _unread: Unread,
    ) -> AsyncIterator[Counting]:
        assert events is not None
        assert may_call()
        made.append(Counting(memberships))
        yield made[0]
        left.append(len(made[0].ended))

    (port,) = free_ports(1)
    options = Options(
        namespaces=(namespace,), bind=Bind("127.0.0.1", port), http_timeout=timedelta(seconds=1), leader_elect=False
    )
    async with connect(control_plane) as api, httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
        await create(api, namespace, "pool", [])
        process_task = asyncio.create_task(process.run(options, make))
        await until(lambda: bool(made) and (namespace, "pool") in made[0].ended)
        async with asyncio.timeout(20):
            while (answer := await http.get("/readyz")).status_code != 200:
                assert answer.text.startswith("watch: ")
        assert (await http.get("/healthz")).text == "ok"
        metrics = (await http.get("/metrics")).text
        assert 'nodepool_membership_kube_requests_total{kind="membership",outcome="ok"}' in metrics

        reconciler = made[0]
        reconciler.gate.clear()
        looks = len(reconciler.looks)
        await merge(api, namespace, "pool", '{"spec": {"batchSize": 7}}')
        await until(lambda: len(reconciler.looks) > looks)
        signal.raise_signal(signal.SIGTERM)
        await asyncio.sleep(0.2)
        assert not process_task.done()
        reconciler.gate.set()
        async with asyncio.timeout(15):
            assert await process_task == 0
        assert left == [looks + 1]
        with pytest.raises(httpx.ConnectError):
            await http.get("/healthz")
