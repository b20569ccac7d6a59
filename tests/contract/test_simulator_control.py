"""Configuration, the control API under /_sim/, and the simulator as a process of its own.

Not for: what the switches do (test_simulator_world) nor fault rules (test_simulator_faults).
"""

import asyncio
import json
import re
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

import cce_simulator
from cce_simulator import ConfigError, SimulatorConfig, server_id
from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID
from simulator_calls import CLUSTER, NODES, Cloud, config, servers

A, B = servers(2)
MISSING = "00000000-0000-0000-0000-000000000000"


@pytest.mark.parametrize(
    ("document", "complaint"),
    [
        ([], r"\(whole document\): .* got \[\]"),
        ({"colour": 1}, "colour: unknown field, remove it, got 1"),
        ({"clusters": [{"name": "x"}]}, r"clusters\.0\.id: Field required"),
        ({"clusters": [{"id": "X"}]}, r"clusters\.0\.id: .* got 'X'"),
        ({"behaviour": {"paging": "slow"}}, r"behaviour\.paging: .*'marker'.* got 'slow'"),
        ({"behaviour": {"jobSeconds": {"min": 2, "max": 1}}}, r"behaviour\.jobSeconds.*min 2.0 is greater than max"),
        ({"behaviour": {"parallelJobs": "no", "duplicates": "no"}}, r"duplicates: .*parallelJobs: "),
        ({"writesPerMinute": -1}, "writesPerMinute: .* got -1"),
        ({"clusters": [{"id": CLUSTER_ID}] * 2}, f"clusters id {CLUSTER_ID} is given twice"),
        (
            {"clusters": [{"id": CLUSTER_ID, "nodePools": [{"id": NODE_POOL_ID, "servers": [A, A]}]}]},
            f"servers of nodePools {A} is given twice",
        ),
    ],
)
def test_a_bad_configuration_names_field_value_and_remedy(document: object, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        SimulatorConfig.from_json(document)


def test_a_configuration_survives_json() -> None:
    full = config(bad_servers=[{"servers": [A]}], faults=[{"name": "x", "drop": True, "serverID": A}])
    assert SimulatorConfig.from_json(json.loads(json.dumps(full.to_json()))) == full


def test_generated_servers_follow_from_seed_and_index() -> None:
    assert server_id("s", 0) == server_id("s", 0)
    assert len({server_id("s", 0), server_id("s", 1), server_id("t", 0)}) == 3
    pool = {"id": NODE_POOL_ID, "servers": [A], "serverCount": 2, "firstServer": 7}
    made = SimulatorConfig.from_json({"seed": "s", "clusters": [{"id": CLUSTER_ID, "nodePools": [pool]}]})
    expected = [A, server_id("s", 7), server_id("s", 8)]
    assert made.clusters[0].node_pools[0].all_servers("s") == expected


async def test_a_cluster_starts_with_active_nodes_a_day_old() -> None:
    pool = {"id": NODE_POOL_ID, "servers": [A], "serverCount": 2}
    async with Cloud.running(config(clusters=[{"id": CLUSTER_ID, "nodePools": [pool]}])) as cloud:
        assert await cloud.phases() == dict.fromkeys((A, server_id("sim", 0), server_id("sim", 1)), "Active")
        node = (await cloud.http.get(NODES)).json()["items"][0]
        assert node["metadata"]["creationTimestamp"] == "2026-01-01 03:04:05.000000 +0000 UTC"


async def test_live_fields_are_changed_others_are_not() -> None:
    async with Cloud.running() as cloud:
        changed = await cloud.control("POST", "config", {"writesPerMinute": 3, "behaviour": {"jobSeconds": 7}})
        assert changed.json()["writesPerMinute"] == 3
        assert changed.json()["behaviour"]["rootJobType"] == "AddNodeToNodePool"
        for body, complaint in (
            ({"seed": "x"}, "seed: cannot be changed while running"),
            ({"writesPerMinute": "many"}, "writesPerMinute: "),
            ([], "must be a JSON object"),
        ):
            refused = await cloud.control("POST", "config", body)
            assert refused.status_code == 400
            assert complaint in refused.json()["error"]
        now = (await cloud.control("GET", "config")).json()
        assert (now["writesPerMinute"], now["behaviour"]["jobSeconds"]) == (3, 7)
        job = await cloud.added([A])
        cloud.clock.tick(7)
        assert await cloud.phase_of_job(job) == "Success"


async def test_summary_ledger_servers_and_jobs_are_shown() -> None:
    async with Cloud.running() as cloud:
        job = await cloud.added([A, B])
        assert (await cloud.control("GET", "summary")).json() == json.loads(
            json.dumps(cloud.simulator.summary().to_json())
        )
        await cloud.http.get(CLUSTER)
        shown = (await cloud.control("GET", "ledger?since=0&route=addNodes&writes=true")).json()["entries"]
        assert [(entry["seq"], entry["job_id"], entry["accepted"]) for entry in shown] == [(1, job, [A, B])]
        assert (await cloud.control("GET", "servers")).json()["accepted"] == {A: 1, B: 1}
        jobs = (await cloud.control("GET", "jobs")).json()["jobs"]
        assert jobs[0] | {"created": 0} == {
            "jobID": job, "type": "AddNodeToNodePool", "clusterID": CLUSTER_ID, "nodePoolID": NODE_POOL_ID,
            "phase": "Initializing", "reason": "", "servers": [A, B], "created": 0, "ended": None,
        }  # fmt: skip


async def test_control_calls_are_not_in_the_ledger_and_need_no_credentials() -> None:
    async with Cloud.running() as cloud, httpx.AsyncClient(base_url=cloud.simulator.url, trust_env=False) as nobody:
        assert (await nobody.get("/_sim/summary")).json()["calls"] == 0
        missing = await nobody.get("/_sim/nothing")
        assert missing.status_code == 404
        assert "GET /_sim/summary" in missing.json()["error"]
        assert (await nobody.post("/_sim/faults", content=b"{")).status_code == 400


async def test_nodes_come_change_and_go() -> None:
    async with Cloud.running() as cloud:
        node = {"clusterID": CLUSTER_ID, "nodePoolID": NODE_POOL_ID, "serverID": A, "phase": "Active", "ageSeconds": 60}
        assert (await cloud.control("POST", "nodes", {"add": [node]})).json() == {
            "added": 1,
            "removed": 0,
            "altered": 0,
        }
        shown = (await cloud.http.get(NODES)).json()["items"][0]
        assert shown["metadata"]["creationTimestamp"] == "2026-01-02 03:03:05.000000 +0000 UTC"
        await cloud.control(
            "POST", "nodes", {"alter": [{"serverID": A, "phase": "Error", "nodePoolID": "az#flavor#os"}]}
        )
        shown = (await cloud.http.get(NODES)).json()["items"][0]
        assert shown["metadata"]["annotations"]["kubernetes.io/node-pool.id"] == "az#flavor#os"
        assert "ownerReferences" not in shown["metadata"]
        assert shown["status"]["phase"] == "Error"
        assert (await cloud.control("POST", "nodes", {"remove": [A, B]})).json()["removed"] == 1
        assert await cloud.phases() == {}


async def test_a_pool_claims_a_count_of_its_own_until_it_counts_again() -> None:
    async with Cloud.running() as cloud:

        async def current() -> object:
            return (await cloud.http.get(f"{CLUSTER}/nodepools/{NODE_POOL_ID}")).json()["status"]["currentNode"]

        await cloud.added([A])
        await cloud.control("POST", "pools", {"nodePoolID": NODE_POOL_ID, "currentNode": 9, "initialNodeCount": 5})
        assert await current() == 9
        await cloud.control("POST", "pools", {"nodePoolID": NODE_POOL_ID, "currentNode": -1})
        assert await current() == 1


@pytest.mark.parametrize(
    ("what", "body", "complaint"),
    [
        ("nodes", {"add": [{"clusterID": MISSING, "nodePoolID": "x", "serverID": A}]}, "add.clusterID: no cluster"),
        ("nodes", {"alter": [{"serverID": A}]}, "alter.serverID: no node shows"),
        ("nodes", {"remove": ["x"]}, "remove.0: "),
        ("pools", {"nodePoolID": MISSING}, "nodePoolID: no node pool"),
        ("clusters", {"clusterID": MISSING, "phase": "x"}, "clusterID: no cluster"),
        ("faults", {"faults": [{"name": "x"}]}, "faults.0: .*does nothing"),
        ("jobs", {"jobID": MISSING, "phase": "Failed"}, "open job .* not found"),
    ],
)
async def test_bad_control_input_is_named(what: str, body: object, complaint: str) -> None:
    async with Cloud.running() as cloud:
        answer = await cloud.control("POST", what, body)
        assert answer.status_code == 400
        assert re.search(complaint, answer.json()["error"])


def process(*arguments: str) -> list[str]:
    root = str(Path(cce_simulator.__file__).parents[1])
    code = f"import sys; sys.path.insert(0, {root!r}); from cce_simulator.__main__ import main; main()"
    return [sys.executable, "-c", code, *arguments]


@asynccontextmanager
async def started(*arguments: str, stderr: int | None = None) -> AsyncIterator[Process]:
    """The simulator; one that should have ended, and has not, does not outlive the block."""
    child = await asyncio.create_subprocess_exec(*process(*arguments), stdout=PIPE, stderr=stderr)
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
            await child.wait()


async def test_it_runs_by_itself_says_where_and_ends_on_sigterm(tmp_path: Path) -> None:
    file = tmp_path / "simulator.json"
    file.write_text(json.dumps({"tokens": [{"value": "t"}], "behaviour": {"jobSeconds": 1}}))
    async with started("--port", "0", "--config", str(file)) as child:
        assert child.stdout is not None
        line = (await asyncio.wait_for(child.stdout.readline(), 30)).decode()
        assert line.startswith("listening on http://127.0.0.1:")
        async with httpx.AsyncClient(base_url=line.split()[-1], trust_env=False) as http:
            assert (await http.get(CLUSTER, headers={"X-Auth-Token": "t"})).status_code == 200
            assert (await http.get("/_sim/summary")).json()["calls"] == 1
        child.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(child.wait(), 30) == 0


@pytest.mark.parametrize(("text", "complaint"), [("{", "is not JSON"), ('{"seed": 1}', "seed: ")])
async def test_a_bad_file_ends_it_with_code_2_and_the_reason(tmp_path: Path, text: str, complaint: str) -> None:
    file = tmp_path / "simulator.json"
    file.write_text(text)
    async with started("--config", str(file), stderr=PIPE) as child:
        _, errors = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 2
    assert complaint in errors.decode()


async def test_a_port_that_is_taken_ends_it_with_one_line() -> None:
    async with Cloud.running() as cloud:
        port = cloud.simulator.url.rpartition(":")[2]
        async with started("--port", port, stderr=PIPE) as child:
            _, errors = await asyncio.wait_for(child.communicate(), 30)
    assert child.returncode == 1
    assert errors.decode().startswith(f"Error: cannot listen on 127.0.0.1:{port}: ")
    assert errors.decode().count("\n") == 1
