"""A member that the node list does not show is gone only after three looks; many at once are not believed (P13)."""

from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import DriftPolicy
from nodepool_membership.api.status import Status
from nodepool_membership.core.observed.drift import LISTINGS_WITHOUT, Absence, gone, is_implausible, track
from nodepool_membership.core.observed.observation import PoolReport
from unit.core_builders import NOW, SECOND, SETTINGS, Cloud, Run, a_spec, active, an_object, servers

APART = timedelta(minutes=5)
IDS = servers(20)


def test_only_listings_a_resync_interval_apart_are_counted() -> None:
    known = track({}, {"a"}, NOW, APART)
    known = track(known, {"a"}, NOW + APART - SECOND, APART)
    assert known == {"a": Absence(1, NOW, NOW)}
    known = track(known, {"a"}, NOW + APART, APART)
    assert not gone(known)
    assert gone(track(known, {"a"}, NOW + 2 * APART, APART)) == {"a"}
    assert track(known, set(), NOW + 2 * APART, APART) == {}


@pytest.mark.parametrize(("absent", "members", "wrong"), [(2, 5, False), (3, 30, False), (3, 29, True), (20, 20, True)])
def test_what_is_implausible(absent: int, members: int, wrong: bool) -> None:
    assert is_implausible(absent, members) == wrong


def settled(policy: DriftPolicy = DriftPolicy.REPORT, *, here: int = 19) -> Run:
    run = Run(an_object(a_spec(*IDS, drift=policy), Status(1, last_batch=1, members=IDS)), Cloud(active(IDS[:here])))
    run.step()
    return run


def test_one_look_says_nothing_and_the_third_reports() -> None:
    run = settled()
    assert (run.ready.status, run.status.joined) == ("True", 20)
    run.step_thrice()
    assert run.causes == {IDS[19]: (FailureReason.MEMBER_MISSING, 0)}
    assert (run.ready.reason, run.status.joined, run.status.failed) == (FailureReason.MEMBER_MISSING, 19, 1)
    run.cloud.nodes = active(IDS)
    run.step()
    assert (run.causes, run.ready.status) == ({}, "True")


def test_a_restart_counts_anew() -> None:
    run = settled()
    run.step()
    run.absences = {}
    run.wait(APART)
    run.step()
    assert run.causes == {}


def test_under_rejoin_a_member_is_added_again_a_settle_window_after_the_first_look_without_its_node() -> None:
    run = settled(DriftPolicy.REJOIN)
    while run.now + APART < NOW + SETTINGS.settle_window:
        run.wait(APART)
        assert run.step().intent is None
    assert [(hold.server_ids, hold.since) for hold in run.status.holds] == [(IDS[19:], NOW)]
    assert (run.status.joined, run.status.pending) == (19, 1)
    run.wait(APART)
    intent = run.step().intent
    assert intent is not None
    assert (intent.server_ids, intent.attempt) == (IDS[19:], 1)


def test_who_may_have_been_there_while_nobody_looked_is_away_since_the_look_after_that() -> None:
    """As while a job runs for an hour: one look at its end is no reason to wipe a member at once."""
    run = settled(DriftPolicy.REJOIN)
    run.wait(APART)
    run.step()
    run.wait(SETTINGS.settle_window * 2)
    assert run.step().intent is None
    assert [hold.since for hold in run.status.holds] == [run.now]
    run.wait(SETTINGS.settle_window - SECOND)
    assert run.step().intent is None
    run.wait(SECOND)
    intent = run.step().intent
    assert intent is not None
    assert intent.server_ids == IDS[19:]


def test_who_was_there_while_it_was_suspended_was_not_gone() -> None:
    run = settled(DriftPolicy.REJOIN)
    spec = run.membership.spec
    for _ in range(LISTINGS_WITHOUT - 1):
        run.step()
        run.wait(APART)
    run.edit(replace(spec, suspend=True))
    run.cloud.nodes = active(IDS)
    run.step()
    run.wait(SETTINGS.settle_window * 2)
    run.edit(spec)
    run.cloud.nodes = active(IDS[:19])
    assert run.step().intent is None
    assert run.status.members == IDS


def test_a_suspension_begins_the_count_anew() -> None:
    run = settled(DriftPolicy.REJOIN)
    spec = run.membership.spec
    for _ in range(LISTINGS_WITHOUT - 1):
        run.step()
        run.wait(APART)
    run.edit(replace(spec, suspend=True))
    run.step()
    run.wait(APART)
    run.edit(spec)
    run.step()
    assert run.causes == {}


def test_a_member_that_vanished_is_not_named_by_another_list_before_its_window_is_over() -> None:
    run = settled(DriftPolicy.REJOIN)
    run.step_thrice()
    assert IDS[19] in run.status.live_ids
    run.edit(a_spec(*IDS[:19], drift=DriftPolicy.REJOIN))
    run.step()
    assert IDS[19] in run.status.live_ids


@pytest.mark.parametrize("policy", DriftPolicy)
def test_a_mass_disappearance_is_reported_and_nothing_is_added(policy: DriftPolicy) -> None:
    run = settled(policy, here=10)
    assert run.step_thrice().intent is None
    assert run.ready.reason is FailureReason.LISTING_IMPLAUSIBLE
    assert run.status.members == IDS
    run.wait(APART)
    assert run.step().intent is None


def test_of_members_that_vanished_days_apart_nobody_says_that_it_was_at_once() -> None:
    run = settled(here=20)
    for here in (19, 18, 17):
        run.cloud.nodes = active(IDS[:here])
        run.wait(timedelta(days=1))
        assert run.step_thrice().intent is None
    told = {group.reason: (group.count, group.message) for group in run.status.failures}
    assert told[FailureReason.MEMBER_MISSING][0] == 2
    count, message = told[FailureReason.LISTING_IMPLAUSIBLE]
    assert count == 1
    assert message.startswith(
        "the member is gone, and more than a tenth of all members were when it was missed, whether"
    )


def test_a_listing_that_disagrees_with_the_pools_own_count_proves_no_absence() -> None:
    run = settled(DriftPolicy.REJOIN)
    run.cloud.pool = PoolReport("", 20)
    for _ in range(5):
        run.wait(APART)
        assert run.step().intent is None
    assert (run.causes, run.status.joined) == ({}, 20)


def test_whoever_is_seen_again_was_not_gone_also_in_a_listing_that_proves_no_absence() -> None:
    run = settled(DriftPolicy.REJOIN)
    run.wait(APART)
    run.step()
    run.cloud.nodes, run.cloud.pool = active(IDS), PoolReport("", 19)
    run.wait(SETTINGS.settle_window)
    run.step()
    run.cloud.nodes, run.cloud.pool = active(IDS[:19]), PoolReport("")
    run.wait(SECOND)
    run.step()
    run.wait(APART)
    assert run.step().intent is None
    assert (run.causes, run.status.holds, run.status.joined) == ({}, (), 20)
