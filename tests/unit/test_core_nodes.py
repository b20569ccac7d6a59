"""The compact table of a node listing, and the catalogue of what the cloud's errors mean."""

from datetime import UTC, datetime

import pytest

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.core.catalogue import CODES, About, explain, refusal
from nodepool_membership.core.observation import (
    ClusterReport,
    JobPhase,
    JobReport,
    Node,
    NodeTable,
    Observation,
    PoolReport,
)
from unit.core_builders import ELSEWHERE, NOW, POOL, SECOND, a_node, server, servers

A, B, C = servers(3)


def test_a_table_gives_back_what_was_put_in() -> None:
    nodes = [
        Node(A, "uid-a", POOL, "Active", datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC), "job-1"),
        Node(B, "uid-b", ELSEWHERE, "Installing", None, ""),
        Node(C, "uid-c", "", "Error", NOW, "job-2"),
    ]
    table = NodeTable(NOW, nodes)
    assert table.nodes([C, A, B, server(9)]) == {n.server_id: n for n in nodes}
    assert (len(table), table.begun) == (3, NOW)
    assert (A in table, server(9) in table) == (True, False)


def test_a_table_without_jobs_and_an_empty_one() -> None:
    assert NodeTable(NOW, [a_node(A)]).nodes([A])[A].job_id == ""
    empty = NodeTable(NOW, [])
    assert (len(empty), empty.nodes([A]), empty.present({A}), empty.active_in(POOL, [A])) == (0, {}, set(), set())


def test_presence_is_in_any_phase_and_pool_and_membership_is_not() -> None:
    table = NodeTable(NOW, [a_node(A), a_node(B, pool=ELSEWHERE), a_node(C, "Installing")])
    assert table.present({A, B, C, server(9)}) == {A, B, C}
    assert table.active_in(POOL, [A, B, C, server(9)]) == {A}
    assert table.active_in(ELSEWHERE, [A, B, C]) == {B}
    assert table.active_in("no-such-pool", [A, B, C]) == set()


@pytest.mark.parametrize("first", ["Deleting", "Active"])
def test_of_two_nodes_of_one_server_the_one_that_stays_counts(first: str) -> None:
    phases = [first, "Active" if first == "Deleting" else "Deleting"]
    rows = [Node(A, f"uid-{phase}", POOL, phase, NOW, f"job-{phase}") for phase in phases]
    table = NodeTable(NOW, [*rows, a_node(B)])
    assert table.nodes([A, B])[A] == Node(A, "uid-Active", POOL, "Active", NOW, "job-Active")
    assert (len(table), table.active_in(POOL, [A, B])) == (2, {A, B})


def test_nodes_without_a_server_are_left_out() -> None:
    table = NodeTable(NOW, [a_node(""), a_node(A)])
    assert (len(table), "" in table, A in table) == (1, False, True)


def test_a_large_table_keeps_every_row_apart() -> None:
    ids = servers(1_000)
    phases = ["Active", "Installing", "Error"]
    table = NodeTable(NOW, [a_node(i, phases[n % 3], f"pool-{n % 7}") for n, i in enumerate(ids)])
    assert {n.phase for n in table.nodes(ids[::3]).values()} == {"Active"}
    assert table.nodes([ids[500]])[ids[500]].uid == f"node-of-{ids[500]}"
    assert len(table.active_in("pool-0", ids)) == sum(1 for n in range(1_000) if n % 21 == 0)


def test_absence_is_proved_only_by_a_listing_begun_after_the_read() -> None:
    cluster = ClusterReport("Available")

    def proves(table: NodeTable | None, claimed: int | None = 0) -> bool:
        seen = Observation(NOW, listing=table, pool=PoolReport("", claimed), cluster=cluster)
        return seen.proves_absence(POOL)

    assert not proves(None)
    assert not proves(NodeTable(NOW - SECOND, []))
    assert proves(NodeTable(NOW, []))
    assert proves(NodeTable(NOW, []), None)
    assert not proves(NodeTable(NOW, []), 1)
    assert proves(NodeTable(NOW, [a_node(A), a_node(B, "Deleting"), a_node(C, "Active", "elsewhere")]), 1)
    assert not Observation(NOW, listing=NodeTable(NOW, [])).proves_absence(POOL)


@pytest.mark.parametrize(
    ("phase", "over"),
    [
        (JobPhase.RUNNING, False),
        (JobPhase.UNRECOGNISED, False),
        (JobPhase.SUCCEEDED, True),
        (JobPhase.FAILED, True),
        (JobPhase.LOST, True),
    ],
)
def test_only_a_job_that_ended_or_is_unknown_to_the_cloud_is_over(phase: JobPhase, over: bool) -> None:
    assert JobReport("job", phase).is_over is over


@pytest.mark.parametrize(
    ("status", "code", "about", "reason"),
    [
        (400, "CCE.01400001", About.SERVER, FailureReason.REFUSED),
        (400, "CCE.01400007", About.QUOTA, FailureReason.QUOTA_EXCEEDED),
        (400, "CCE.01400014", About.QUOTA, FailureReason.QUOTA_EXCEEDED),
        (400, "CCE.01400018", About.POOL, FailureReason.POOL_NOT_READY),
        (403, "CCE.01403001", About.ACCOUNT, FailureReason.FORBIDDEN),
        (429, "CCE.01429004", About.ACCOUNT, FailureReason.INSUFFICIENT_BALANCE),
        (404, "CCE.01404001", About.POOL, FailureReason.NOT_FOUND),
        (401, "APIGW.0301", About.ACCOUNT, FailureReason.UNAUTHENTICATED),
        (403, "APIGW.0302", About.ACCOUNT, FailureReason.FORBIDDEN),
        (404, "APIGW.0101", About.POOL, FailureReason.NOT_FOUND),
        (400, "CCE.09999999", About.SERVER, FailureReason.REFUSED),
        (400, "", About.SERVER, FailureReason.REFUSED),
    ],
)
def test_a_refusal_is_looked_up_by_code_then_by_status(
    status: int, code: str, about: About, reason: FailureReason
) -> None:
    entry = refusal(status, code)
    assert (entry.about, entry.reason) == (about, reason)


def test_a_known_code_outranks_the_http_status() -> None:
    assert refusal(404, "CCE.01400007").about is About.QUOTA


def test_only_refusals_about_servers_are_blamed_on_servers() -> None:
    blamed = {code for code, entry in CODES.items() if entry.about is About.SERVER}
    assert blamed == {"CCE.01400001", "CCE.02400001", "CCE.03400001"}
    assert all((e.about is About.SERVER) == (e.reason is FailureReason.REFUSED) for e in CODES.values())
    assert all(len(entry.remedy) > 20 for entry in CODES.values())


@pytest.mark.parametrize(
    "text", ["Disk is PARTITIONed", "selector can not match any evs volume: x", "node: no available data disk"]
)
def test_known_job_texts_get_a_name_and_a_remedy(text: str) -> None:
    reason, message = explain(text)
    assert reason is FailureReason.DISK_PARTITIONED
    assert message.startswith(f"{text}; detach or wipe")


def test_other_job_texts_are_kept_plain_and_short() -> None:
    reason, message = explain(f"install of {A} failed\n" + "x" * 5_000)
    assert reason is FailureReason.INSTALL_FAILED
    assert message.startswith("install of <id> failed xxx")
    assert message.endswith("; look at the node in the CCE console, remove it there")
    assert len(message) < 1024
