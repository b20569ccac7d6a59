"""Reading and writing the resource on a real API server: guards, strictness, bytes, Events."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from types import SimpleNamespace
from typing import Self

import aiohttp
import pytest
from kubernetes.aio.config import incluster_config

from cluster.objects import connect, create, merge, object_path, server_ids
from controlplane import ControlPlane
from nodepool_membership.api.membership import Json, Membership, UnreadableStatus
from nodepool_membership.api.names import CREDENTIALS_MARK, FIELD_MANAGER, FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Condition, Operation, Phase
from nodepool_membership.kube.api import Client, KubeApi, Response
from nodepool_membership.kube.errors import (
    GoneError,
    KubeForbiddenError,
    RejectedError,
    StaleError,
    UnansweredError,
)
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.secrets import Secrets

pytestmark = pytest.mark.usefixtures("crd")

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
READY = Condition("Ready", "False", Reason.PROGRESSING, "joining", 1, NOW)


async def read(memberships: Memberships, namespace: str, name: str) -> Membership:
    found = await memberships.read(namespace, name)
    assert isinstance(found, Membership)
    return found


def intent(number: int, ids: list[str]) -> Batch:
    return Batch(
        batch=number,
        operation=Operation.ADD,
        attempt=1,
        phase=Phase.SUBMITTING,
        servers=len(ids),
        server_ids=tuple(ids),
        submit_time=NOW,
    )


async def test_a_batch_goes_from_intent_to_members(control_plane: ControlPlane, namespace: str) -> None:
    ids = server_ids(400)
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", ids)
        memberships = Memberships(api)
        found = await read(memberships, namespace, "pool")
        assert found.status.observed_generation == -1

        batch = intent(1, ids[:200])
        steps = [
            replace(found.status, observed_generation=1, conditions=(READY,), desired=400, last_batch=1, jobs=(batch,))
        ]
        running = replace(batch, phase=Phase.RUNNING, job_id="job-1")
        steps.append(replace(steps[-1], jobs=(running,), last_job_id="job-1"))
        done = replace(running, phase=Phase.SUCCEEDED, server_ids=(), finish_time=NOW)
        steps.append(replace(steps[-1], jobs=(done,), members=tuple(ids[:200]), joined=200))
        steps.append(replace(steps[-1], members=tuple(ids), joined=400))
        steps.append(replace(steps[-1], members=tuple(ids[1:]), joined=399))

        metadata, status = found.metadata, found.status
        for step in steps:
            version = await memberships.write_status(metadata, status, step)
            assert version != metadata.resource_version
            metadata, status = replace(metadata, resource_version=version), step
            stored = await read(memberships, namespace, "pool")
            assert stored.status == step
            assert stored.metadata.resource_version == version

        assert await memberships.write_status(metadata, status, status) == metadata.resource_version
        whole = json.loads(await api.request("test", "GET", object_path(namespace, "pool")))
        managers = {entry["manager"] for entry in whole["metadata"]["managedFields"] if entry.get("subresource")}
        assert managers == {FIELD_MANAGER}


async def test_a_stale_write_is_refused_and_changes_nothing(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        memberships = Memberships(api)
        found = await read(memberships, namespace, "pool")
        await merge(api, namespace, "pool", '{"metadata": {"labels": {"a": "b"}}}')
        changed = replace(found.status, desired=7)
        with pytest.raises(StaleError):
            await memberships.write_status(found.metadata, found.status, changed)
        with pytest.raises(StaleError):
            await memberships.add_finalizer(found.metadata)
        with pytest.raises(StaleError):
            await memberships.write_conditions_only(found.metadata, 1, (READY,))
        now = await read(memberships, namespace, "pool")
        assert now.status == found.status
        assert now.metadata.finalizers == ()


async def test_an_object_made_again_under_its_name_is_not_written(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        memberships = Memberships(api)
        old = await read(memberships, namespace, "pool")
        await api.request("test", "DELETE", object_path(namespace, "pool"))
        assert await memberships.read(namespace, "pool") is None
        with pytest.raises(GoneError):
            await memberships.write_status(old.metadata, old.status, replace(old.status, desired=7))
        await create(api, namespace, "pool", [])
        with pytest.raises(StaleError):
            await memberships.write_status(old.metadata, old.status, replace(old.status, desired=7))


async def test_a_field_the_crd_does_not_know_is_refused_not_pruned(control_plane: ControlPlane, namespace: str) -> None:
    """An older CRD would drop an intent's field and answer 200."""
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        memberships = Memberships(api)
        found = await read(memberships, namespace, "pool")
        write = memberships._patch
        patch = [{"op": "add", "path": "/status/fromTheFuture", "value": "secret-value"}]
        with pytest.raises(RejectedError, match="fromTheFuture") as caught:
            await write("status", found.metadata, json.loads(json.dumps(patch)), "status")
        assert "secret-value" not in str(caught.value)
        assert len(str(caught.value)) <= 400


async def test_a_refusal_names_the_field_and_no_value(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        with pytest.raises(RejectedError, match=r"serverIDs\[0\]") as caught:
            await create(api, namespace, "pool", ["not-an-id-at-all"])
        assert "not-an-id-at-all" not in str(caught.value)


async def test_the_job_id_is_write_once(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        memberships = Memberships(api)
        found = await read(memberships, namespace, "pool")
        running = replace(intent(1, []), phase=Phase.RUNNING, job_id="job-1")
        status = replace(found.status, observed_generation=1, conditions=(READY,), last_batch=1, jobs=(running,))
        version = await memberships.write_status(found.metadata, found.status, status)
        other = replace(status, jobs=(replace(running, job_id="job-2"),))
        with pytest.raises(RejectedError, match="jobID"):
            await memberships.write_status(replace(found.metadata, resource_version=version), status, other)


async def test_the_finalizer_comes_and_goes(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        memberships = Memberships(api)
        found = await read(memberships, namespace, "pool")
        await memberships.add_finalizer(found.metadata)
        held = await read(memberships, namespace, "pool")
        assert held.metadata.finalizers == (FINALIZER,)
        assert await memberships.add_finalizer(held.metadata) == held.metadata.resource_version

        await api.request("test", "DELETE", object_path(namespace, "pool"))
        deleting = await read(memberships, namespace, "pool")
        assert deleting.metadata.deleting
        await memberships.remove_finalizer(deleting.metadata)
        assert await memberships.read(namespace, "pool") is None


async def test_other_finalizers_are_kept_and_deletion_takes_none(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        await merge(api, namespace, "pool", '{"metadata": {"finalizers": ["example.com/other"]}}')
        memberships = Memberships(api)
        found = await read(memberships, namespace, "pool")
        await memberships.add_finalizer(found.metadata)
        both = await read(memberships, namespace, "pool")
        assert both.metadata.finalizers == ("example.com/other", FINALIZER)
        await memberships.remove_finalizer(both.metadata)
        await api.request("test", "DELETE", object_path(namespace, "pool"))
        deleting = await read(memberships, namespace, "pool")
        assert deleting.metadata.finalizers == ("example.com/other",)
        with pytest.raises(RejectedError):
            await memberships.add_finalizer(deleting.metadata)
        await merge(api, namespace, "pool", '{"metadata": {"finalizers": null}}')


async def test_an_unreadable_status_keeps_all_but_its_conditions(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        job = {"batch": 3, "operation": "Conjure", "attempt": 1, "phase": "X", "servers": 0}
        await merge(api, namespace, "pool", json.dumps({"status": {"lastBatch": 3, "jobs": [job]}}), "status")
        memberships = Memberships(api)
        found = await memberships.read(namespace, "pool")
        assert isinstance(found, UnreadableStatus)
        await memberships.write_conditions_only(found.metadata, 1, (READY,))
        whole = json.loads(await api.request("test", "GET", object_path(namespace, "pool")))
        assert whole["status"]["observedGeneration"] == 1
        assert whole["status"]["conditions"][0]["reason"] == "Progressing"
        assert whole["status"]["jobs"][0]["operation"] == "Conjure"
        assert whole["status"]["lastBatch"] == 3


class Scales:
    """Weighs the patches that pass through."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.patches: list[int] = []
        self.answers: list[int] = []

    async def call_api(
        self,
        method: str,
        url: str,
        header_params: dict[str, str],
        body: Json,
        post_params: None,
        _request_timeout: aiohttp.ClientTimeout,
    ) -> Response:
        response = await self._client.call_api(method, url, header_params, body, post_params, _request_timeout)
        if method == "PATCH":
            self.patches.append(len(json.dumps(body)))
            self.answers.append(len(await response.read()))
        return response

    async def close(self) -> None:
        await self._client.close()


async def test_ten_thousand_members_cost_a_batch_of_bytes(control_plane: ControlPlane, namespace: str) -> None:
    ids = server_ids(10_000)
    kept = tuple(i for n, i in enumerate(ids) if n % 50)
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", ids)
        client = Scales(api._client)
        memberships = Memberships(KubeApi(client, api.login))
        found = await read(memberships, namespace, "pool")
        first = replace(found.status, observed_generation=1, conditions=(READY,), members=kept)
        version = await memberships.write_status(found.metadata, found.status, first)
        second = replace(first, members=tuple(ids))
        await memberships.write_status(replace(found.metadata, resource_version=version), first, second)
        assert (await read(memberships, namespace, "pool")).status.members == tuple(ids)
    whole, inserts = client.patches
    assert whole > 300_000
    assert inserts < 25_000
    assert max(client.answers) < 2_000


async def test_too_large_an_object_is_final(control_plane: ControlPlane, namespace: str) -> None:
    """etcd's limit of 1.5 MiB is a 500, which would otherwise count as no answer."""
    ids = server_ids(10_000)
    group = {"reason": "Other", "attempts": 1, "count": len(ids), "serverIDs": ids}
    groups = [{**group, "message": "a"}, {**group, "message": "b"}]
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", ids)
        await merge(api, namespace, "pool", json.dumps({"status": {"failures": groups}}), "status")
        await merge(api, namespace, "pool", json.dumps({"status": {"members": ids}}), "status")
        note = json.dumps({"metadata": {"annotations": {"example.com/note": "x" * 100_000}}})
        with pytest.raises(RejectedError, match="request is too large"):
            await merge(api, namespace, "pool", note)


async def test_without_rights_or_without_a_server(control_plane: ControlPlane, namespace: str) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = control_plane.service_account_token(namespace, "nobody")
    kubeconfig = control_plane.kubeconfig_for_token(token, name=f"nobody-{namespace}")
    async with KubeApi.connect(environ={"KUBECONFIG": str(kubeconfig)}) as api:
        with pytest.raises(KubeForbiddenError, match="cannot get resource"):
            await Memberships(api).read(namespace, "pool")
        assert token not in repr(api)
    wrong = control_plane.kubeconfig_for_token("wrong", name=f"wrong-{namespace}")
    async with KubeApi.connect(environ={"KUBECONFIG": str(wrong)}) as api:
        with pytest.raises(KubeForbiddenError, match="401"):
            await Memberships(api).read(namespace, "pool")
    text = kubeconfig.read_text().replace(control_plane.url, "https://127.0.0.1:1")
    nowhere = kubeconfig.with_name(f"nowhere-{namespace}")
    nowhere.write_text(text)
    async with KubeApi.connect(environ={"KUBECONFIG": str(nowhere)}) as api:
        with pytest.raises(UnansweredError, match="ClientConnectorError"):
            await Memberships(api).read(namespace, "pool")


async def test_the_pods_service_account_and_its_rotated_token(
    control_plane: ControlPlane, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    control_plane.kubectl("create", "serviceaccount", "op", "-n", namespace)
    control_plane.kubectl("create", "role", "op", "--verb=get", "--resource=secrets", "-n", namespace)
    control_plane.kubectl(
        "create", "rolebinding", "op", "--role=op", f"--serviceaccount={namespace}:op", "-n", namespace
    )
    control_plane.kubectl(
        "create",
        "secret",
        "generic",
        "keys",
        f"--type={CREDENTIALS_MARK}",
        "--from-literal=accessKey=AK",
        "-n",
        namespace,
    )
    (tmp_path / "token").write_text(control_plane.service_account_token(namespace, "op") + "\n")
    (tmp_path / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
    host, port = control_plane.url.removeprefix("https://").split(":")
    environ = {"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port}
    async with KubeApi.connect(service_account=tmp_path, environ=environ) as api:
        assert await Secrets(api).read(namespace, "keys") == {"accessKey": b"AK"}
        assert await Secrets(api).read(namespace, "absent") is None
        rotated = control_plane.service_account_token(namespace, "op", seconds=7200)
        (tmp_path / "token").write_text(rotated)

        class Later(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> Self:
                return super().now(tz) + timedelta(minutes=2)

        monkeypatch.setattr(incluster_config, "datetime", SimpleNamespace(datetime=Later, timedelta=timedelta))
        assert await api.login.authorization() == f"bearer {rotated}"
        assert await Secrets(api).read(namespace, "keys") == {"accessKey": b"AK"}


async def test_events_are_counted_and_told_by_describe(control_plane: ControlPlane, namespace: str) -> None:
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        found = await read(Memberships(api), namespace, "pool")
        async with Events(api, instance="test") as events:
            for _ in range(3):
                events.post(found.metadata, "BatchSubmitted", "Normal", "Submit", "batch 1: 200 servers")
            events.post(found.metadata, "BatchFailed", "Warning", "Record", "ü" * 1000)
        async with Events(api, instance="test") as events:
            events.post(found.metadata, "BatchRefused", "Warning", "Submit", "no quota")
            await asyncio.wait_for(events._idle.wait(), 10)
            events.post(found.metadata, "BatchRefused", "Warning", "Submit", "no quota")
    told = (await asyncio.to_thread(control_plane.kubectl, "describe", "npmem", "pool", "-n", namespace)).stdout
    lines = {line.split()[1]: line for line in told.splitlines() if line.strip().startswith(("Normal", "Warning"))}
    assert set(lines) == {"BatchSubmitted", "BatchFailed", "BatchRefused"}
    assert "(x3 over" in lines["BatchSubmitted"]
    assert "batch 1: 200 servers" in lines["BatchSubmitted"]
    assert "(x2 over" in lines["BatchRefused"]


async def test_a_refused_event_blocks_nothing(
    control_plane: ControlPlane, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    control_plane.kubectl("create", "serviceaccount", "nobody", "-n", namespace)
    token = control_plane.service_account_token(namespace, "nobody")
    kubeconfig = control_plane.kubeconfig_for_token(token, name=f"mute-{namespace}")
    async with connect(control_plane) as api:
        await create(api, namespace, "pool", [])
        found = await read(Memberships(api), namespace, "pool")
    async with KubeApi.connect(environ={"KUBECONFIG": str(kubeconfig)}) as api, Events(api, instance="test") as events:
        for n in range(5):
            events.post(found.metadata, "BatchSubmitted", "Normal", "Submit", f"batch {n}")
    assert [record.levelname for record in caplog.records if "Events" in record.message] == ["WARNING"]


async def test_all_objects_are_listed_page_by_page(
    control_plane: ControlPlane, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nodepool_membership.kube.memberships._PAGE", 2)
    async with connect(control_plane) as api:
        memberships = Memberships(api)
        assert [found async for found in memberships.all([namespace])] == []
        names = [f"pool-{number}" for number in range(5)]
        for name in names:
            await create(api, namespace, name, [])
        listed = [found async for found in memberships.all([namespace])]
        assert listed == [replace(await read(memberships, namespace, name), wire_bytes=0) for name in names]
        everywhere = [found async for found in memberships.all([])]
        assert [found for found in everywhere if found.metadata.namespace == namespace] == listed
