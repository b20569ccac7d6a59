"""Who leads, by client-go's rules, on moments of the test's choice; nothing is read or written here."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.kube.lease import Holding, Lease
from nodepool_membership.runtime.scheduling.leader import Election, Timing

TIMING = Timing(lease=15, deadline=10)
OTHER = Holding("other", 15, "2026-01-01T00:00:00.000000Z", "2026-01-01T00:00:00.000000Z", 4)


def lease(holding: Holding, version: int = 1) -> Lease:
    return Lease(str(version), holding)


def leading(now: float = 100.0) -> Election:
    """An election that was won at `now`."""
    election = Election("me", TIMING)
    election.saw(lease(Holding()), now)
    bid = election.bid(now, "w")
    assert bid is not None
    election.wrote(lease(bid, 2), now, now)
    return election


def test_a_free_lease_is_taken_and_counted() -> None:
    election = Election("me", TIMING)
    assert election.bid(0, "w") is None
    election.saw(lease(Holding()), 0)
    assert election.bid(0, "w") == Holding("me", 15, "w", "w", 1)
    assert not election.leads(0)
    assert not election.is_lost(0)


@pytest.mark.parametrize("renewed", ["2026-01-01T00:00:00.000000Z", "2999-01-01T00:00:00.000000Z", "", "nonsense"])
def test_anothers_lease_ends_by_our_own_clock_whatever_its_times_say(renewed: str) -> None:
    election = Election("me", TIMING)
    record = lease(Holding("other", 15, renewed, renewed, 4))
    election.saw(record, 1000)
    election.saw(record, 1014.9)
    assert election.bid(1014.9, "w") is None
    assert election.bid(1015, "w") == Holding("me", 15, "w", "w", 5)


def test_a_change_of_the_record_starts_its_time_anew_a_change_of_the_object_does_not() -> None:
    election = Election("me", TIMING)
    election.saw(lease(OTHER, 1), 0)
    election.saw(lease(OTHER, 2), 10)
    assert election.bid(15, "w") is not None
    election.saw(lease(Holding("other", 15, OTHER.acquire_time, "later", 4), 3), 14)
    assert election.bid(28.9, "w") is None
    assert election.bid(29, "w") is not None


def test_the_holder_says_how_long_and_who_says_nothing_is_given_our_time() -> None:
    election = Election("me", TIMING)
    election.saw(lease(Holding("other", 40)), 0)
    assert election.bid(39, "w") is None
    election.saw(lease(Holding("other")), 50)
    assert election.bid(64, "w") is None
    assert election.bid(65, "w") is not None


def test_a_write_whose_answer_was_lost_is_recognised_as_ours() -> None:
    election = Election("me", TIMING)
    mine = Holding("me", 15, "a", "r", 7)
    election.saw(lease(mine), 0)
    assert election.bid(0, "w") == Holding("me", 15, "a", "w", 7)
    assert not election.leads(0)


def test_a_leader_may_call_until_the_deadline_and_never_again() -> None:
    election = leading(100)
    assert election.leads(109.9)
    assert not election.leads(110)
    assert election.is_lost(110)
    bid = election.bid(110, "w")
    assert bid is not None
    election.wrote(lease(bid, 3), 110, 110)
    assert not election.leads(110)


def test_a_renewal_that_comes_too_late_does_not_bring_the_leader_back() -> None:
    """Nobody asked between the deadline and the answer: a process that was frozen."""
    election = leading(100)
    election.wrote(lease(Holding("me", 15, "w", "x", 1), 3), 109, 111)
    assert not election.leads(111)


def test_a_renewal_counts_from_before_it_was_sent() -> None:
    election = leading(100)
    election.wrote(lease(Holding("me", 15, "w", "x", 1), 3), 104, 109)
    assert election.leads(113.9)
    assert election.until_deadline(110) == 4
    assert not election.leads(114)


def test_a_lease_with_another_holder_is_lost_at_once() -> None:
    election = leading(100)
    election.saw(lease(OTHER, 9), 101)
    assert not election.leads(101)


def test_a_machine_that_was_suspended_lost_its_lease() -> None:
    election = leading(100)
    assert not election.leads(100 + 8 * 3600)


@given(
    lease_seconds=st.floats(1, 600),
    share=st.floats(0.1, 0.99),
    sent=st.floats(0, 100),
    on_the_way=st.floats(0, 100),
    asked=st.floats(0, 1000),
)
def test_two_never_lead_at_once_while_clocks_run_alike(
    lease_seconds: float, share: float, sent: float, on_the_way: float, asked: float
) -> None:
    """Whenever the write arrived: from then on the other one waits for longer than the writer believes in it."""
    timing = Timing(lease_seconds, lease_seconds * share)
    leader, follower = Election("leader", timing), Election("follower", timing)
    leader.saw(lease(Holding()), sent)
    bid = leader.bid(sent, "w")
    assert bid is not None
    stored = lease(bid, 2)
    leader.wrote(stored, sent, sent + on_the_way)
    follower.saw(stored, sent + on_the_way)
    moment = sent + on_the_way + asked
    assert not (leader.leads(moment) and follower.bid(moment, "w") is not None)


def test_the_lease_is_written_in_whole_seconds_rounded_up() -> None:
    assert Timing.of(timedelta(milliseconds=1500), timedelta(seconds=1)).whole_seconds == 2
    assert TIMING.retry == 2
