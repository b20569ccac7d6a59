"""What follows from the rules in each mode, and how findings are grouped and bounded."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.spec import PreflightMode
from nodepool_membership.api.status import Finding
from nodepool_membership.core.preflight.facts import Group, Inspection, ReadFailure, Server, Template
from nodepool_membership.core.preflight.findings import MAX_GROUPS, MAX_IDS, merged
from nodepool_membership.core.preflight.hazards import hazards, obstacles
from nodepool_membership.core.preflight.judge import Found, Judged, judge
from unit.preflight_examples import ASKED, GOOD, NOW

OFF, REPORT, ENFORCE = PreflightMode.OFF, PreflightMode.REPORT, PreflightMode.ENFORCE
CERTAIN = replace(GOOD, vpc_id="elsewhere")
DOCUMENTED = replace(GOOD, ports=2)
TOLD = replace(GOOD, os_type="Windows")
UNMARKED = replace(GOOD, tags={})


def judged(mode: PreflightMode, server: Server | None, *, tag: bool = False, unread: bool = False) -> Judged:
    ids = frozenset({GOOD.server_id})
    seen = Inspection(NOW, ids, {} if server is None else {GOOD.server_id: server})
    if unread:
        seen = replace(seen, unread=ids, why=ReadFailure(Reason.FORBIDDEN, "no right"))
    asked = replace(ASKED, inspection=seen, tag=ASKED.tag if tag else None)
    result = judge(asked, mode)
    assert result.passed | result.failed.keys() | result.waiting == ids
    return result


@pytest.mark.parametrize(
    ("server", "failing"),
    [
        (CERTAIN, {REPORT, ENFORCE}),
        (None, {OFF, REPORT, ENFORCE}),
        (DOCUMENTED, {ENFORCE}),
        (TOLD, set()),
        (GOOD, set()),
        (UNMARKED, set()),
    ],
)
@pytest.mark.parametrize("mode", PreflightMode)
def test_what_stops_a_server_depends_on_the_rules_strength(
    mode: PreflightMode, server: Server | None, failing: set[PreflightMode]
) -> None:
    result = judged(mode, server)
    assert bool(result.failed) == (mode in failing)
    assert not result.waiting


@pytest.mark.parametrize("mode", PreflightMode)
def test_a_required_tag_counts_in_every_mode(mode: PreflightMode) -> None:
    result = judged(mode, UNMARKED, tag=True)
    assert [found.reason for found in result.failed.values()] == [FailureReason.REQUIRED_TAG_MISSING]
    assert judged(mode, GOOD, tag=True).passed


@pytest.mark.parametrize(
    ("mode", "tag", "waits"),
    [(REPORT, False, False), (REPORT, True, True), (ENFORCE, False, True), (ENFORCE, True, True), (OFF, True, True)],
)
def test_what_could_not_be_read_waits_only_where_it_must_be_read(mode: PreflightMode, tag: bool, waits: bool) -> None:
    result = judged(mode, None, tag=tag, unread=True)
    assert (bool(result.waiting), result.why is not None, bool(result.passed)) == (waits, waits, not waits)
    if not waits:
        assert result.told[GOOD.server_id] == (Found(FindingReason.SERVERS_UNREAD, "no right"),)


def ids(count: int, first: int = 0) -> list[str]:
    return [f"{number:08x}-0000-0000-0000-000000000000" for number in range(first, first + count)]


def told(*servers: str, message: str = "m") -> Mapping[str, tuple[Found, ...]]:
    return {server: (Found(FailureReason.OTHER_FLAVOR, message),) for server in servers}


def test_findings_are_grouped_by_cause_and_name_some_of_the_servers() -> None:
    first = merged((), frozenset(ids(100)), told(*ids(100)), ())
    assert [(f.reason, f.count, len(f.server_ids)) for f in first] == [(FailureReason.OTHER_FLAVOR, 100, MAX_IDS)]
    second = merged(first, frozenset(ids(10, 100)), told(*ids(5, 100)), ())
    assert [(f.count, f.server_ids) for f in second] == [(105, first[0].server_ids)]


def test_a_server_that_is_looked_at_again_counts_once_and_leaves_when_it_is_mended() -> None:
    known = merged((), frozenset(ids(2)), told(*ids(2)), ())
    again = merged(known, frozenset(ids(2)), told(*ids(1)), ())
    assert [(f.count, f.server_ids) for f in again] == [(1, tuple(ids(1)))]
    assert merged(again, frozenset(ids(2)), {}, ()) == ()


def test_there_are_never_more_than_so_many_findings() -> None:
    many = {server: (Found(FailureReason.OTHER_FLAVOR, server[:8]),) for server in ids(200)}
    assert len(merged((), frozenset(many), many, [Found(FindingReason.AUTOSCALING_ON, "on")])) == MAX_GROUPS


def test_what_is_told_of_the_pool_replaces_what_was() -> None:
    known = (Finding(FindingReason.AUTOSCALING_ON, "on", 0, ()), Finding(FailureReason.OTHER_FLAVOR, "m", 1, ("a",)))
    assert merged(known, frozenset(), {}, ()) == known[1:]


def test_hazards_of_a_pool() -> None:
    quiet = Template(digest="a", desired_nodes=3)
    assert list(hazards(quiet, 3, "a")) == []
    assert list(hazards(quiet, 3, None)) == []
    loud = Template(digest="b", desired_nodes=2, groups=(Group(autoscaling=True),))
    assert [found.reason for found in hazards(loud, 3, "a")] == [
        FindingReason.AUTOSCALING_ON,
        FindingReason.DESIRED_COUNT_LOW,
        FindingReason.TEMPLATE_CHANGED,
    ]


def test_what_may_keep_a_pool_from_taking_more() -> None:
    assert list(obstacles((), 50, 48, 2)) == list(obstacles((), None, 5000, 2)) == list(obstacles((), 50, 60, 0)) == []
    assert [found.reason for found in obstacles(("Scalable=False",), None, 0, 0)] == [FindingReason.POOL_CONDITIONS]
    [full] = obstacles((), 50, 48, 3)
    assert (full.reason, "takes 50 nodes: 1 too many" in full.message) == (FindingReason.CLUSTER_FULL, True)
