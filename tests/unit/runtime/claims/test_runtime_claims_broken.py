"""What a membership claims whose status cannot be read, or is an older one, although calls of it may still act (P2).

Not for: histories of it (`tests/explore/test_statuses.py`).
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.status import Hold, Phase
from nodepool_membership.core.state.ledger import ledger_of
from unit.claims_world import World, having, intent, of, with_open
from unit.core_builders import SECOND, WINDOW, a_batch, servers

X, Y = servers(2)


def spoiled(membership: Membership) -> UnreadableStatus:
    return UnreadableStatus(membership.metadata, membership.spec, "jobs: a list is wanted", None)


def may_call(world: World, membership: Membership) -> bool:
    world.now += SECOND
    return world.claims.reserve(membership, intent(X), world.now)


@pytest.mark.parametrize("broken", ["unreadable", "older", "lost"])
def test_calls_that_the_process_remembers_count_as_long_as_the_status_does_not_tell_of_them(broken: str) -> None:
    world, waits, older = World(), of("waits", X, namespace="abroad", age=5), of("called", Y)
    called = with_open(older, X)
    world.sees(waits, called)
    known = ledger_of(called.status)
    was = replace(older, status=replace(older.status, last_batch=0))
    found: dict[str, Membership | UnreadableStatus] = {"unreadable": spoiled(older), "older": was, "lost": older}
    for _ in range(3):
        world.sees(found[broken], known=known)
        world.now += WINDOW + SECOND
        assert not may_call(world, waits)
    # Its calls are over: so the process has stored.
    over = having(called, jobs=())
    world.sees(over, known=ledger_of(over.status))
    world.now += WINDOW + SECOND
    assert may_call(world, waits)


def test_who_leaves_a_list_whose_status_cannot_be_read_may_have_been_called_for() -> None:
    """Nobody remembers its calls: they were of an earlier process."""
    world, waits, listed = World(), of("waits", X, namespace="abroad", age=5), of("called", X, Y)
    world.sees(waits, spoiled(listed))
    assert not may_call(world, waits)
    world.sees(spoiled(of("called", Y)))
    assert not may_call(world, waits)
    world.now += WINDOW + SECOND
    assert may_call(world, waits)


def test_a_hold_is_not_lost_with_an_older_status() -> None:
    world, waits, older = World(), of("waits", X, namespace="abroad", age=5), having(of("held", X))
    held = replace(older, status=replace(older.status, last_batch=2, holds=(Hold((X,), None),)))
    world.sees(waits, held)
    assert not may_call(world, waits)
    world.sees(older, known=ledger_of(held.status))
    assert not may_call(world, waits)
    world.now += WINDOW + SECOND
    assert may_call(world, waits)


def test_nothing_lingers_where_the_status_tells_what_became_of_calls() -> None:
    world, waits, called = World(), of("waits", X, namespace="abroad", age=5), with_open(of("called", Y), X)
    world.sees(waits, called)
    world.sees(having(called, jobs=(a_batch(Phase.SUCCEEDED, X),)), known=ledger_of(called.status))
    assert may_call(world, waits)


def test_nothing_is_called_for_by_a_listing_from_before_the_clock_was_set_back() -> None:
    world, mine, theirs = World(), of("mine", X), having(of("theirs", X), (X,))
    world.sees(mine, theirs)
    world.now += 10 * SECOND
    listed = world.now
    world.now += SECOND
    world.claims.drop(("ns", "theirs"))
    world.now -= 5 * SECOND
    assert not world.claims.reserve(mine, intent(X), listed)
