"""What another membership let go of is not absent by a listing that began before (rules P1, P16).

Not for: who has the right to a server (`test_runtime_claims`).
"""

import pytest

from unit.claims_world import World, having, intent, of, with_open
from unit.core_builders import SECOND, WINDOW, servers

X, Y, Z = servers(3)


@pytest.mark.parametrize("ended", ["joined and left the list", "given up by an edit", "gone with its object"])
def test_what_another_let_go_is_not_absent_by_what_was_listed_before(ended: str) -> None:
    """Its call may have done something to the server that the listing was too early to show (rule P1)."""
    world, mine = World(), of("mine", X)
    theirs = having(of("theirs", X), (X,))
    world.sees(mine, theirs)
    listed = world.now
    world.now += SECOND
    match ended:
        case "joined and left the list":
            world.claims.stored(theirs, having(theirs))
            world.sees(having(of("theirs", Y)))
        case "given up by an edit":
            world.sees(having(of("theirs", Y)))
        case _:
            world.claims.drop(("ns", "theirs"))
    assert world.better(mine) == {}
    assert not world.claims.reserve(mine, intent(X), listed)
    freed = world.claims.freed(mine)
    assert freed is not None
    assert freed > listed
    assert world.claims.reserve(mine, intent(X), freed)


@pytest.mark.parametrize("swept", [False, True])
@pytest.mark.parametrize("ended", ["given up by an edit", "given up by one with members", "gone with its object"])
def test_whoever_only_listed_a_server_hides_nothing_when_it_lets_go(ended: str, swept: bool) -> None:
    """Else an editor who lists servers of others and edits that list without end puts off their calls without end."""
    world, mine = World(), of("mine", X)
    with_members = ended == "given up by one with members"
    theirs = having(of("theirs", X, Z), (Z,)) if with_members else of("theirs", X)
    world.sees(mine, theirs)
    listed = world.now
    world.now += SECOND
    match ended:
        case "gone with its object":
            world.claims.drop(("ns", "theirs"))
        case "given up by an edit":
            world.sees(of("theirs", Y))
        case _:
            world.sees(having(of("theirs", Y, Z), (Z,)))
    for _ in range(4 if swept else 0):
        world.sees(mine)
    assert world.better(mine) == {}
    assert world.claims.reserve(mine, intent(X), listed)


def test_what_an_object_that_is_gone_had_open_is_not_absent_by_what_was_listed_in_its_window() -> None:
    world, mine = World(), of("mine", X)
    world.sees(mine, with_open(of("theirs", X), X))
    world.claims.drop(("ns", "theirs"))
    world.now += WINDOW - SECOND
    listed = world.now
    world.now += 2 * SECOND
    assert world.better(mine) == {}
    assert not world.claims.reserve(mine, intent(X), listed)
    assert world.claims.reserve(mine, intent(X), world.now)


def test_what_nobody_else_claims_is_absent_by_any_listing() -> None:
    world, mine, theirs = World(), of("mine", X), having(of("theirs", Y), (Y,))
    world.sees(mine, theirs)
    listed = world.now
    world.now += SECOND
    world.claims.stored(theirs, having(theirs))
    freed = world.claims.freed(mine)
    assert freed is None or freed <= listed
    assert world.claims.reserve(mine, intent(X), listed)


def test_an_edit_of_ones_own_hides_nothing_that_another_let_go_before() -> None:
    world, mine, theirs = World(), of("mine", X), having(of("theirs", X), (X,))
    world.sees(mine, theirs)
    listed = world.now
    world.now += SECOND
    world.sees(having(of("theirs", Y)))
    edited = of("mine", X, Y)
    world.sees(edited)
    assert not world.claims.reserve(edited, intent(X), listed)


def test_what_one_that_is_gone_only_listed_is_let_go_of_once_and_not_anew_until_its_calls_are_over() -> None:
    """Else no listing would ever be young enough, and all who share a server with it would look without end."""
    world, mine = World(), of("mine", X, Y)
    world.sees(mine, with_open(of("theirs", X, Y), Y))
    world.claims.drop(("ns", "theirs"))
    gone = world.now
    world.now += SECOND
    world.sees(mine)
    assert world.better(mine) == {Y: "ns/theirs"}
    assert world.claims.freed(mine) == gone
    assert world.claims.reserve(mine, intent(X), world.now)


def test_a_clock_that_is_set_back_keeps_nobody_waiting() -> None:
    world, mine, theirs = World(), of("mine", X), having(of("theirs", X), (X,))
    world.sees(mine, theirs)
    world.claims.drop(("ns", "theirs"))
    world.now -= 3600 * SECOND
    assert world.better(mine) == {}
    assert world.claims.freed(mine) == world.now
    world.now += SECOND
    assert world.claims.reserve(mine, intent(X), world.now)
