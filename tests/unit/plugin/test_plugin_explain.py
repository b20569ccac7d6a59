"""`kubectl npmem explain` and `servers`: what is said of every state, from fields of state alone."""

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Final

import pytest

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import Approval
from nodepool_membership.api.status import (
    Condition,
    Halt,
    Hold,
    Operation,
    Phase,
    Plan,
    Recovery,
    Status,
)
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State, count, to_status
from nodepool_membership.plugin.cluster import Target
from nodepool_membership.plugin.explain import Doing, Explanation, explain, lines, wiped
from nodepool_membership.plugin.servers import Where, rows
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    a_batch,
    a_failure,
    a_spec,
    a_wait,
    an_object,
    server,
    servers,
)

IDS: Final = servers(6)
ELSE: Final = server(7)
SPEC: Final = a_spec(*IDS)
SEEN: Final = Status(observed_generation=1, last_batch=0)
HOUR: Final = timedelta(hours=1)
PLACE: Final = Target("cce-system", "prod")


def counted(status: Status) -> Status:
    """With the counts that the operator stores."""
    if status.last_batch is None:
        return status
    stored = to_status(status, SPEC, State.of(status))
    return replace(stored, surplus=status.surplus, surplus_since=status.surplus_since)


def explained(found: Membership | UnreadableStatus, now: datetime = NOW, paused: str | None = None) -> Explanation:
    return explain(found, now, PLACE.command, paused)


RUNNING: Final = a_batch(Phase.RUNNING, *IDS[:2], job_id=JOB, submitted=NOW - HOUR / 2)
JOINED: Final = replace(SEEN, members=IDS, last_batch=1, jobs=(a_batch(Phase.SUCCEEDED, job_id=JOB, finished=NOW),))
FAILED: Final = replace(
    SEEN, members=IDS[1:], failures=(a_failure(FailureReason.INSTALL_FAILED, IDS[0], attempts=3),), last_batch=1
)
RETRIED: Final = a_failure(FailureReason.NEVER_APPEARED, IDS[0], retry=NOW + HOUR)
VANISHED: Final = replace(
    SEEN,
    failures=(a_failure(FailureReason.NODE_VANISHED, IDS[0], attempts=0, retry=NOW + HOUR),),
    holds=(Hold((IDS[0],), NOW - SECOND),),
)
OWED: Final = replace(SEEN, members=(*IDS, ELSE), last_batch=1, surplus=1, surplus_since=NOW - SECOND)
HALTED: Final = replace(SEEN, halt=Halt(Reason.TOO_MANY_FAILURES, "3 of 4 were WIPED", NOW - HOUR))


@pytest.mark.parametrize(
    ("doing", "status", "since", "word", "verb"),
    [
        (Doing.UNSEEN, Status(), NOW - timedelta(days=1), "has not looked at it yet", "get pods"),
        (Doing.UNSEEN, replace(SEEN, observed_generation=0), None, "generation 1, it knows 0", "get pods"),
        (
            Doing.RECOVERING,
            replace(SEEN, recovery=Recovery(NOW - SECOND, NOW + HOUR)),
            NOW - SECOND,
            "its status was lost",
            "nothing: it goes on by itself",
        ),
        (Doing.HALTED, HALTED, NOW - HOUR, "TooManyFailures: 3 of 4 were WIPED", "npmem reset"),
        (Doing.WORKING, replace(SEEN, jobs=(RUNNING,)), NOW - HOUR / 2, "2 joining in 1 batch", "goes on by itself"),
        (Doing.WAITING, replace(SEEN, waits=(a_wait(NOW + HOUR),)), None, "6 pending", "npmem reconcile"),
        (
            Doing.SEARCHING,
            replace(SEEN, jobs=(a_batch(Phase.QUEUED, *IDS[:2]),)),
            None,
            "sent again in parts",
            "goes on by itself",
        ),
        (Doing.RETRYING, replace(SEEN, failures=(RETRIED,)), None, "6 pending", "npmem reconcile"),
        (Doing.RETRYING, VANISHED, NOW - SECOND, "6 pending", "nobody can shorten a settle window"),
        (Doing.REMOVING, OWED, NOW - SECOND, "1 member to be removed and REINSTALLED", '"removalPolicy": "Retain"'),
        (Doing.PENDING, SEEN, None, "6 pending", "npmem reconcile"),
        (Doing.FAILED, FAILED, None, "1 failed", "--only=InstallFailed"),
        (Doing.READY, JOINED, NOW, "6 of 6 servers are Active members", "it is done"),
    ],
)
def test_what_it_is_doing(doing: Doing, status: Status, since: datetime | None, word: str, verb: str) -> None:
    found = explained(an_object(SPEC, counted(status)))
    assert (found.doing, found.since) == (doing, since)
    assert word in found.summary
    assert verb in f"{found.next.command} {found.next.why}"
    assert "-n cce-system" in found.next.command or not found.next.command.startswith("kubectl npmem")


def test_what_a_person_did_comes_first() -> None:
    halted = counted(replace(HALTED, plan=Plan("p", 4, 1, 2, 0)))
    suspended = explained(an_object(replace(SPEC, suspend=True), halted))
    assert suspended.doing is Doing.SUSPENDED
    assert "would add 4 in 1 call, which WIPES them, adopt 2" in suspended.summary
    assert suspended.next.command == "kubectl npmem resume -n cce-system --context=prod gpu-workers"
    mark = {"cce.nodepools.dev/paused": "disk audit, ann"}
    paused = explained(an_object(SPEC, halted, annotations=mark))
    assert (paused.doing, "this object (disk audit, ann)" in paused.summary) == (Doing.PAUSED, True)
    assert paused.next.command == "kubectl annotate npmem gpu-workers -n cce-system cce.nodepools.dev/paused-"
    by_namespace = explained(an_object(SPEC, halted), paused="")
    assert (by_namespace.doing, "of the namespace: no" in by_namespace.summary) == (Doing.PAUSED, True)
    assert "annotate namespace cce-system" in by_namespace.next.command
    deleted = explained(an_object(SPEC, halted, deleted=NOW - HOUR))
    assert (deleted.doing, deleted.since) == (Doing.DELETING, NOW - HOUR)


def test_who_has_all_servers_and_is_not_ready_is_not_called_done() -> None:
    done = an_object(SPEC, counted(JOINED))
    ready = Condition("Ready", "Unknown", Reason.UNAUTHENTICATED, "check the keys")
    told = explained(replace(done, status=replace(done.status, conditions=(ready,))))
    assert told.summary == "by the last complete look, 6 of 6 servers are Active members of the pool"
    assert told.next.command == "kubectl npmem reconcile -n cce-system --context=prod gpu-workers"
    assert "first mend what is in the way" in told.next.why
    well = explained(replace(done, status=replace(done.status, conditions=(replace(ready, status="True"),))))
    assert well.next.why == "nothing: it is done"


@pytest.mark.parametrize("status", [HALTED, FAILED])
def test_a_reset_is_told_with_its_preview(status: Status) -> None:
    found = explained(an_object(SPEC, counted(status)))
    text = f"{found.next.command} {found.next.why}"
    assert "since it WIPES what it adds, preview it first (kubectl npmem suspend -n cce-system" in text


def test_what_was_wiped_is_not_known_after_a_lost_status() -> None:
    lost = counted(replace(SEEN, recovery=Recovery(NOW - SECOND, NOW + HOUR)))
    found = explained(an_object(SPEC, lost))
    assert dict(lines(found, NOW))["Wiped"] == "what older batches did is not listed any more"
    assert found.next.command == ""


def test_a_status_that_nobody_can_read_is_explained_too() -> None:
    found = explained(UnreadableStatus(an_object(SPEC).metadata, SPEC, "jobs.0.phase: unknown"))
    assert (found.doing, found.wiped) == (Doing.UNREADABLE, None)
    assert "jobs.0.phase: unknown" in found.summary
    assert "--subresource=status" in found.next.command
    assert "kubectl npmem reset" in found.next.why
    assert list(lines(found, NOW))


def test_what_is_waited_for_and_until_when() -> None:
    status = replace(
        SEEN,
        recovery=Recovery(NOW - SECOND, NOW + 2 * HOUR),
        jobs=(
            RUNNING,
            a_batch(Phase.SUBMITTING, IDS[2], number=2),
            a_batch(Phase.VERIFYING, IDS[3], number=3, job_id=JOB, submitted=NOW - HOUR, finished=NOW - HOUR / 6),
        ),
        waits=(a_wait(NOW + HOUR, Reason.QUOTA_EXCEEDED, "no quota"), a_wait(NOW - HOUR, operation=Operation.REMOVE)),
        failures=(RETRIED,),
        holds=(Hold((IDS[4],)), Hold((IDS[5],), NOW - HOUR / 12)),
    )
    found = explained(an_object(SPEC, counted(status)))
    assert [(wait.what.partition(":")[0], wait.until) for wait in found.waits] == [
        ("the end of the settle window after the status was lost", NOW + 2 * HOUR),
        ("batch 1 (2 servers)", NOW + HOUR / 2),
        ("batch 2 (1 server)", NOW + HOUR / 2),
        ("batch 3 (1 server)", NOW + HOUR / 3),
        ("the next add", NOW + HOUR),
        ("1 server", NOW + HOUR),
        ("1 server whose node is gone, to be sure that no earlier call acts on it", NOW + HOUR * 5 / 12),
    ]
    told = list(lines(found, NOW))
    assert len(told) <= 10
    assert ("Waits for", "4 more: -o yaml") in told
    overdue = explained(an_object(SPEC, counted(replace(SEEN, jobs=(RUNNING,)))), NOW + HOUR)
    assert "look at it in the CCE console" in overdue.waits[0].what
    assert "due since 2026-01-02T03:30:00Z" in dict(lines(overdue, NOW + HOUR))["Waits for"]


def test_a_settle_window_of_servers_is_told_once() -> None:
    waits = explained(an_object(SPEC, counted(VANISHED))).waits
    assert [(wait.what.partition(":")[0], wait.until) for wait in waits] == [("1 server", NOW + HOUR)]


def test_a_removal_is_waited_for_while_nothing_keeps_it_from_being_made() -> None:
    status = counted(OWED)
    delay = Settings().removal_delay
    owed = [("1 member to be removed and REINSTALLED", NOW - SECOND + delay)]
    told = [(an_object(SPEC, status), owed), (an_object(replace(SPEC, suspend=True), status), [])]
    for membership, expected in told:
        assert [(wait.what, wait.until) for wait in explained(membership).waits] == expected
    assert explained(an_object(SPEC, status), paused="why").waits == ()
    assert explained(an_object(SPEC, status), NOW + delay).waits == ()
    deleted = explained(an_object(SPEC, status, deleted=NOW))
    assert deleted.next.command.endswith("""'{"spec": {"deletionPolicy": "Retain"}}'""")


@pytest.mark.parametrize(
    ("phase", "job", "expected"),
    [
        (Phase.SUBMITTING, None, (0, 2, 0)),
        (Phase.VERIFYING, None, (0, 2, 0)),
        (Phase.RUNNING, JOB, (2, 0, 0)),
        (Phase.FAILED, JOB, (2, 0, 0)),
        (Phase.FAILED, None, (0, 2, 0)),
        (Phase.SUCCEEDED, None, (2, 0, 0)),
        (Phase.REFUSED, None, (0, 0, 0)),
        (Phase.WITHDRAWN, None, (0, 0, 0)),
        (Phase.QUEUED, None, (0, 0, 0)),
    ],
)
def test_what_was_wiped(phase: Phase, job: str | None, expected: tuple[int, int, int]) -> None:
    batch = a_batch(phase, *IDS[:2], job_id=job, finished=NOW)
    found = wiped(replace(SEEN, jobs=(batch,), last_batch=1))
    assert (found.certainly, found.perhaps, found.removed, found.forgotten) == (*expected, False)


def test_nodes_that_somebody_else_made_prove_no_unanswered_call() -> None:
    batch = replace(a_batch(Phase.SUCCEEDED, *IDS[:2], finished=NOW), foreign=1)
    found = wiped(replace(SEEN, jobs=(batch,), last_batch=1))
    assert (found.certainly, found.perhaps) == (0, 2)


def test_adopted_servers_were_not_wiped_and_old_batches_are_not_known() -> None:
    adopted = replace(a_batch(Phase.SUCCEEDED, *IDS[:3], number=12, job_id=JOB, finished=NOW), adopted=1)
    removal = replace(adopted, batch=13, operation=Operation.REMOVE, node_ids=adopted.server_ids, adopted=None)
    found = wiped(replace(SEEN, jobs=(adopted, removal), last_batch=13))
    assert (found.certainly, found.removed, found.forgotten) == (2, 3, True)


def test_conditions_are_repeated_and_nothing_follows_from_them() -> None:
    silent = an_object(SPEC, counted(FAILED))
    ready = Condition("Ready", "False", Reason.UNAUTHENTICATED, "check the keys")
    told = replace(silent, status=replace(silent.status, conditions=(ready,)))
    assert replace(explained(told), told=None) == explained(silent)
    assert dict(lines(explained(told), NOW))["Told"] == "Ready is False, Unauthenticated: check the keys"


def test_every_server_has_one_row_and_the_states_add_up() -> None:
    status = counted(
        replace(
            SEEN,
            members=IDS[:2],
            jobs=(RUNNING, a_batch(Phase.QUEUED, IDS[4], number=2)),
            failures=(RETRIED, a_failure(FailureReason.REFUSED, IDS[2], attempts=3)),
            holds=(Hold((IDS[3], "f" * 36)),),
        )
    )
    found = {row.server_id: row for row in rows(an_object(SPEC, status))}
    counts = count(SPEC, State.of(status))
    where = [found[i].where for i in IDS]
    assert where == [Where.RETRYING, Where.JOINED, Where.FAILED, Where.HELD, Where.QUEUED, Where.PENDING]
    assert counts.joined == where.count(Where.JOINED)
    assert counts.failed == where.count(Where.FAILED)
    assert found["f" * 36].where is Where.UNLISTED
    assert found[IDS[0]].cells()[3:6] == ("1", "2026-01-02T04:00:00Z", "NeverAppeared")


def test_servers_can_be_asked_for_one_by_one() -> None:
    (row,) = rows(an_object(SPEC, counted(SEEN)), [IDS[3].upper()])
    assert row.document() == {"serverID": IDS[3], "state": "Pending"}
    (row,) = rows(an_object(SPEC, counted(SEEN)), ["0" * 36])
    assert row.where is Where.UNLISTED


def test_what_nothing_would_come_of_is_not_waited_for() -> None:
    late = replace(SEEN, waits=(a_wait(NOW + HOUR),), failures=(RETRIED,))
    assert len(explained(an_object(SPEC, counted(late))).waits) == 2
    halt = Halt(Reason.TOO_MANY_FAILURES, "3 of 4 were WIPED", NOW)
    halted = an_object(SPEC, counted(replace(late, halt=halt)))
    suspended = an_object(replace(SPEC, suspend=True), counted(late))
    unapproved = an_object(replace(SPEC, approval=Approval.MANUAL), counted(replace(late, waits=())))
    off_the_list = an_object(replace(SPEC, server_ids=SPEC.server_ids - {IDS[0]}), counted(replace(late, waits=())))
    for stopped in (halted, suspended, unapproved, off_the_list):
        assert explained(stopped).waits == ()
    assert explained(an_object(SPEC, counted(late)), paused="audit").waits == ()


def test_a_wait_for_a_call_that_is_not_to_be_made_any_more_is_nothing_to_do() -> None:
    waits = (a_wait(NOW + HOUR), a_wait(NOW + HOUR, operation=Operation.REMOVE))
    found = explained(an_object(SPEC, counted(replace(JOINED, waits=waits))))
    assert (found.doing, found.waits) == (Doing.READY, ())


def test_a_member_that_is_gone_waits_for_a_person_not_for_a_settle_window() -> None:
    missing = a_failure(FailureReason.MEMBER_MISSING, IDS[0], attempts=0)
    status = replace(JOINED, failures=(missing,), holds=(Hold((IDS[0],), NOW - HOUR),))
    found = explained(an_object(SPEC, counted(status)))
    assert (found.doing, found.waits) == (Doing.FAILED, ())


def test_who_is_stopped_is_told_no_time_of_a_removal() -> None:
    status = counted(OWED)
    suspended = explained(an_object(replace(SPEC, suspend=True), status))
    paused = explained(an_object(SPEC, status), paused="")
    assert "REINSTALLED" not in suspended.summary + paused.summary


def test_a_removal_that_nobody_answered_for_may_have_been_made() -> None:
    removal = replace(a_batch(Phase.VERIFYING, *IDS[:2]), operation=Operation.REMOVE, node_ids=IDS[:2])
    found = wiped(replace(SEEN, jobs=(removal,), last_batch=1))
    assert (found.certainly, found.perhaps, found.removed) == (0, 2, 0)


def test_nodes_that_show_an_unanswered_call_are_waited_for_as_long_as_they_may_install() -> None:
    shown = a_batch(Phase.RUNNING, *IDS[:2], submitted=NOW - HOUR * 3 / 4)
    (wait,) = explained(an_object(SPEC, counted(replace(SEEN, jobs=(shown,))))).waits
    assert (wait.what, wait.until) == ("batch 1 (2 servers): that its nodes become Active", NOW + HOUR / 4)
