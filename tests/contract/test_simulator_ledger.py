"""The ledger's arithmetic: what counts as accepted, as a double add, as over.

Not for: the control API that shows it (test_simulator_control).
"""

from dataclasses import replace

import pytest

from cce_simulator import FaultRule, throttled
from cce_simulator.ledger import Entry, Ledger
from simulator_calls import ADD, CLUSTER, NODES, Cloud, config, servers

A, B, C = servers(3)


ADD_CALL = Entry(
    seq=1,
    time=0.0,
    method="POST",
    path=ADD,
    route="addNodes",
    access_key="k",
    status=200,
    error_code=None,
    request_id="r",
    response_bytes=10,
)


def test_sums_of_adds_and_removes() -> None:
    ledger = Ledger(keep_reads=True)
    ledger.record(replace(ADD_CALL, seq=1, time=0, server_ids=(A, B), accepted=(A, B), job_id="j1"))
    ledger.record(replace(ADD_CALL, seq=2, time=1, server_ids=(A, B, C), status=400, error_code="CCE.01400001"))
    ledger.record(replace(ADD_CALL, seq=3, time=2, server_ids=(A,), accepted=(A,), doubled=(A,), status=0))
    ledger.record(replace(ADD_CALL, seq=4, time=3, route="removeNodes", method="PUT", removed=(A, B)))
    ledger.record(replace(ADD_CALL, seq=5, time=4, route="getCluster", method="GET"))
    summary = ledger.summary()
    assert (summary.calls, summary.reads) == (5, 1)
    assert (summary.add_calls, summary.accepted_adds, summary.largest_add) == (3, 2, 3)
    assert (summary.servers_accepted, summary.accepted_more_than_once) == (2, {A: 2})
    assert (summary.double_adds, summary.double_added) == (1, (A,))
    assert (summary.remove_calls, summary.accepted_removes, summary.servers_removed) == (1, 1, 2)
    assert summary.calls_per_status == {"200": 3, "400": 1, "0": 1}
    assert summary.bytes_per_route == {"addNodes": 30, "removeNodes": 10, "getCluster": 10}


@pytest.mark.parametrize(
    ("times", "peak"),
    [([0.0], 1), ([0, 59.9], 2), ([0, 60], 1), ([0, 30, 60, 90], 2), ([90, 0, 60, 30, 59], 3)],
)
def test_the_peak_of_writes_is_taken_over_any_sixty_seconds(times: list[float], peak: int) -> None:
    ledger = Ledger(keep_reads=True)
    for seq, time in enumerate(times):
        ledger.record(replace(ADD_CALL, seq=seq, time=time))
        ledger.record(replace(ADD_CALL, seq=seq, time=time, method="GET"))
    assert ledger.summary().peak_writes_per_minute == {"k": peak}


async def test_reads_are_kept_or_only_counted() -> None:
    async with Cloud.running() as cloud:
        await cloud.http.get(CLUSTER)
        assert [entry.route for entry in cloud.simulator.ledger.entries] == ["getCluster"]
        cloud.simulator.configure({"ledgerReads": "counts"})
        page = await cloud.http.get(NODES)
        await cloud.added([A])
        assert [entry.route for entry in cloud.simulator.ledger.entries] == ["getCluster", "addNodes"]
        summary = cloud.simulator.summary()
        assert summary.calls_per_route == {"getCluster": 1, "listNodes": 1, "addNodes": 1}
        assert summary.bytes_per_route["listNodes"] == len(page.content)


async def test_an_entry_tells_the_whole_call() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(throttled(name="slow"))
        first, second = await cloud.add([A.upper()]), await cloud.add([A.upper()])
        refused, accepted = cloud.simulator.ledger.adds()
        assert (refused.seq, refused.status, refused.error_code, refused.fault) == (1, 429, "APIGW.0308", "slow")
        assert (refused.server_ids, refused.accepted, refused.job_id) == ((A.upper(),), (), None)
        assert (accepted.seq, accepted.status, accepted.error_code, accepted.fault) == (2, 200, None, None)
        assert (accepted.server_ids, accepted.accepted) == ((A.upper(),), (A,))
        assert accepted.job_id == second.json()["jobid"]
        assert (accepted.time, accepted.method, accepted.path) == (cloud.clock.now, "POST", ADD)
        assert accepted.access_key.startswith("token:")
        assert (refused.request_id, accepted.request_id) == (
            first.headers["X-Request-Id"],
            second.headers["X-Request-Id"],
        )


async def test_a_second_add_is_double_while_the_first_is_not_over() -> None:
    """Not over: job running and no node yet; node showing; node still to come although the job ended."""
    behaviour = {"repeatAdd": "accept", "nodeVisibility": "late", "nodeVisibleAfterSeconds": 200}
    for wait in (0, 150, 250):
        async with Cloud.running(config(behaviour=behaviour)) as cloud:
            await cloud.added([A])
            cloud.clock.tick(wait)
            await cloud.added([A])
            assert cloud.simulator.summary().double_adds == 1, wait


async def test_a_second_add_is_not_double_once_the_first_is_over() -> None:
    bad = {"servers": [A, B], "way": "neverAppears", "times": 1}
    async with Cloud.running(config(bad_servers=[bad], behaviour={"repeatAdd": "accept"})) as cloud:
        await cloud.added([A])
        cloud.clock.tick(100)
        await cloud.added([A])
        await cloud.added([C])
        cloud.clock.tick(100)
        cloud.simulator.world.drop_node(C)
        await cloud.added([C])
        summary = cloud.simulator.summary()
        assert (summary.double_adds, summary.accepted_more_than_once) == (0, {A: 2, C: 2})


async def test_a_never_ending_job_without_a_node_keeps_its_server_taken() -> None:
    bad = {"servers": [A], "way": "neverAppears", "times": 1}
    async with Cloud.running(config(bad_servers=[bad], behaviour={"repeatAdd": "accept"})) as cloud:
        cloud.simulator.faults.add(FaultRule(route="addNodes", job_never_ends=True, times=1))
        await cloud.added([A])
        cloud.clock.tick(10_000)
        await cloud.added([A])
        assert cloud.simulator.summary().double_adds == 1


async def test_entries_are_selected_by_sequence_route_and_kind() -> None:
    async with Cloud.running() as cloud:
        await cloud.http.get(CLUSTER)
        await cloud.added([A])
        await cloud.http.get(CLUSTER)
        ledger = cloud.simulator.ledger
        assert [entry.seq for entry in ledger.select(since=1)] == [2, 3]
        assert [entry.seq for entry in ledger.select(route="getCluster")] == [1, 3]
        assert [entry.seq for entry in ledger.select(writes=True)] == [2]
