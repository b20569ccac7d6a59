"""What the simulator says over HTTP, odd spellings and all: paths, headers, bodies, paging, limits.

Not for: what becomes of servers (test_simulator_world).
"""

import json
import re

import pytest

from cce_simulator import FaultRule
from cce_simulator.config import CLUSTER_ID, DEFAULT_POOL, NODE_POOL_ID
from cce_simulator.documents import go_time
from simulator_calls import ADD, CLUSTER, NODES, PROJECT, REMOVE, TOKEN, Cloud, config, servers

A, B = servers(2)
GO_TIME = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6,9} \+0000 UTC")


def populated(count: int) -> list[dict[str, object]]:
    return [{"id": CLUSTER_ID, "nodePools": [{"id": NODE_POOL_ID, "serverCount": count}]}]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"{NODES}/"),
        ("POST", f"{ADD}/"),
        ("GET", ADD),
        ("POST", ADD.replace("nodepools", "nodepool")),
        ("GET", f"{PROJECT}/jobs/"),
        ("GET", "/"),
        ("PATCH", CLUSTER),
    ],
)
async def test_an_unknown_path_or_a_trailing_slash_is_no_api(method: str, path: str) -> None:
    async with Cloud.running() as cloud:
        answer = await cloud.http.request(method, path)
        assert (answer.status_code, answer.json()["error_code"]) == (404, "APIGW.0101")
        assert answer.json()["request_id"] == answer.headers["X-Request-Id"]
        assert cloud.simulator.ledger.entries[-1].route == "unknown"


async def test_every_answer_carries_the_gateways_headers_and_its_own_request_id() -> None:
    async with Cloud.running() as cloud:
        answers = [await cloud.http.get(CLUSTER) for _ in range(3)]
        assert {answer.headers["Server"] for answer in answers} == {"api-gateway"}
        assert len({answer.headers["X-Request-Id"] for answer in answers}) == 3
        assert answers[0].headers["Date"] == "Fri, 02 Jan 2026 03:04:05 GMT"


def entries(*ids: object) -> list[dict[str, object]]:
    return [{"serverID": server} for server in ids]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"apiVersion": "v1"}, "apiVersion must be v3"),
        ({"kind": "Node"}, "kind must be List"),
        ({"nodeList": None}, "nodeList must hold 1 to 200 entries"),
        ({"nodeList": []}, "nodeList must hold 1 to 200 entries"),
        ({"nodeList": entries(*servers(201))}, "nodeList must hold 1 to 200 entries"),
        ({"nodeList": entries(A, "")}, "nodeList[1].serverID must not be empty"),
        ({"nodeList": [{"serverId": A}]}, "nodeList[0].serverID must not be empty"),
        ({"nodeList": [A]}, "nodeList[0].serverID must not be empty"),
    ],
)
async def test_an_add_is_checked(change: dict[str, object], complaint: str) -> None:
    body = {"apiVersion": "v3", "kind": "List", "nodeList": entries(A)} | change
    async with Cloud.running() as cloud:
        answer = await cloud.http.post(ADD, json=body)
        assert (answer.status_code, answer.json()["message"]) == (400, complaint)


@pytest.mark.parametrize("body", ["", "[]", '"x"', "{", "\xff"])
async def test_a_body_that_is_no_json_object_is_refused(body: str) -> None:
    async with Cloud.running() as cloud:
        answer = await cloud.http.post(
            ADD, content=body.encode("latin-1"), headers={"Content-Type": "application/json"}
        )
        assert (answer.status_code, answer.json()["errorCode"]) == (400, "CCE.01400001")


async def test_two_hundred_servers_are_taken_in_one_call() -> None:
    async with Cloud.running() as cloud:
        await cloud.added(servers(200))
        assert cloud.simulator.summary().largest_add == 200


async def test_the_content_type_counts_except_for_get() -> None:
    async with Cloud.running() as cloud:
        body = json.dumps({"apiVersion": "v3", "kind": "List", "nodeList": entries(A)})
        text = await cloud.http.post(ADD, content=body, headers={"Content-Type": "text/plain"})
        good = await cloud.http.post(ADD, content=body, headers={"Content-Type": "application/json;charset=utf-8"})
        get = await cloud.http.get(CLUSTER, headers={"Content-Type": "text/plain"})
        assert [text.status_code, good.status_code, get.status_code] == [400, 200, 200]


async def test_a_body_over_twelve_megabytes_is_turned_away() -> None:
    async with Cloud.running() as cloud:
        answer = await cloud.http.post(ADD, content=b" " * (12 * 1024 * 1024 + 1))
        assert (answer.status_code, answer.json()["error_code"]) == (413, "APIGW.0201")


@pytest.mark.parametrize(
    "change", [{"apiVersion": "v1"}, {"kind": "List"}, {"spec": {}}, {"spec": {"nodes": [{"uid": ""}]}}]
)
async def test_a_remove_is_checked(change: dict[str, object]) -> None:
    body = {"apiVersion": "v3", "kind": "RemoveNodesTask", "spec": {"nodes": [{"uid": "x"}]}} | change
    async with Cloud.running() as cloud:
        assert (await cloud.http.put(REMOVE, json=body)).status_code == 400


@pytest.mark.parametrize(
    ("style", "keys", "codes"),
    [
        (
            "full",
            {"kind", "apiVersion", "metadata", "status", "code", "errorCode", "errorMessage", "message", "reason"},
            ("CCE.01400001", "CCE_CM.0004"),
        ),
        (
            "older",
            {"kind", "apiVersion", "metadata", "status", "code", "errorCode", "errorMessage", "message", "reason"},
            ("E.CFE.4000201", "CCE_CM.0201"),
        ),
        ("documented", {"errorCode", "errorMessage"}, ("CCE.01400001", None)),
    ],
)
async def test_the_forms_of_an_error(style: str, keys: set[str], codes: tuple[str, str | None]) -> None:
    async with Cloud.running(config(behaviour={"errorBody": style})) as cloud:
        document = (await cloud.add([])).json()
        assert document.keys() - {"error_code", "error_msg"} == keys
        assert (document["errorCode"], document.get("error_code")) == codes


async def test_odd_spellings_are_kept() -> None:
    async with Cloud.running() as cloud:
        added = (await cloud.add([A])).json()
        assert list(added) == ["jobid"]
        node = (await cloud.http.get(NODES)).json()["items"][0]
        assert (node["status"]["serverId"], node["status"]["jobID"]) == (A, added["jobid"])
        assert isinstance(node["metadata"]["ownerReferences"], dict)
        assert GO_TIME.fullmatch(node["metadata"]["creationTimestamp"])
        cloud.clock.tick(100)
        removed = (await cloud.remove([node["metadata"]["uid"]])).json()
        assert removed["spec"] == {"nodes": [{"uid": node["metadata"]["uid"]}]}
        assert list(removed["status"]) == ["jobID"]
        pool = (await cloud.http.get(f"{CLUSTER}/nodepools/{NODE_POOL_ID}")).json()
        assert "jobId" in pool["status"]
        job = (await cloud.job(added["jobid"])).json()
        assert GO_TIME.fullmatch(job["metadata"]["updateTimestamp"])


def test_go_timestamps_have_six_to_nine_fraction_digits() -> None:
    assert go_time(1_767_323_045.25) == "2026-01-02 03:04:05.250000 +0000 UTC"
    assert go_time(1_767_323_045.25, 9) == "2026-01-02 03:04:05.250000789 +0000 UTC"


async def test_what_is_unset_is_absent_not_null() -> None:
    async with Cloud.running(config(clusters=populated(1))) as cloud:
        answers = [
            await cloud.http.get(NODES),
            await cloud.http.get(f"{CLUSTER}/nodepools"),
            await cloud.http.get(CLUSTER),
            await cloud.job(await cloud.added([A])),
        ]
        assert all("null" not in answer.text.replace('"null"', "") for answer in answers)
        assert "jobID" not in answers[0].json()["items"][0]["status"]
        assert "phase" not in answers[1].json()["items"][0]["status"]


async def test_a_node_document_is_about_three_kilobytes_and_the_same_in_list_and_get() -> None:
    async with Cloud.running(config(clusters=populated(1))) as cloud:
        listed = (await cloud.http.get(NODES)).json()["items"][0]
        got = await cloud.http.get(f"{NODES}/{listed['metadata']['uid']}")
        assert got.json() == listed
        assert 2000 < len(got.content) < 4000


async def test_the_default_pool_is_listed_on_demand_only() -> None:
    async with Cloud.running() as cloud:
        node = {"clusterID": CLUSTER_ID, "nodePoolID": DEFAULT_POOL, "serverID": A}
        await cloud.control("POST", "nodes", {"add": [node]})
        without = (await cloud.http.get(f"{CLUSTER}/nodepools")).json()["items"]
        listed = (await cloud.http.get(f"{CLUSTER}/nodepools", params={"showDefaultNodePool": "true"})).json()["items"]
        assert [item["metadata"]["uid"] for item in without] == [NODE_POOL_ID]
        assert listed[1]["metadata"]["name"] == DEFAULT_POOL
        assert listed[1]["status"]["currentNode"] == 1


async def uids(cloud: Cloud, limit: int) -> tuple[list[str], list[dict[str, object]]]:
    """Node uids of all pages, and the pageInfo of each."""
    found: list[str] = []
    pages = []
    marker = None
    while True:
        query = {"limit": str(limit)} | ({} if marker is None else {"marker": marker})
        document = (await cloud.http.get(NODES, params=query)).json()
        found += [item["metadata"]["uid"] for item in document["items"]]
        pages.append(document["pageInfo"])
        marker = document["pageInfo"].get("nextMarker")
        if marker is None:
            return found, pages


@pytest.mark.parametrize(("count", "sizes"), [(0, [0]), (3, [3]), (4, [4]), (5, [4, 1]), (8, [4, 4])])
async def test_pages_are_complete_and_the_last_one_has_no_marker_even_when_full(count: int, sizes: list[int]) -> None:
    async with Cloud.running(config(clusters=populated(count))) as cloud:
        found, pages = await uids(cloud, 4)
        assert len(set(found)) == len(found) == count
        assert [page["currentCount"] for page in pages] == sizes
        assert ["nextMarker" in page for page in pages] == [True] * (len(sizes) - 1) + [False]


async def test_a_marker_holds_although_its_node_is_gone() -> None:
    async with Cloud.running(config(clusters=populated(6))) as cloud:
        first = (await cloud.http.get(NODES, params={"limit": "3"})).json()
        cloud.simulator.world.drop_node(first["items"][2]["status"]["serverId"])
        rest = (await cloud.http.get(NODES, params={"marker": first["pageInfo"]["nextMarker"]})).json()
        assert len(rest["items"]) == 3


async def test_deployments_without_page_info() -> None:
    async with Cloud.running(config(clusters=populated(5), behaviour={"paging": "markerWithoutPageInfo"})) as cloud:
        first = (await cloud.http.get(NODES, params={"limit": "3"})).json()
        second = (await cloud.http.get(NODES, params={"marker": first["items"][2]["metadata"]["uid"]})).json()
        assert (len(first["items"]), len(second["items"])) == (3, 2)
        assert "pageInfo" not in first
        cloud.simulator.configure({"behaviour": {"paging": "none"}})
        ignored = await cloud.http.get(NODES, params={"limit": "3", "marker": first["items"][2]["metadata"]["uid"]})
        assert ignored.json()["items"] == first["items"]
        assert "pageInfo" not in ignored.json()


async def test_two_thousand_nodes_fit_a_page_and_more_are_refused() -> None:
    async with Cloud.running(config(clusters=populated(2001))) as cloud:
        page = (await cloud.http.get(NODES)).json()
        assert (len(page["items"]), "nextMarker" in page["pageInfo"]) == (2000, True)
        for limit in ("2001", "0", "-1", "many", ""):
            assert (await cloud.http.get(NODES, params={"limit": limit})).status_code == 400, limit


async def test_the_write_limit_counts_refused_calls_and_leaves_reads_alone() -> None:
    async with Cloud.running(config(writes_per_minute=10)) as cloud:
        for index in range(10):
            assert (await cloud.add([])).status_code == 400, index
        throttled = await cloud.add([A])
        assert (throttled.status_code, throttled.json()["error_code"]) == (429, "APIGW.0308")
        assert throttled.json()["error_msg"].endswith("policy user over ratelimit,limit:10,time:1 minute")
        assert (await cloud.http.get(CLUSTER)).status_code == 200
        cloud.clock.tick(30)
        assert (await cloud.add([A])).status_code == 429
        cloud.clock.tick(30)
        for index in range(9):
            assert (await cloud.add([])).status_code == 400, index
        assert (await cloud.add([A])).status_code == 429
        cloud.clock.tick(60)
        await cloud.added([A])
        assert list(cloud.simulator.summary().peak_writes_per_minute.values()) == [12]


async def test_limits_are_off_at_zero_and_reads_have_their_own() -> None:
    async with Cloud.running(config(reads_per_second=3)) as cloud:
        assert [(await cloud.add([])).status_code for _ in range(12)] == [400] * 12
        assert [(await cloud.http.get(CLUSTER)).status_code for _ in range(4)] == [200, 200, 200, 429]
        cloud.clock.tick(1)
        assert (await cloud.http.get(CLUSTER)).status_code == 200


async def test_a_call_without_a_socket_is_answered_as_one_with() -> None:
    async with Cloud.running(config(clusters=populated(3))) as cloud:
        path = f"{NODES}?limit=2"
        over_http = await cloud.http.get(path)
        direct = await cloud.simulator.call("GET", path, {"X-Auth-Token": TOKEN}, b"")
        assert direct is not None
        assert (direct.status, direct.body, direct.cut) == (over_http.status_code, over_http.content, False)
        assert direct.headers["Content-Type"] == over_http.headers["Content-Type"]
        first, second = cloud.simulator.ledger.entries
        assert (first.path, first.route, first.access_key) == (second.path, second.route, second.access_key)
        cloud.simulator.faults.add(FaultRule(times=1, drop=True), FaultRule(times=1, cut_body=True))
        assert await cloud.simulator.call("GET", path, {"X-Auth-Token": TOKEN}, b"") is None
        cut = await cloud.simulator.call("GET", path, {"X-Auth-Token": TOKEN}, b"")
        assert cut is not None
        assert cut.cut
        large = await cloud.simulator.call("POST", ADD, {"X-Auth-Token": TOKEN}, None)
        assert large is not None
        assert large.status == 413
