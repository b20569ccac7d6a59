"""What the client reads in a job, a node, a pool and a cluster, in all the spellings of the wire.

Not for: listings as a whole (test_cce_listing), or errors (test_cce_errors).
"""

import contextlib
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.cce.errors import CloudError, NotFoundError, UnavailableError
from nodepool_membership.cce.wire import MAX_EXPLAINED, parse_time
from nodepool_membership.core.observed.observation import ClusterReport, JobPhase, Node, PoolReport
from scripted_cloud import CLUSTER, GONE, HTML, JOB, POOL, PROJECT, SERVERS, always, client

# Jobs.


def job(phase: object, reason: object = None, subs: object = None, **spec: object) -> dict[str, object]:
    document: dict[str, object] = {"spec": {**spec, "subJobs": subs}, "status": {"phase": phase}}
    if reason is not None:
        document["status"] = {"phase": phase, "reason": reason}
    return document


@pytest.mark.parametrize(
    ("phase", "seen", "over"),
    [
        ("Initializing", JobPhase.RUNNING, False),
        ("Running", JobPhase.RUNNING, False),
        ("Success", JobPhase.SUCCEEDED, True),
        ("Failed", JobPhase.FAILED, True),
        ("Paused", JobPhase.UNRECOGNISED, False),
        ("success", JobPhase.UNRECOGNISED, False),
        ("", JobPhase.UNRECOGNISED, False),
        (None, JobPhase.UNRECOGNISED, False),
    ],
)
async def test_phases_of_a_job(phase: str | None, seen: JobPhase, *, over: bool) -> None:
    wire = always(200, job(phase, "why"))
    report = await client(wire).get_job(JOB)
    assert (report.job_id, report.phase, report.is_over, report.reason) == (JOB, seen, over, "why")
    assert wire.seen[0].url.path == f"/api/v3/projects/{PROJECT}/jobs/{JOB}"


@pytest.mark.parametrize(
    "document",
    [{}, {"status": None}, {"spec": None, "status": {}}, {"metadata": None, "spec": {"subJobs": None}}],
)
async def test_a_job_that_says_nothing_is_not_over(document: object) -> None:
    report = await client(always(200, document)).get_job(JOB)
    assert (report.phase, report.is_over, report.reason, report.explanations) == (JobPhase.UNRECOGNISED, False, "", {})


async def test_a_job_that_the_cloud_does_not_know_is_lost_not_failed() -> None:
    for body in (GONE, {"error_code": "CCE_CM.0003", "error_msg": "not found"}):
        report = await client(always(404, body)).get_job(JOB)
        assert (report.phase, report.is_over) == (JobPhase.LOST, True)


@pytest.mark.parametrize(
    ("body", "kind"),
    [({"error_code": "APIGW.0101"}, NotFoundError), (HTML, UnavailableError), (None, UnavailableError)],
)
async def test_a_404_that_is_not_ccs_own_says_nothing_of_the_job(body: object, kind: type[CloudError]) -> None:
    """A proxy's page, or the gateway that does not know the address."""
    cloud = client(always(404, body))
    for look in (cloud.get_job(JOB), cloud.get_node(CLUSTER, "n")):
        with pytest.raises(CloudError) as caught:
            await look
        assert type(caught.value) is kind


async def test_failed_sub_jobs_explain_their_servers_at_any_depth_in_lower_case() -> None:
    upper, node = SERVERS[0].upper(), "DEADBEEF-0000-0000-0000-000000000000"
    tree = job("Failed", "root", [
        job("Success", None, [job("Failed", "deep", [job("Failed", "deeper", None, resourceID=node)])]),
        job("Failed", "of the server", None, extendParam={"serverID": upper, "n": 1}, resourceID=""),
        job("Running", "not failed", None, resourceID="running"),
        job("Failed", None, None, resourceID="silent"),
        {"status": None},
    ])  # fmt: skip
    report = await client(always(200, tree)).get_job(JOB)
    assert report.reason == "root"
    assert report.explanations == {SERVERS[0]: "of the server", node.lower(): "deeper"}


async def test_of_what_a_job_says_no_more_is_kept_than_two_hundred_servers_give_reason_for() -> None:
    """It is kept while the job runs, of each call that is under way."""
    tree = job("Failed", "root", [job("Failed", "x" * 1000, None, resourceID=f"node-{n}") for n in range(1500)])
    told = await client(always(200, tree)).get_job(JOB)
    assert sum(map(len, told.explanations.values())) == MAX_EXPLAINED
    assert told.explanations["node-0"] == "x" * 1000
    assert "node-66" not in told.explanations


async def test_an_older_deployment_puts_the_text_into_message() -> None:
    tree = {"status": {"phase": "Failed", "message": "m"}, "spec": {"subJobs": [
        {"status": {"phase": "Failed", "reason": "", "message": "s"}, "spec": {"resourceID": "n"}},
    ]}}  # fmt: skip
    report = await client(always(200, tree)).get_job(JOB)
    assert (report.reason, report.explanations) == ("m", {"n": "s"})


@pytest.mark.parametrize(
    "body", ["", HTML, "[]", "null", '{"status": 7}', '{"status": {"phase": []}}', '{"spec": {"subJobs": {}}}']
)
async def test_a_job_that_cannot_be_read_is_no_news(body: str) -> None:
    with pytest.raises(UnavailableError, match="cannot be read"):
        await client(always(200, body)).get_job(JOB)


# Pool, cluster, one node.


async def test_pool_and_cluster() -> None:
    cloud = client(always(200, {"status": {"phase": "Synchronizing", "currentNode": 3}}))
    assert await cloud.get_node_pool(CLUSTER, POOL) == PoolReport("Synchronizing", 3)
    assert await cloud.get_cluster(CLUSTER) == ClusterReport("Synchronizing")
    cloud = client(always(200, {"status": {"phase": None, "currentNode": None}}))
    assert await cloud.get_node_pool(CLUSTER, POOL) == PoolReport("", None)
    assert await cloud.get_cluster(CLUSTER) == ClusterReport("")


@pytest.mark.parametrize("body", [{}, {"status": None}, [], HTML])
async def test_a_pool_or_cluster_without_status_is_not_usable(body: object) -> None:
    cloud = client(always(200, body))
    with pytest.raises(UnavailableError):
        await cloud.get_node_pool(CLUSTER, POOL)
    with pytest.raises(UnavailableError):
        await cloud.get_cluster(CLUSTER)


async def test_one_node() -> None:
    wire = always(200, {"metadata": {"uid": "N"}, "status": {"serverId": "S", "phase": "Active"}})
    assert await client(wire).get_node(CLUSTER, "N") == Node("s", "n", "", "Active")
    assert wire.seen[0].url.path.endswith(f"/clusters/{CLUSTER}/nodes/N")
    assert await client(always(404, GONE)).get_node(CLUSTER, "N") is None


# Node documents.

UID = "0000AAAA-0000-0000-0000-00000000000F"


async def read(document: object) -> Node:
    """The node that a document describes; read the same way in a listing."""
    cloud = client(always(200, document))
    found = await cloud.get_node(CLUSTER, "n")
    assert found is not None
    if found.server_id:
        table = await client(always(200, {"items": [document]})).list_nodes(CLUSTER)
        assert table.nodes([found.server_id]) == {found.server_id: found}
    return found


async def test_a_node_with_all_that_is_read_of_it() -> None:
    document = {
        "kind": "Node", "apiVersion": "v3", "spec": {"flavor": "c7", "extendParam": {"maxPods": 110}},
        "metadata": {
            "name": "prod-1", "uid": UID, "creationTimestamp": "2026-01-02 03:04:05.1234567 +0000 UTC",
            "annotations": {"kubernetes.io/node-pool.id": POOL.upper(), "odd": 1, "odder": {"a": None}},
            "ownerReferences": {"nodepoolName": "p", "nodepoolID": POOL, "hyperNodeID": 7},
        },
        "status": {"phase": "Installing", "serverId": SERVERS[0].upper(), "jobID": JOB.upper(), "deleteStatus": {}},
    }  # fmt: skip
    created = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert await read(document) == Node(SERVERS[0], UID.lower(), POOL, "Installing", created, JOB)


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"metadata": None, "status": None},
        {"metadata": {"uid": None, "annotations": None, "ownerReferences": None, "creationTimestamp": None}},
        {"status": {"phase": None, "serverId": None, "jobID": None}},
    ],
)
async def test_what_is_null_is_absent(document: object) -> None:
    assert await read(document) == Node("", "", "", "")
    listed = {"items": [document, {"status": {"serverId": "s"}}], "pageInfo": None}
    assert len(await client(always(200, listed)).list_nodes(CLUSTER)) == 1


async def test_what_is_not_one_word_is_no_id() -> None:
    document = {"metadata": {"uid": "two\nlines"}, "status": {"serverId": "s", "jobID": " "}}
    assert await read(document) == Node("s", "", "", "")
    assert await read({"metadata": {"uid": "n"}, "status": {"serverId": "two words"}}) == Node("", "n", "", "")


@pytest.mark.parametrize(
    ("annotation", "owner", "pool"),
    [
        (POOL, None, POOL),
        (POOL, {"nodepoolID": "another"}, POOL),
        (None, {"nodepoolID": POOL.upper()}, POOL),
        ("", {"nodepoolID": POOL}, POOL),
        (None, [{"nodepoolID": POOL}], ""),
        (None, [], ""),
        (None, "text", ""),
        ("DefaultPool", None, ""),
        ("DefaultPool", {"nodepoolID": "DefaultPool"}, ""),
        (None, {"nodepoolID": "DefaultPool"}, ""),
        ("cn-north-4a#c7.2xlarge.4#EulerOS 2.9", None, ""),
        ("cn-north-4a##", None, ""),
        (None, None, ""),
    ],
)
async def test_the_pool_of_a_node(annotation: str | None, owner: object, pool: str) -> None:
    annotations = {"kubernetes.io/node-pool.id": annotation}
    document = {"metadata": {"annotations": annotations, "ownerReferences": owner}, "status": {"serverId": "s"}}
    assert (await read(document)).pool_id == pool


@pytest.mark.parametrize("phase", ["Build", "Active", "Deleting", "Installed", "ShutDown", "SomethingNew", ""])
async def test_phases_of_nodes_are_kept_as_they_are(phase: str) -> None:
    assert (await read({"status": {"serverId": "s", "phase": phase}})).phase == phase


SECOND = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize("digits", range(10))
@pytest.mark.parametrize(
    "form",
    [
        "2026-01-02 03:04:05{} +0000 UTC",
        "2026-01-02 11:04:05{} +0800 CST",
        "2026-01-02 11:04:05{} +0800 +08",
        "2026-01-01 21:34:05{} -0530 -0530",
        "2026-01-02 03:04:05{} +0000 UTC m=+12.345",
        "2026-01-02T03:04:05{}Z",
        "2026-01-02t03:04:05{}z",
        "2026-01-02T11:04:05{}+08:00",
        "2026-01-01T21:34:05{}-05:30",
        "2026-01-02T03:04:05{}",
        " 2026-01-02 03:04:05{} ",
    ],
)
def test_times_of_go_and_of_rfc_3339(form: str, digits: int) -> None:
    fraction = f".{'123456789'[:digits]}" if digits else ""
    assert parse_time(form.format(fraction)) == SECOND


@pytest.mark.parametrize(
    "text",
    ["", "now", "2026-01-02", "2026-13-02T03:04:05Z", "2026-02-30 03:04:05 +0000 UTC", "2026-01-02T25:00:00Z",
     "2026-01-02T03:04:05+99:00", "0001-01-01 00:00:00 +0800 CST", "9999-12-31 23:59:59 -0800 PST",
     "2026-01-02T03:04:05Zulu", "x2026-01-02T03:04:05Z", "٢٠٢٦-01-02T03:04:05Z"],
)  # fmt: skip
async def test_a_time_that_cannot_be_read_is_none_and_costs_nothing_else(text: str) -> None:
    assert parse_time(text) is None
    node = await read({"metadata": {"creationTimestamp": text}, "status": {"serverId": "s"}})
    assert node == Node("s", "", "", "")


@given(st.text() | st.from_regex(r"\A\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\.\d+)?( ?[+-]\d{4})?( [A-Z]+)?\Z"))
def test_no_text_breaks_the_reading_of_times(text: str) -> None:
    moment = parse_time(text)
    assert moment is None or (moment.tzinfo is UTC and moment.microsecond == 0)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["metadata", "status", "spec", "items", "pageInfo", "subJobs", "phase", "serverId", "uid",
                         "annotations", "nextMarker", "extendParam", "serverID", "resourceID", "currentNode"]),
        inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(json_values)
async def test_an_answer_is_read_or_is_unavailable_and_nothing_else(value: object) -> None:
    cloud = client(always(200, json.dumps(value)))
    for look in (
        cloud.get_job(JOB),
        cloud.get_node(CLUSTER, "n"),
        cloud.list_nodes(CLUSTER),
        cloud.get_node_pool(CLUSTER, POOL),
        cloud.get_cluster(CLUSTER),
    ):
        with contextlib.suppress(UnavailableError):
            await look
