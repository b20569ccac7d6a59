"""Resets, whole and narrowed, and pauses by annotation.

Not for: other requests, edits and deletion (`test_core_requests`).
"""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Hold, Status
from nodepool_membership.core.decision.record import Accepted
from nodepool_membership.core.observed.observation import NamespaceState, Trouble
from nodepool_membership.core.preflight.facts import Server
from unit.core_builders import (
    JOB,
    NOW,
    SETTINGS,
    WINDOW,
    Run,
    a_failure,
    a_spec,
    an_object,
    servers,
    used_up,
)

A, B, C = servers(3)
# Spelled out here: people and tools write these names.
FLUX, OURS = "reconcile.fluxcd.io/requestedAt", "cce.nodepools.dev/reconcile-requested-at"
ONLY, PAUSED = "cce.nodepools.dev/reset-only", "cce.nodepools.dev/paused"
FLUX_RESET, OUR_RESET = "reconcile.fluxcd.io/resetAt", "cce.nodepools.dev/reset-requested-at"


@pytest.mark.parametrize("names", [(FLUX, FLUX_RESET), (OURS, OUR_RESET)])
def test_a_reset_gives_the_attempts_back(names: tuple[str, str]) -> None:
    run = used_up()
    run.annotate(dict.fromkeys(names, "one"))
    decision = run.step(Accepted(JOB))
    assert decision.intent is not None
    assert decision.intent.attempt == 1
    assert run.status.last_handled_reset_at == "one"


@pytest.mark.parametrize("annotations", [{FLUX_RESET: "one"}, {FLUX: "two", FLUX_RESET: "one"}, {OUR_RESET: "one"}])
def test_a_reset_alone_is_a_reset(annotations: Mapping[str, str]) -> None:
    run = used_up()
    run.annotate(annotations)
    intent = run.step().intent
    assert intent is not None
    assert (intent.attempt, run.status.last_handled_reset_at) == (1, "one")


def test_a_request_to_look_is_no_reset() -> None:
    run = used_up()
    run.annotate({FLUX: "one"})
    assert run.step().intent is None
    assert (run.status.last_handled_reset_at, run.causes) == (None, {A: (FailureReason.NEVER_APPEARED, 3)})


@pytest.mark.parametrize(
    ("only", "freed"), [("Refused, JoinTimeout", (A,)), (B.upper(), (B,)), (f"Refused,{B}", (A, B))]
)
def test_a_reset_can_be_narrowed_to_reasons_and_ids(only: str, freed: tuple[str, ...]) -> None:
    failures = (
        a_failure(FailureReason.REFUSED, A, attempts=3),
        a_failure(FailureReason.NEVER_APPEARED, B, attempts=3),
    )
    holds = (Hold((C,), NOW - 2 * WINDOW),)
    status = Status(1, last_batch=3, failures=failures, members=(C,), holds=holds)
    run = Run(an_object(a_spec(A, B, C), status))
    run.annotate({OUR_RESET: "one", ONLY: only})
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == freed
    assert run.status.members == (C,), "a member that vanished is not wiped by a reset that is about others"


@pytest.mark.parametrize("only", ["", "NoSuchReason", f"Refused,{A}x"])
def test_a_reset_that_cannot_be_followed_is_answered_with_why_and_changes_nothing(only: str) -> None:
    run = used_up()
    run.annotate({OUR_RESET: "one", ONLY: only})
    assert run.step().intent is None
    told = run.ready.message
    assert told.startswith(f"no reset is followed: in the annotation {ONLY}, ")
    assert (run.status.last_handled_reset_at, run.causes) == ("one", {A: (FailureReason.NEVER_APPEARED, 3)})
    for trouble in (None, Trouble(Reason.NOT_GRANTED, "why")):
        run.wait(SETTINGS.resync_interval)
        run.cloud.trouble = trouble
        run.step()
        assert run.ready.message.startswith(told.partition(";")[0])


@pytest.mark.parametrize("left", [{OUR_RESET: "one"}, {OUR_RESET: "one", ONLY: "Refused"}, {ONLY: "NoSuchReason"}])
def test_a_reset_that_cannot_be_followed_is_told_no_longer_than_it_stands_there(left: dict[str, str]) -> None:
    run = used_up()
    run.annotate({OUR_RESET: "one", ONLY: "NoSuchReason"})
    run.step()
    run.annotate(left)
    assert run.step().intent is None, "the one that was answered is not followed later"
    assert "no reset is followed" not in run.ready.message


@pytest.mark.parametrize("why", ["incident 42", "", "false"])
def test_a_paused_object_starts_no_call_and_says_why(why: str) -> None:
    run = Run(an_object(a_spec(A)))
    run.annotate({PAUSED: why})
    assert run.step().intent is None
    assert run.ready.reason is Reason.PAUSED
    assert why in run.ready.message
    run.annotate({})
    assert run.step().intent is not None


def test_a_paused_namespace_starts_no_call() -> None:
    run = Run(an_object(a_spec(A)))
    run.cloud.namespace_state = NamespaceState(paused="drill")
    assert run.step().intent is None
    assert (run.ready.reason, "drill" in run.ready.message) == (Reason.PAUSED, True)


@pytest.mark.parametrize("edits", [1, 2])
def test_who_was_not_sent_and_has_no_attempt_left_is_failed_until_a_reset(edits: int) -> None:
    failures = (a_failure(FailureReason.NEVER_APPEARED, A, attempts=2),)
    run = Run(an_object(a_spec(A), Status(1, last_batch=1, failures=failures)))
    run.cloud.servers = {A: Server(A, "SHUTOFF")}
    run.step()
    if edits == 2:
        run.edit(replace(run.membership.spec, suspend=True))
        run.step()
    run.edit(replace(run.membership.spec, suspend=False, max_attempts=2))
    run.cloud.servers = {}
    run.wait(SETTINGS.resync_interval)
    run.step()
    assert (run.ready.reason, run.status.failed) == (FailureReason.SERVER_NOT_RUNNING, 1)
    assert run.condition("Stalled") is not None
    assert run.ready.message.endswith("the annotation cce.nodepools.dev/reset-requested-at gives them back")
    run.annotate({OUR_RESET: "now"})
    assert run.step(Accepted(JOB)).intent is not None
