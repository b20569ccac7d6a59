"""What memberships only list is kept aside until somebody looks at their namespace, and then counts as ever (P1, P16).

Not for: what counts where (`test_runtime_claims`, `test_runtime_claims_abroad`).
"""

from nodepool_membership.runtime.claims.claims import Claims
from unit.claims_world import World, having, intent, of, with_open
from unit.core_builders import SECOND, WINDOW, servers

X, Y = servers(2)


def steps_of(claims: Claims, namespace: str) -> int:
    """In how many steps its ids come into the index."""
    steps = 1
    while claims.index_some(namespace):
        steps += 1
    return steps


def test_who_looks_waits_for_no_list_of_another_namespace_that_binds_nobody() -> None:
    world, mine = World(), of("mine", X, namespace="victims")
    for number in range(3):
        world.claims.note(of(f"large-{number}", X, *servers(1000, 10), namespace="attackers", age=1))
    world.sees(mine)
    assert world.better(mine) == {}
    assert world.claims.reserve(mine, intent(X), world.now)
    assert steps_of(world.claims, "attackers") == 15
    assert world.better(of("large-0", X, namespace="attackers", age=1)) == {X: "victims/mine"}


def test_a_list_counts_in_its_own_namespace_before_it_was_looked_at() -> None:
    world, mine = World(), of("mine", X)
    world.claims.note(of("older", X, age=1))
    world.claims.note(mine)
    assert not world.claims.reserve(mine, intent(X), world.now)
    assert world.better(mine) == {X: "ns/older"}


def test_a_list_counts_abroad_as_soon_as_its_credentials_have_read_the_pool() -> None:
    world, mine, older = World(), of("mine", X), of("older", X, namespace="abroad", age=1)
    world.claims.note(older)
    world.sees(mine)
    assert world.better(mine) == {}
    world.claims.looked(older, saw=True)
    assert not world.claims.reserve(mine, intent(X), world.now)


def test_what_is_stored_of_a_membership_counts_at_once() -> None:
    for stored in (having(of("other", X, namespace="abroad"), (X,)), with_open(of("other", X, namespace="abroad"), X)):
        world, mine = World(), of("mine", X)
        world.claims.note(stored)
        world.sees(mine)
        assert world.better(mine) == {X: "abroad/other"}


def test_what_another_let_go_before_a_list_was_looked_at_is_not_absent_by_an_earlier_listing() -> None:
    world, mine, theirs = World(), of("mine", X), having(of("theirs", X, namespace="abroad"), (X,))
    world.claims.note(mine)
    world.claims.note(theirs)
    listed = world.now
    world.now += SECOND
    world.claims.stored(theirs, having(theirs))
    world.claims.drop(("abroad", "theirs"))
    assert world.better(mine) == {}
    assert not world.claims.reserve(mine, intent(X), listed)
    assert world.claims.reserve(mine, intent(X), world.now)


def test_a_list_that_goes_before_it_was_looked_at_leaves_nothing_behind() -> None:
    world = World()
    for number in range(20):
        world.claims.note(of("large", *servers(300), uid=f"uid-{number}"))
        world.claims.index_some("ns")
        world.claims.drop(("ns", "large"))
        world.now += WINDOW
    for _ in range(5):
        world.claims.drop(("ns", "large"))
    assert len(world.claims) == 0
    assert not world.claims.index_some("ns")
