"""What the simulator's tests share: a clock to turn by hand, and the CCE calls over plain HTTP with a token.

Not for: tests of the operator's own client.
"""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Self

import httpx

from cce_simulator import Behaviour, Simulator, SimulatorConfig, server_id
from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID, PROJECT_ID, TokenConfig

TOKEN = "a-token"
PROJECT = f"/api/v3/projects/{PROJECT_ID}"
CLUSTER = f"{PROJECT}/clusters/{CLUSTER_ID}"
NODES = f"{CLUSTER}/nodes"
ADD = f"{CLUSTER}/nodepools/{NODE_POOL_ID}/nodes/add"
REMOVE = f"{NODES}/operation/remove"


@dataclass
class Clock:
    """Seconds since 1970, moved by hand; `sleep` moves it too."""

    now: float = 1_767_323_045.0
    slept: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        return self.now

    def tick(self, seconds: float) -> None:
        self.now += seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def servers(count: int, first: int = 0) -> list[str]:
    return [server_id("test", index) for index in range(first, first + count)]


def config(**fields: object) -> SimulatorConfig:
    """A configuration with TOKEN, jobs of 100 s and no write limit unless told; `behaviour` as JSON."""
    given = fields.pop("behaviour", {})
    assert isinstance(given, dict)
    behaviour = Behaviour.from_json({"jobSeconds": 100, **given})
    tokens = (TokenConfig(value=TOKEN),)
    return SimulatorConfig.model_validate({"tokens": tokens, "behaviour": behaviour, "writes_per_minute": 0} | fields)


@dataclass
class Cloud:
    """A running simulator on a clock of its own, and calls to it."""

    simulator: Simulator
    clock: Clock
    http: httpx.AsyncClient

    @classmethod
    @asynccontextmanager
    async def running(cls, configuration: SimulatorConfig | None = None) -> AsyncIterator[Self]:
        clock = Clock()
        async with (
            Simulator(configuration or config(), clock=clock, sleep=clock.sleep) as simulator,
            httpx.AsyncClient(base_url=simulator.url, headers={"X-Auth-Token": TOKEN}, trust_env=False) as http,
        ):
            yield cls(simulator, clock, http)

    async def add(self, ids: Sequence[str], path: str = ADD) -> httpx.Response:
        nodes = [{"serverID": server} for server in ids]
        return await self.http.post(path, json={"apiVersion": "v3", "kind": "List", "nodeList": nodes})

    async def added(self, ids: Sequence[str]) -> str:
        """The job id of an add that is accepted."""
        answer = await self.add(ids)
        assert answer.status_code == 200, answer.text
        job_id = answer.json()["jobid"]
        assert isinstance(job_id, str)
        return job_id

    async def job(self, job_id: str) -> httpx.Response:
        return await self.http.get(f"{PROJECT}/jobs/{job_id}")

    async def phase_of_job(self, job_id: str) -> object:
        return (await self.job(job_id)).json()["status"]["phase"]

    async def phases(self) -> dict[str, str]:
        """Server -> phase of its node, from one page."""
        items = (await self.http.get(NODES)).json()["items"]
        return {item["status"]["serverId"]: item["status"]["phase"] for item in items}

    async def remove(self, uids: Sequence[str]) -> httpx.Response:
        body = {"apiVersion": "v3", "kind": "RemoveNodesTask", "spec": {"nodes": [{"uid": uid} for uid in uids]}}
        return await self.http.put(REMOVE, json=body)

    async def control(self, method: str, what: str, body: object = None) -> httpx.Response:
        return await self.http.request(method, f"/_sim/{what}", json=body)

    def uid(self, server: str) -> str:
        node = self.simulator.world.node_of(server)
        assert node is not None
        return node.uid
