"""Servers that are read before a call names them: ECS as the small world has it, read by the operator's own client.

Not for: what they are held against, or when a read goes wrong (`moves`). Where a world has marks, time may pass between
a read and what follows from it.
"""

import json
from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Final

import httpx

from explore.calls import LOOP, silence
from explore.objects import EPOCH, MARK, moment, server_id, server_of
from explore.physics import NEVER, POOL, Cloud
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Credentials
from nodepool_membership.cce.servers import ServerEndpoints, ServersClient
from nodepool_membership.core.preflight.facts import Inspection, Server
from nodepool_membership.core.program import effects as fx
from nodepool_membership.runtime.cloud.inspecting import inspect

FATES: Final = ("403", "503", "lacks", "null", "bare", "others", "untold")
"""Reads are refused or fail; the first server is missing, null, an id alone, another one, or does not tell its tags."""
_HOST: Final = "https://ecs"


@dataclass(frozen=True, slots=True)
class Heard(fx.CloudEffect[None]):
    """Servers were read, and the program goes on with what was heard of them."""

    found: Inspection


def in_two(wanted: fx.InspectServers) -> Generator[Any, Any, Inspection]:
    """A read, and going on with it."""
    found: Inspection = yield wanted
    yield Heard(found)
    return found


def seen(cloud: Cloud, wanted: fx.InspectServers, how: str, now: int) -> Inspection:
    """What the operator's client makes of what it is answered; `now` by the clock of the process."""
    if not cloud.marks:
        return Inspection(moment(now), wanted.server_ids, {i: Server(i, "ACTIVE") for i in wanted.server_ids})
    nodes = tuple("" if node is None else node.uid for node in cloud.nodes)
    found = _read(tuple(mark == NEVER for mark in cloud.marks), nodes, wanted, how)
    return replace(found, began=moment(now))


@lru_cache(maxsize=100_000)
def _read(marks: tuple[bool, ...], nodes: tuple[str, ...], wanted: fx.InspectServers, how: str) -> Inspection:
    ecs = _Ecs(marks, nodes, min(wanted.server_ids), how)

    async def read() -> Inspection:
        async with httpx.AsyncClient(transport=ecs, trust_env=False) as http:
            project, source = wanted.pool.project_id, _Source()
            cce = CloudClient(http, _HOST, project, source, now=lambda: EPOCH, timeout_seconds=60)
            places = ServerEndpoints(_HOST)
            servers = ServersClient(http, places, project, source, now=lambda: EPOCH, timeout_seconds=60)
            return await inspect(wanted, cce, servers, now=lambda: EPOCH)

    with silence():
        return LOOP.run_until_complete(read())


class _Source:
    identity = fingerprint = "a source"

    async def current(self) -> AccessKey:
        return AccessKey("KEY", "secret-key")

    async def renewed(self, _refused: Credentials) -> bool:
        return False


class _Ecs(httpx.AsyncBaseTransport):
    """Documents of servers, and what may be wrong with them: `first` is the server that it is wrong with."""

    def __init__(self, marks: tuple[bool, ...], nodes: tuple[str, ...], first: str, how: str) -> None:
        self._marks = marks
        self._nodes = nodes
        self._first = first
        self._how = how

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._how in {"403", "503"}:
            return httpx.Response(int(self._how), json={"error": {"code": "Ecs.0000", "message": "not now"}})
        last = request.url.path.rsplit("/", 1)[-1]
        if request.url.path.startswith("/api/"):
            # A node that a tag names is there, or the server would not have the tag.
            return httpx.Response(200, json={"metadata": {"uid": last}})
        if last == "detail":
            ids = request.url.params["server_id"].split(",")
            found = [one for i in ids if (one := self._document(i)) is not None]
            return httpx.Response(200, content=json.dumps({"servers": found if self._how != "null" else None}))
        one = self._document(last)
        if one is None and self._how == "lacks":
            return httpx.Response(404, json={"error": {"code": "Ecs.0114", "message": "no such server"}})
        return httpx.Response(200, content=json.dumps({"server": one}))

    def _document(self, asked: str) -> dict[str, Any] | None:
        server = server_of(asked)
        tags = [f"{MARK}={POOL}"] if self._marks[server] else []
        if self._nodes[server]:
            tags.append(f"CCE-Dynamic-Provisioning-Node={self._nodes[server]}")
        document: dict[str, Any] = {"id": asked, "status": "ACTIVE", "tags": tags}
        if asked != self._first:
            return document
        match self._how:
            case "lacks" | "null":
                return None
            case "bare":
                return {"id": asked}
            case "others":
                return document | {"id": server_id(9), "tags": [f"{MARK}={POOL}"]}
            case "untold":
                return document | {"tags": None}
        return document
