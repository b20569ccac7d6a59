"""Servers read before a call: who is sent, who is not and why, what is told, and when it is looked at again (P27).

Not for: the single rules; test_preflight_rules.
"""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.spec import Preflight, PreflightMode, RequiredTag, Spec
from nodepool_membership.api.status import Finding, Phase, Status
from nodepool_membership.core.conditions.events import events_between
from nodepool_membership.core.decision.decide import Decision, Schedule, decide
from nodepool_membership.core.decision.preview import Preview
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import ClusterReport, NodeTable, Observation, PoolReport, Query
from nodepool_membership.core.planning.vetting import MAX_AGE
from nodepool_membership.core.preflight.facts import (
    CCE_CLUSTER_TAG,
    CCE_NODE_TAG,
    Network,
    ReadFailure,
    Server,
    Template,
)
from unit.core_builders import (
    JOB,
    NOW,
    POOL,
    SECOND,
    SETTINGS,
    Cloud,
    Run,
    a_batch,
    a_failure,
    a_spec,
    active,
    an_object,
    server,
    servers,
    well,
)

A, B, C = servers(3)
OFF, REPORT, ENFORCE = PreflightMode
NO_RIGHT = ReadFailure(Reason.FORBIDDEN, "403 Pdp.0001: grant ecs:cloudServers:listServersDetails")
TAG = RequiredTag("nodepool-membership")
NOT_FOUND = (FailureReason.SERVER_NOT_FOUND, 0)


def asking(spec: Spec, mode: PreflightMode = REPORT, tag: RequiredTag | None = None) -> Spec:
    return replace(spec, preflight=Preflight(mode, tag))


def a_run(*ids: str, mode: PreflightMode = REPORT, tag: RequiredTag | None = None, batch_size: int = 200) -> Run:
    cloud = Cloud(cluster=ClusterReport("Available", Network("vpc")))
    return Run(an_object(asking(a_spec(*ids, batch_size=batch_size), mode, tag)), cloud)


def named(run: Run) -> tuple[str, ...]:
    """Whom the next call names."""
    intent = run.decide().intent
    return () if intent is None else intent.server_ids


def stopped(server_id: str) -> Server:
    return Server(server_id, "SHUTOFF")


def test_a_server_that_is_not_fit_is_not_sent_and_the_others_are() -> None:
    run = a_run(A, B, C)
    run.cloud.servers = {A: None, B: Server(B, "ACTIVE", vpc_id="elsewhere")}
    decision = run.step(Accepted(JOB))
    assert decision.intent is not None
    assert decision.intent.server_ids == (C,)
    assert run.causes == {A: NOT_FOUND, B: (FailureReason.OTHER_VPC, 0)}
    assert (run.status.failed, run.status.joining, run.status.pending) == (2, 1, 0)


def test_with_nobody_left_to_send_it_stalls_and_nothing_is_written_by_the_next_looks() -> None:
    run = a_run(A)
    run.cloud.servers = {A: stopped(A)}
    decision = run.step()
    assert (decision.intent, decision.schedule, decision.keeps_finalizer) == (None, Schedule.RESYNC, False)
    stalled = run.condition("Stalled")
    assert stalled is not None
    assert stalled.reason is FailureReason.SERVER_NOT_RUNNING
    assert "SHUTOFF" in stalled.message
    before = run.status
    for _ in range(4):
        run.wait(SETTINGS.resync_interval)
        assert run.step().intent is None
        assert Query(servers=frozenset({A})) in run.looks
        assert run.status == before


def test_between_resyncs_a_server_that_was_not_sent_is_not_read_again() -> None:
    run = a_run(A)
    run.cloud.servers = {A: None}
    run.step()
    run.wait(SETTINGS.resync_interval / 10)
    run.step()
    assert not [look for look in run.looks if look.servers]


def test_a_mended_server_is_sent_at_the_next_resync() -> None:
    run = a_run(A)
    run.cloud.servers = {A: stopped(A)}
    run.step()
    run.cloud.servers.clear()
    run.wait(SETTINGS.resync_interval)
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert (intent.server_ids, intent.attempt) == ((A,), 1)


@pytest.mark.parametrize("how", ["edit", "look", "reset"])
def test_who_asks_has_it_read_at_once(how: str) -> None:
    run = a_run(A)
    run.cloud.servers = {A: stopped(A)}
    run.step()
    run.cloud.servers.clear()
    run.wait(SECOND)
    if how == "edit":
        run.edit(replace(run.membership.spec, batch_size=7))
    else:
        kind = "reconcile" if how == "look" else "reset"
        run.annotate({f"cce.nodepools.dev/{kind}-requested-at": "1"})
    assert named(run) == (A,)


def test_a_server_that_fails_the_look_keeps_its_attempts() -> None:
    run = a_run(A)
    run.step(Accepted(JOB))
    run.store(replace(run.status, jobs=(a_batch(Phase.FAILED, finished=NOW),)))
    run.store(replace(run.status, failures=(a_failure(FailureReason.REFUSED, A, attempts=2),)))
    run.cloud.servers = {A: None}
    run.step()
    assert run.causes == {A: (FailureReason.SERVER_NOT_FOUND, 2)}
    run.cloud.servers.clear()
    run.wait(SETTINGS.resync_interval)
    intent = run.step(Accepted(JOB)).intent
    assert intent is not None
    assert intent.attempt == 3


def test_bad_servers_at_the_head_of_the_list_do_not_keep_the_rest_waiting() -> None:
    ids = servers(7)
    run = a_run(*ids, batch_size=2)
    run.cloud.servers = dict.fromkeys(ids[:4])
    decision = run.step(Accepted(JOB))
    assert decision.intent is not None
    assert decision.intent.server_ids == ids[4:6]
    assert [len(look.servers) for look in run.looks if look.servers] == [7]


def test_many_that_are_not_fit_are_read_at_once_however_few_a_call_may_name() -> None:
    ids = [server(n) for n in range(1, 1201)]
    run = a_run(*ids, batch_size=1)
    run.cloud.servers = dict.fromkeys(ids)
    run.step()
    assert [len(look.servers) for look in run.looks if look.servers] == [50, 200, 200, 200, 200, 200, 150]
    assert run.status.failed == len(ids)


def test_a_part_of_which_nobody_is_fit_is_dropped_and_the_others_go() -> None:
    part = replace(a_batch(Phase.QUEUED, A, number=2), submit_time=None, part=True)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=2, jobs=(part,))))
    run.cloud.servers = {A: None}
    decision = run.step(Accepted(JOB))
    assert decision.intent is not None
    assert (decision.intent.server_ids, decision.intent.part) == ((B,), None)
    assert run.causes == {A: NOT_FOUND}


def test_who_is_read_again_does_not_hold_up_a_retry() -> None:
    run = a_run(A, B)
    run.cloud.servers = {A: None, B: None}
    run.step()
    run.cloud.servers = {A: None}
    run.wait(SETTINGS.resync_interval)
    assert named(run) == (B,)


def test_a_part_of_a_refused_batch_loses_the_servers_that_are_not_fit() -> None:
    part = replace(a_batch(Phase.QUEUED, A, B, number=2), submit_time=None, part=True)
    run = Run(an_object(a_spec(A, B), Status(1, last_batch=2, jobs=(part,))))
    run.cloud.servers = {A: None}
    assert named(run) == (B,)
    run.cloud.servers = {A: None, B: None}
    run.step()
    assert run.status.jobs == ()
    assert set(run.causes) == {A, B}


def test_a_tag_that_is_asked_for_must_be_there_in_every_mode() -> None:
    for mode in PreflightMode:
        run = a_run(A, B, C, mode=mode, tag=TAG)
        marked = Server(A, "ACTIVE", tags={"nodepool-membership": POOL})
        run.cloud.servers = {A: marked, B: replace(marked, server_id=B, tags={"nodepool-membership": "other"})}
        assert named(run) == (A,)
        run.step(Accepted(JOB))
        assert run.causes == dict.fromkeys((B, C), (FailureReason.REQUIRED_TAG_MISSING, 0))
        assert all("<id>" in group.message or "no tag" in group.message for group in run.status.failures)


def test_a_value_of_the_tag_may_be_asked_for_also_an_empty_one() -> None:
    run = a_run(A, B, tag=RequiredTag("owner", ""))
    run.cloud.servers = {A: Server(A, "ACTIVE", tags={"owner": ""})}
    assert named(run) == (A,)


def test_without_preflight_nothing_is_read() -> None:
    run = a_run(A, mode=OFF)
    run.cloud.servers = {A: None}
    assert named(run) == (A,)
    assert not [look for look in run.looks if look.servers]


def test_what_is_only_documented_is_told_and_sent_or_not_sent() -> None:
    several = Server(A, "ACTIVE", ports=2)
    run = a_run(A)
    run.cloud.servers = {A: several}
    run.step(Accepted(JOB))
    (finding,) = run.status.findings
    assert (finding.reason, finding.count, finding.server_ids) == (FailureReason.SEVERAL_INTERFACES, 1, (A,))
    assert run.status.joining == 1
    strict = a_run(A, mode=ENFORCE)
    strict.cloud.servers = {A: several}
    strict.step()
    assert (strict.causes, strict.status.findings) == ({A: (FailureReason.SEVERAL_INTERFACES, 0)}, ())


def test_servers_that_cannot_be_read_are_sent_all_the_same_and_that_is_told_once() -> None:
    run = a_run(*servers(450))
    run.cloud.unread = NO_RIGHT
    before = run.status
    told = []
    for number in range(3):
        decision = run.step(Accepted(JOB))
        assert decision.intent is not None
        told += [
            note.text for note in events_between(before, run.status) if note.reason is FindingReason.SERVERS_UNREAD
        ]
        before = run.status
        run.cloud.nodes = active([*servers(450)][: 200 * (number + 1)])
        run.store(replace(run.status, jobs=(), members=tuple(n.server_id for n in run.cloud.nodes)))
    (finding,) = run.status.findings
    assert (finding.count, len(finding.server_ids)) == (450, 20)
    assert told == [f"200 servers: {NO_RIGHT.message}"]


@pytest.mark.parametrize(("mode", "tag"), [(ENFORCE, None), (REPORT, TAG), (OFF, TAG)])
def test_what_must_be_read_and_cannot_be_waits_and_says_why(mode: PreflightMode, tag: RequiredTag | None) -> None:
    run = a_run(A, B, mode=mode, tag=tag)
    run.cloud.unread = NO_RIGHT
    decision = run.step()
    assert (decision.intent, decision.schedule, run.status.pending) == (None, Schedule.BACKOFF, 2)
    assert (run.ready.reason, run.condition("Stalled")) == (Reason.FORBIDDEN, None)
    assert NO_RIGHT.message in run.ready.message
    run.cloud.unread = None
    run.cloud.servers = {i: Server(i, "ACTIVE", tags={TAG.key: POOL}) for i in (A, B)}
    assert named(run) == (A, B)


def test_an_intent_is_dated_by_what_was_read_and_old_news_make_none() -> None:
    membership = an_object(a_spec(A))
    run = Run(membership)
    for age, intends in ((timedelta(), True), (MAX_AGE, True), (MAX_AGE + SECOND, False), (-SECOND, False)):
        seen = Observation(
            run.now, 2000, write_wait=0.0, namespace_state=run.cloud.namespace_state, pool=PoolReport("")
        )
        seen = replace(seen, listing=NodeTable(NOW, []), cluster=ClusterReport("Available"))
        seen = replace(seen, inspection=well([A], NOW - age))
        decision = decide(membership, seen, NOW, SETTINGS)
        assert isinstance(decision, Decision)
        assert (decision.intent is not None) == intends
        if decision.intent is not None:
            assert decision.intent.submit_time == NOW - age
        else:
            assert decision.delay == 0.0


def test_dangers_of_the_pool_are_told_while_they_are_there() -> None:
    run = a_run(A)
    run.cloud.pool = PoolReport("", template=Template("x", autoscaling=True, desired_nodes=0))
    before = run.status
    run.step(Accepted(JOB))
    assert [f.reason for f in run.status.findings] == [FindingReason.AUTOSCALING_ON]
    assert FindingReason.AUTOSCALING_ON in [note.reason for note in events_between(before, run.status)]
    run.cloud.pool = PoolReport("", template=Template("x"))
    run.cloud.nodes = active([A])
    run.step()
    assert run.status.findings == ()


def test_a_pool_that_says_that_it_takes_none_and_a_cluster_that_is_full_are_told_and_stop_nothing() -> None:
    run = a_run(A, B)
    run.cloud.pool = PoolReport("", template=Template("x"), hindrances=("LockedByOrder=True",))
    run.cloud.cluster = ClusterReport("Available", most_nodes=1)
    assert run.step(Accepted(JOB)).intent is not None
    assert [f.reason for f in run.status.findings] == [FindingReason.POOL_CONDITIONS, FindingReason.CLUSTER_FULL]
    run.cloud.pool = PoolReport("", template=Template("x"))
    run.cloud.nodes = active([A, B])
    run.step()
    assert run.status.findings == ()


def test_a_finding_goes_with_the_last_of_its_servers_and_with_the_mode() -> None:
    kept = (Finding(FailureReason.OTHER_FLAVOR, "m", 2, (A, B)),)
    run = Run(an_object(a_spec(B, C), Status(1, last_batch=1, findings=kept)))
    run.step(Accepted(JOB))
    assert run.status.findings == ()
    run = Run(an_object(asking(a_spec(A), OFF), Status(1, last_batch=1, findings=kept)), Cloud(active([A])))
    run.step()
    assert run.status.findings == ()


def test_two_thousand_servers_of_which_none_is_fit_are_read_once() -> None:
    ids = [server(n) for n in range(1, 2001)]
    run = a_run(*ids)
    run.cloud.servers = dict.fromkeys(ids)
    run.step()
    assert sum(len(look.servers) for look in run.looks) == len(ids)
    assert run.status.failed == len(ids)


def untagged(server_id: str, *tags: str, told: bool = True) -> Server:
    return Server(server_id, "ACTIVE", tags=dict.fromkeys(tags, "x"), tells_tags=told)


def a_disagreement(*ids: str, mode: PreflightMode = REPORT) -> Run:
    """The pool counts a node more than the list shows."""
    run = a_run(*ids, mode=mode)
    run.cloud.pool = PoolReport("", 1)
    return run


def test_where_list_and_count_disagree_a_server_goes_on_whose_document_has_none_of_cces_tags() -> None:
    run = a_disagreement(A, B)
    run.cloud.servers = {A: untagged(A, "owner"), B: untagged(B, CCE_NODE_TAG, CCE_CLUSTER_TAG)}
    assert named(run) == (A,)
    run.step(Accepted(JOB))
    (told,) = [f for f in run.status.findings if f.reason is FindingReason.ABSENT_BY_TAG]
    assert told.server_ids == (A,)
    assert "disagree" in told.message


@pytest.mark.parametrize(
    "server",
    [
        Server(A, "ACTIVE"),
        untagged(A, told=False),
        replace(untagged(A), bare_metal=True),
        untagged(A, CCE_CLUSTER_TAG),
    ],
    ids=["tags not told", "no list of tags", "bare metal", "a tag of CCE"],
)
def test_what_proves_nothing_waits_as_before(server: Server) -> None:
    run = a_disagreement(A)
    run.cloud.servers = {A: server}
    assert run.step().intent is None
    assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE
    assert [f.reason for f in run.status.findings] == []


def test_a_server_that_cannot_be_read_or_is_not_read_at_all_waits_as_before() -> None:
    blind, off = a_disagreement(A), a_disagreement(A, mode=OFF)
    blind.cloud.unread = NO_RIGHT
    for run in (blind, off):
        assert run.step().intent is None
        assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE


def test_a_part_of_a_refused_call_waits_for_the_list() -> None:
    part = replace(a_batch(Phase.QUEUED, A, B, number=2), submit_time=None)
    run = a_disagreement(A, B)
    run.cloud.servers = {A: untagged(A), B: untagged(B)}
    run.store(replace(run.status, observed_generation=1, last_batch=2, jobs=(part,)))
    assert run.step().intent is None
    assert run.ready.reason is Reason.LISTING_IMPLAUSIBLE


def test_a_listed_node_outweighs_its_servers_document() -> None:
    run = a_disagreement(A, B)
    run.cloud.pool, run.cloud.nodes = PoolReport("", 7), active([A])
    run.cloud.servers = {A: untagged(A), B: untagged(B)}
    assert named(run) == (B,)


def test_a_preview_tells_the_proof_and_no_obstacle() -> None:
    run = a_disagreement(A)
    run.cloud.servers = {A: untagged(A)}
    found = run.preview()
    assert isinstance(found, Preview)
    assert (found.add, found.stops) == ((A,), ())
    assert FindingReason.ABSENT_BY_TAG in [finding.reason for finding in found.findings]
