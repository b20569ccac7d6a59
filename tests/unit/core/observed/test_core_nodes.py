"""The compact table of a node listing."""

from datetime import UTC, datetime
from itertools import permutations

import pytest

from nodepool_membership.core.observed.observation import (
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


def test_pages_make_the_same_table_as_all_nodes_at_once() -> None:
    nodes = [a_node(A, "Installing"), a_node(B, "Deleting", ELSEWHERE), a_node(""), a_node(C)]
    again = [Node(B, "uid-again", POOL, "Active", NOW, "job-again"), Node(C, "uid-leaving", POOL, "Deleting")]
    more = [a_node(server(number)) for number in range(10, 20)]
    whole = NodeTable(NOW, [*nodes, *again, *more])
    paged = NodeTable(NOW)
    for page in (nodes[:1], nodes[1:], [], again, more):
        paged.extend(page)
    ids = [A, B, C, *(node.server_id for node in more)]
    assert paged.nodes(ids) == whole.nodes(ids)
    assert paged.nodes([B, C]) == {B: again[0], C: nodes[3]}
    assert paged.nodes([more[-1].server_id]) == {more[-1].server_id: more[-1]}
    assert (len(paged), paged.count_in(POOL)) == (len(whole), whole.count_in(POOL)) == (13, 14)


def test_nodes_without_a_server_are_left_out_but_counted() -> None:
    table = NodeTable(NOW, [a_node("", "Error"), a_node(A), a_node("", "Deleting"), a_node("", pool=ELSEWHERE)])
    assert (len(table), "" in table, A in table) == (1, False, True)
    assert (table.count_in(POOL), table.count_in(ELSEWHERE), table.count_in("none")) == (2, 1, 0)


def test_both_nodes_of_a_server_count_as_the_pool_counts_them() -> None:
    table = NodeTable(NOW, [Node(A, "uid-1", POOL, "Error"), Node(A, "uid-2", POOL, "Active")])
    assert (len(table), table.count_in(POOL)) == (1, 2)
    table = NodeTable(NOW, [Node(A, "uid-1", POOL, "Deleting"), Node(A, "uid-2", POOL, "Active")])
    assert (len(table), table.count_in(POOL)) == (1, 1)


ORDERS = list(permutations(range(3)))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("phases", "shown"),
    [
        (("Active", "Error", "Installing"), "Error"),
        (("Active", "Active", "Upgrading"), "Upgrading"),
        (("Active", "Deleting", "Abnormal"), "Abnormal"),
        (("Active", "Deleting", "Deleting"), "Active"),
    ],
)
def test_of_several_nodes_of_a_server_the_least_healthy_is_shown_whatever_their_order(
    order: tuple[int, ...], phases: tuple[str, ...], shown: str
) -> None:
    """Case 14. Safe for adds: it is there. Safe for removals: no uid that could be named, unless only one stays."""
    nodes = [Node(A, f"uid-{number}", POOL, phase) for number, phase in enumerate(phases)]
    table = NodeTable(NOW, [nodes[place] for place in order])
    node = table.nodes([A])[A]
    assert (node.phase, node.pool_id) == (shown, POOL)
    staying = [node for node in nodes if node.phase != "Deleting"]
    assert node.uid == (staying[0].uid if len(staying) == 1 else "")
    assert A in table
    assert table.active_in(POOL, [A]) == ({A} if shown == "Active" else set())
    assert table.is_complete_for(POOL, (len(staying),))


def test_a_node_on_two_pages_is_counted_once_so_that_the_one_left_out_shows() -> None:
    """Two pages repeat one node and lack another; the pool counts two."""
    table = NodeTable(NOW)
    table.extend([a_node(A)])
    table.extend([a_node(A)])
    table.close()
    assert table.count_in(POOL) == 1
    assert not table.is_complete_for(POOL, (2,))
    assert table.is_complete_for(POOL, (1,))


def test_a_page_that_shifted_proves_nothing_where_the_pool_does_not_count() -> None:
    assert NodeTable(NOW, [a_node(A), a_node(B)]).is_complete_for(POOL, ())
    assert not NodeTable(NOW, [a_node(A), a_node(A)]).is_complete_for(POOL, ())


@pytest.mark.parametrize(
    "other", [Node(A, "u", ELSEWHERE, "Active"), Node(A, "u", POOL, "Error"), Node(B, "u", POOL, "Active")]
)
def test_pages_that_contradict_each_other_are_no_proof_for_their_pools(other: Node) -> None:
    table = NodeTable(NOW, [Node(A, "u", POOL, "Active"), other, Node(C, "c", "a third pool", "Active")])
    assert not any(table.is_complete_for(POOL, (count,)) for count in range(4))
    assert not any(table.is_complete_for(other.pool_id, (count,)) for count in range(4))
    assert table.is_complete_for("a third pool", (1,))
    assert {A, B, C} & table.present({A, B, C}) == {A, C, other.server_id}


@pytest.mark.parametrize(
    ("counts", "offset", "complete"),
    [
        ((2,), 0, True),
        ((1,), 0, False),
        ((3,), 0, False),
        ((0, 2), 0, True),
        ((2, 22), 0, True),
        ((22, 0), 0, True),
        ((3, 22), 0, False),
        ((3,), 1, True),
        ((2,), 1, True),
        ((4,), 1, False),
        ((1,), -1, True),
    ],
)
def test_a_listing_lies_between_the_counts_before_and_after_it(
    counts: tuple[int, ...], offset: int, *, complete: bool
) -> None:
    """Case 20: own adds move the count while the nodes are listed. Case 19: `offset` is a person's word."""
    assert NodeTable(NOW, [a_node(A), a_node(B)]).is_complete_for(POOL, counts, offset) == complete


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
