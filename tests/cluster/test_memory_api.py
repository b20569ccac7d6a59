"""The API server in memory that `chaos.boundaries` crashes against answers as a real one does."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from chaos.boundaries_api import NAMESPACES, MemoryApi, Target, Wire, mapping
from cluster.objects import connect, manifest, object_path, server_ids
from controlplane import ControlPlane
from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import FIELD_MANAGER, FINALIZER, GROUP, PLURAL
from nodepool_membership.kube.api import JSON_PATCH, METADATA_ONLY, KubeApi, path
from nodepool_membership.kube.errors import KubeError
from nodepool_membership.kube.memberships import Memberships

pytestmark = pytest.mark.usefixtures("crd")

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STRICT = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
MERGE = "application/merge-patch+json"
ONE, TWO, THREE = server_ids(3)
JOB: Wire = {
    "batch": 1, "operation": "Add", "attempt": 1, "phase": "Running", "servers": 1, "jobID": "job-1",
    "serverIDs": [ONE], "submitTime": "2026-01-02T03:04:05Z",
}  # fmt: skip


def kept(wire: Wire) -> Wire:
    """What does not differ between two servers by itself."""
    meta = mapping(wire["metadata"])
    names = ("name", "generation", "finalizers", "annotations", "labels")
    shown: Wire = {name: meta[name] for name in names if name in meta}
    shown["deleting"] = "deletionTimestamp" in meta
    return {"metadata": shown, **{name: wire[name] for name in ("spec", "status") if name in wire}}


@dataclass
class Talk:
    """A conversation with one API server: every request, and what came of it."""

    api: KubeApi
    namespace: str
    heard: list[object] = field(default_factory=list)
    version: str = ""
    """The resourceVersion that the next guarded patch names."""

    async def ask(self, method: str, *rest: str, **more: Json) -> None:
        """Any request that is not a guarded patch."""
        body = more.get("body")
        kind = MERGE if method == "PATCH" else "application/json"
        await self._hear(method, object_path(self.namespace, *rest), body, kind, {})

    async def patch(self, *rest: str, edits: list[Json], version: str | None = None, **query: str) -> None:
        """A guarded and strict JSON Patch, as the operator sends it; answered with metadata only."""
        guard: Json = {"op": "replace", "path": "/metadata/resourceVersion", "value": version or self.version}
        await self._hear("PATCH", object_path(self.namespace, *rest), [guard, *edits], JSON_PATCH, {**STRICT, **query})

    async def list(self, **query: str) -> str:
        """A page of the namespace's memberships; the token that continues it, or nothing."""
        resource = object_path(self.namespace)
        answer = await self.api.request("test", "GET", resource, query=query)
        page = mapping(json.loads(answer))
        meta, items = mapping(page["metadata"]), page["items"]
        assert isinstance(items, list)
        shown = [kept(mapping(item)) for item in items]
        token = str(meta.get("continue") or "")
        self.heard.append(("LIST", page["kind"], shown, bool(token), meta.get("remainingItemCount")))
        return token

    async def look(self, where: str) -> None:
        """The metadata of something else than a membership; only whether it is being deleted is of interest."""
        try:
            answer = await self.api.request("test", "GET", where, accept=METADATA_ONLY)
        except KubeError as error:
            self.heard.append((where, type(error).__name__))
            return
        wire = mapping(json.loads(answer))
        meta = mapping(wire["metadata"])
        self.heard.append((where, wire["kind"], meta["name"], "deletionTimestamp" in meta))

    async def keys(self, *namespaces: str) -> None:
        """What the census asks, in all namespaces if none is given."""
        found = [(m.metadata.namespace, m.metadata.name) async for m in Memberships(self.api).all(namespaces)]
        self.heard.append(("keys", [key for key in found if key[0] == self.namespace]))

    async def _hear(self, method: str, resource: str, body: Json, kind: str, query: dict[str, str]) -> None:
        accept = METADATA_ONLY if kind == JSON_PATCH else "application/json"
        try:
            answer = await self.api.request(
                "test", method, resource, query=query, body=body, content_type=kind, accept=accept
            )
        except KubeError as error:
            self.heard.append((method, type(error).__name__, str(error).split()[0].rstrip(":")))
            return
        wire = mapping(json.loads(answer))
        if wire["kind"] == "Status" or method == "DELETE":
            self.heard.append((method, "ok"))
            return
        version = str(mapping(wire["metadata"])["resourceVersion"])
        self.heard.append((method, wire["kind"], kept(wire), "new version" if version != self.version else "same"))
        self.version = version


def add(where: str, value: Json) -> Json:
    return {"op": "add", "path": where, "value": value}


async def converse(talk: Talk) -> None:
    """Everything that the operator and the scenarios ask, and what they must not get."""
    body: Wire = json.loads(json.dumps(manifest("pool", server_ids(2))))
    await talk.ask("GET", "pool")
    await talk.ask("POST", body=body)
    await talk.ask("POST", body=body)
    await talk.ask("GET", "pool")
    created = talk.version
    status: Wire = {"observedGeneration": 1, "conditions": [], "desired": 2, "lastBatch": 0}
    await talk.patch("pool", "status", edits=[add("/status", status)])
    await talk.patch("pool", "status", edits=[add("/status/desired", 7)], version=created)
    await talk.patch("pool", edits=[add("/metadata/finalizers", [FINALIZER])], version=created)
    await talk.ask("GET", "pool")
    await talk.patch("pool", edits=[add("/metadata/finalizers", [FINALIZER])])
    await talk.patch("pool", edits=[add("/metadata/finalizers", [FINALIZER])])
    # Each door ignores what belongs to the other.
    await talk.patch("pool", "status", edits=[add("/metadata/finalizers", []), add("/status/jobs", [JOB])])
    await talk.patch("pool", edits=[add("/status/desired", 9)])
    await talk.patch("pool", "status", edits=[add("/spec/batchSize", 7)])
    await talk.ask("GET", "pool")
    await talk.patch("pool", "status", edits=[add("/status/jobs/0/phase", "Succeeded")])
    await talk.patch("pool", "status", edits=[add("/status/jobs/0/jobID", "job-2")])
    await talk.patch("pool", "status", edits=[{"op": "remove", "path": "/status/jobs/0/jobID"}])
    await talk.patch("pool", "status", edits=[add("/status/noSuchField", 1)])
    await talk.patch("pool", "status", edits=[{"op": "remove", "path": "/status/surplusSince"}])
    await talk.patch("pool", "status", edits=[{"op": "test", "path": "/status/desired", "value": 99}])
    await talk.ask("PATCH", "pool", body={"metadata": {"annotations": {"a": "b"}}})
    await talk.ask("PATCH", "pool", body={"spec": {"serverIDs": [ONE, TWO, THREE]}})
    await talk.ask("PATCH", "pool", body={"spec": {"serverIDs": [ONE, TWO, THREE]}})
    await talk.ask("DELETE", "pool")
    await talk.ask("GET", "pool")
    await talk.ask("DELETE", "pool")
    await talk.patch("pool", edits=[add("/metadata/finalizers", [FINALIZER, "example.com/other"])])
    await talk.patch("pool", "status", edits=[add("/status/desired", 3)])
    await talk.ask("PATCH", "pool", body={"spec": {"serverIDs": []}})
    await talk.ask("GET", "pool")
    await talk.patch("pool", edits=[add("/metadata/finalizers", [])])
    await talk.ask("GET", "pool")
    await talk.patch("pool", "status", edits=[add("/status/desired", 4)])
    old = talk.version
    await talk.ask("POST", body=body)
    await talk.patch("pool", "status", edits=[add("/status/desired", 5)], version=old)
    await talk.ask("DELETE", "pool")
    await talk.ask("GET", "pool")


async def converse_of_many(talk: Talk) -> None:
    """What the census asks at the start, and what is asked before servers are removed on a deletion."""
    await talk.list(limit="2")
    await talk.keys(talk.namespace)
    for name in ("b", "c", "a"):
        await talk.ask("POST", body=json.loads(json.dumps(manifest(name, server_ids(1)))))
    await talk.list(limit="3")
    token = await talk.list(limit="2")
    # A list goes on as of when it was begun.
    await talk.ask("DELETE", "c")
    await talk.list(limit="2", **{"continue": token})
    first = await talk.list(limit="1")
    await talk.list(limit="1", **{"continue": first})
    await talk.list(limit="2")
    await talk.keys(talk.namespace)
    await talk.keys()
    crds = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
    for name in (f"{PLURAL}.{GROUP}", f"others.{GROUP}"):
        await talk.look(path(crds, name))
    for where in (path("/api/v1/namespaces", talk.namespace), path("/api/v1/namespaces", "no-such-namespace")):
        await talk.look(where)
    await talk.api.request("test", "DELETE", path("/api/v1/namespaces", talk.namespace))
    await talk.look(path("/api/v1/namespaces", talk.namespace))


@pytest.mark.parametrize("said", [converse, converse_of_many])
async def test_the_api_server_in_memory_answers_as_a_real_one(
    control_plane: ControlPlane, namespace: str, said: Callable[[Talk], Awaitable[None]]
) -> None:
    memory = MemoryApi(lambda: NOW)
    memory.handle("POST", Target(NAMESPACES, ""), {}, {}, {"metadata": {"name": namespace}})
    imagined = Talk(KubeApi(memory, memory.login), namespace)
    await said(imagined)
    async with connect(control_plane) as api:
        real = Talk(api, namespace)
        await said(real)
    pairs = enumerate(zip(imagined.heard, real.heard, strict=True))
    assert [(n, told, wanted) for n, (told, wanted) in pairs if told != wanted] == []
