"""Each injected fault does what it says, hits the calls it should, and shows in the ledger.

Not for: what the operator makes of them.
"""

import asyncio
from email.utils import parsedate_to_datetime

import httpx
import pytest

from cce_simulator import Answer, ConfigError, FaultRule, Simulator, lost_answer, throttled
from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID
from simulator_calls import ADD, CLUSTER, NODES, TOKEN, Cloud, config, servers

A, B = servers(2)


@pytest.mark.parametrize("retry_after", [None, "7", "56.818", "Wed, 21 Oct 2026 07:28:00 GMT"])
async def test_throttled_with_each_form_of_retry_after(retry_after: str | None) -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(throttled(retry_after=retry_after))
        refused = await cloud.add([A])
        assert (refused.status_code, refused.json()["error_code"]) == (429, "APIGW.0308")
        assert refused.headers.get("Retry-After") == retry_after
        await cloud.added([A])


@pytest.mark.parametrize(
    ("answer", "status", "text"),
    [
        ({"status": 500}, 500, ""),
        ({"status": 502, "html": True}, 502, "<html>"),
        ({"status": 403, "errorCode": "CCE.01403009", "message": "state"}, 403, '"errorCode": "CCE.01403009"'),
        ({"status": 401, "errorCode": "APIGW.0307"}, 401, '"error_code": "APIGW.0307"'),
        ({"status": 200, "body": "{}"}, 200, "{}"),
        ({"status": 302, "headers": {"Location": "/elsewhere"}}, 302, ""),
    ],
)
async def test_an_answer_before_is_given_instead_of_handling_the_call(
    answer: dict[str, object], status: int, text: str
) -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule(route="addNodes", answer=Answer.from_json(answer)))
        got = await cloud.add([A])
        assert got.status_code == status
        assert text in got.text
        assert await cloud.phases() == {}
        assert cloud.simulator.ledger.adds()[0].accepted == ()


@pytest.mark.parametrize("status", [502, 504])
async def test_a_gateway_page_after_the_add_was_accepted(status: int) -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(lost_answer(status=status))
        got = await cloud.add([A])
        assert (got.status_code, got.headers["Content-Type"]) == (status, "text/html")
        assert await cloud.phases() == {A: "Installing"}
        entry = cloud.simulator.ledger.adds()[0]
        assert (entry.status, entry.accepted, entry.fault) == (status, (A,), "lost-answer")
        assert await cloud.phase_of_job(entry.job_id or "") == "Initializing"


@pytest.mark.parametrize(("when", "accepted"), [("before", ()), ("after", (A,))])
async def test_a_dropped_connection_before_or_after_acceptance(when: str, accepted: tuple[str, ...]) -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule.from_json({"drop": True, "when": when, "times": 1}))
        with pytest.raises(httpx.TransportError):
            await cloud.add([A])
        entry = cloud.simulator.ledger.adds()[0]
        assert (entry.status, entry.accepted) == (0, accepted)
        assert (await cloud.http.get(CLUSTER)).status_code == 200


async def test_a_body_cut_off() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule(route="listNodes", cut_body=True, times=1))
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            await cloud.http.get(NODES)
        assert await cloud.phases() == {}


async def test_a_call_held_up_on_its_way_is_judged_by_the_time_it_arrives() -> None:
    tokens = [{"value": TOKEN, "expiresAt": 1_767_323_045.0 + 60}]
    async with Cloud.running(config(tokens=tokens)) as cloud:
        cloud.simulator.faults.add(FaultRule(delay_seconds=61, times=1))
        assert (await cloud.add([A])).json()["error_code"] == "APIGW.0307"
        assert cloud.clock.slept == [61]


async def test_an_answer_held_up_is_for_a_call_that_was_handled_at_once() -> None:
    tokens = [{"value": TOKEN, "expiresAt": 1_767_323_045.0 + 60}]
    async with Cloud.running(config(tokens=tokens)) as cloud:
        cloud.simulator.faults.add(FaultRule(answer_delay_seconds=61, times=1))
        await cloud.added([A])
        assert cloud.clock.slept == [61]


async def test_a_call_whose_caller_gave_up_on_it_still_arrives() -> None:
    arrives, handled = asyncio.Event(), asyncio.Event()

    async def held_up(seconds: float) -> None:
        if seconds == 60:
            await arrives.wait()
        else:
            handled.set()

    rule = FaultRule(route="addNodes", delay_seconds=60, answer_delay_seconds=1)
    async with (
        Simulator(config(faults=[rule]), sleep=held_up) as simulator,
        httpx.AsyncClient(base_url=simulator.url, headers={"X-Auth-Token": TOKEN}, trust_env=False) as http,
    ):
        body = {"apiVersion": "v3", "kind": "List", "nodeList": [{"serverID": A}]}
        with pytest.raises(httpx.ReadTimeout):
            # Only the wait for the answer is short: the call has to be on its way by then.
            await http.post(ADD, json=body, timeout=httpx.Timeout(20, read=0.2))
        assert simulator.ledger.adds() == []
        arrives.set()
        async with asyncio.timeout(20):
            await handled.wait()
        assert simulator.ledger.adds()[0].accepted == (A,)


async def test_the_date_header_is_off_for_one_answer_or_for_the_whole_cloud() -> None:
    async with Cloud.running() as cloud:

        async def date() -> float:
            return parsedate_to_datetime((await cloud.http.get(CLUSTER)).headers["Date"]).timestamp()

        cloud.simulator.faults.add(FaultRule(date_skew_seconds=-600, times=1))
        assert await date() == cloud.clock.now - 600
        assert await date() == cloud.clock.now
        cloud.simulator.configure({"clockSkewSeconds": 1200})
        assert await date() == cloud.clock.now + 1200


async def test_a_job_ends_in_an_unknown_phase() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule(route="addNodes", job_phase="Paused", job_seconds=7))
        job = await cloud.added([A])
        cloud.clock.tick(7)
        assert await cloud.phase_of_job(job) == "Paused"
        assert await cloud.phases() == {A: "Active"}


async def test_a_job_never_ends_until_it_is_ended_by_hand() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule(route="addNodes", job_never_ends=True))
        job = await cloud.added([A])
        cloud.clock.tick(1_000_000)
        assert await cloud.phase_of_job(job) == "Running"
        assert await cloud.phases() == {A: "Active"}
        ended = await cloud.control("POST", "jobs", {"jobID": job, "phase": "Failed", "reason": "by hand"})
        assert ended.status_code == 200
        assert (await cloud.job(job)).json()["status"] == {"phase": "Failed", "reason": "by hand"}
        assert (await cloud.control("POST", "jobs", {"jobID": job, "phase": "Failed"})).status_code == 400


@pytest.mark.parametrize("phase", ["Abnormal", "Error", "Installing"])
async def test_all_nodes_of_an_add_end_in_a_phase(phase: str) -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule(route="addNodes", node_phase=phase))
        job = await cloud.added([A, B])
        cloud.clock.tick(1000)
        assert await cloud.phase_of_job(job) == "Success"
        assert await cloud.phases() == {A: phase, B: phase}


async def test_nodes_of_an_add_show_later_than_its_job_ends() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule(route="addNodes", visible_after_seconds=500))
        await cloud.added([A])
        cloud.clock.tick(499)
        assert await cloud.phases() == {}
        cloud.clock.tick(1)
        assert await cloud.phases() == {A: "Active"}


async def test_a_listing_hides_nodes_or_its_next_marker() -> None:
    async with Cloud.running() as cloud:
        await cloud.added([A, B])
        cloud.simulator.faults.add(FaultRule(route="listNodes", hide_servers=(A.upper(),), times=1))
        assert list(await cloud.phases()) == [B]
        cloud.simulator.faults.add(FaultRule(route="listNodes", hide_servers=("*",), times=1))
        assert await cloud.phases() == {}
        cloud.simulator.faults.add(FaultRule(route="listNodes", omit_next_marker=True, times=1))
        page = (await cloud.http.get(NODES, params={"limit": 1})).json()
        assert page["pageInfo"] == {"currentCount": 1}
        assert "nextMarker" in (await cloud.http.get(NODES, params={"limit": 1})).json()["pageInfo"]


@pytest.mark.parametrize(
    "match",
    [
        {"method": "POST"},
        {"route": "addNodes"},
        {"clusterID": CLUSTER_ID, "route": "addNodes"},
        {"nodePoolID": NODE_POOL_ID},
        {"serverID": A.upper()},
    ],
)
async def test_a_rule_hits_the_calls_it_matches(match: dict[str, object]) -> None:
    async with Cloud.running() as cloud:
        added = await cloud.control("POST", "faults", {**match, "name": "x", "answer": {"status": 500}})
        assert added.json() == {"added": 1}
        assert (await cloud.http.get(CLUSTER)).status_code == 200
        assert (await cloud.add([A, B])).status_code == 500
        assert cloud.simulator.faults.hits("x") == 1


@pytest.mark.parametrize(
    "match",
    [
        {"method": "PUT"},
        {"route": "getJob"},
        {"clusterID": NODE_POOL_ID},
        {"nodePoolID": CLUSTER_ID},
        {"serverID": "ab"},
        {"accessKey": "x"},
    ],
)
async def test_a_rule_leaves_other_calls_alone(match: dict[str, object]) -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.faults.add(FaultRule.from_json({**match, "name": "x", "answer": {"status": 500}}))
        await cloud.added([A, B])
        assert cloud.simulator.faults.hits("x") == 0


async def test_skip_and_times_count_matching_calls_and_the_first_rule_wins() -> None:
    def rule(name: str, status: int, **fields: int) -> FaultRule:
        return FaultRule.from_json({"name": name, "route": "getCluster", "answer": {"status": status}, **fields})

    async with Cloud.running(config(faults=[rule("a", 500, skip=1, times=2), rule("b", 503, times=2)])) as cloud:
        got = [(await cloud.http.get(CLUSTER)).status_code for _ in range(6)]
        assert got == [503, 500, 500, 503, 200, 200]


async def test_rules_are_listed_and_taken_away() -> None:
    async with Cloud.running() as cloud:
        drop = FaultRule(name="drop", drop=True)
        cloud.simulator.faults.add(drop, throttled())
        listed = (await cloud.control("GET", "faults")).json()["faults"]
        assert [(item["rule"]["name"], item["hits"]) for item in listed] == [("drop", 0), ("throttled", 0)]
        assert (await cloud.control("DELETE", "faults?name=drop")).json() == {"removed": 1}
        assert (await cloud.control("DELETE", "faults")).json() == {"removed": 1}
        await cloud.added([A])


@pytest.mark.parametrize(
    ("rule", "complaint"),
    [
        ({"route": "addNodes"}, "does nothing"),
        ({"drop": True, "answer": {"status": 500}}, "only one of answer and drop"),
        ({"answer": {"status": 500, "html": True, "body": ""}}, "answer: .*only one of errorCode, html and body"),
        ({"drop": True, "colour": 1}, "colour: unknown field"),
        ({"delaySeconds": -1}, "delaySeconds: .* got -1"),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused(rule: dict[str, object], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        FaultRule.from_json(rule)


async def test_an_unknown_rule_has_no_hits_to_tell() -> None:
    async with Cloud.running() as cloud:
        with pytest.raises(ConfigError, match="no fault rule named 'x'"):
            cloud.simulator.faults.hits("x")
