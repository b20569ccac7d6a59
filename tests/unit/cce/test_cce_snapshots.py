"""Snapshots are shared: one under way per key, nobody gets one that had begun when they asked (rules P13, P14).

Not for: taking one; test_survey.
"""

from datetime import datetime, timedelta

import pytest

from nodepool_membership.cce.snapshots import AT_ONCE, Snapshot, SnapshotKey, Taking
from nodepool_membership.core.observed.observation import ClusterReport, Node, NodeTable, PoolReport
from unit.snapshots_world import KEEP, KEY, NO, PACE, POOL, Cloud, names


async def test_all_who_ask_before_it_begins_share_one_and_are_told_when_it_is_there() -> None:
    cloud = Cloud()
    asked = cloud.now
    for number in range(50):
        assert cloud.snapshots.find(KEY, ("ns", str(number)), POOL, asked, Taking(cloud.prepare, cloud.take)) is None
    await cloud.settle()
    assert (len(cloud.begun), cloud.woken) == (1, [])
    cloud.tick(60)
    await cloud.end(0)
    assert cloud.woken == names(*map(str, range(50)))
    found = [await cloud.ask(str(number), after=asked) for number in range(50)]
    assert all(isinstance(one, Snapshot) and one is found[0] for one in found)
    assert len(cloud.begun) == 1


async def test_who_asks_while_one_is_under_way_shares_the_next() -> None:
    cloud = Cloud()
    await cloud.ask("early")
    cloud.tick()
    asked = cloud.now
    for number in range(50):
        await cloud.ask(f"late{number}", after=asked)
    assert len(cloud.begun) == 1
    await cloud.end(0)
    assert cloud.woken == names("early")
    assert len(cloud.begun) == 2
    await cloud.end(1)
    assert len(cloud.woken) == 51
    found = await cloud.ask("late7", after=asked)
    assert isinstance(found, Snapshot)
    assert found.begun >= asked
    assert len(cloud.begun) == 2


async def test_who_was_read_before_it_began_joins_one_that_is_under_way() -> None:
    cloud = Cloud()
    known = cloud.now
    cloud.tick()
    await cloud.ask("first")
    cloud.tick()
    assert await cloud.ask("known", after=known) is None
    assert cloud.recent("lenient") is None
    await cloud.end(0)
    assert cloud.woken == names("first", "known", "lenient")
    found = [await cloud.ask("known", after=known), cloud.recent("lenient")]
    assert isinstance(found[0], Snapshot)
    assert found[1] is found[0]
    assert len(cloud.begun) == 1


async def test_who_has_changed_since_it_began_waits_for_the_next() -> None:
    cloud = Cloud()
    await cloud.ask("changed")
    cloud.tick()
    await cloud.end(0)
    assert await cloud.ask("changed") is None
    assert len(cloud.begun) == 2


async def test_looking_whether_one_is_at_hand_orders_none() -> None:
    cloud = Cloud()
    assert cloud.snapshots.peek(KEY, ("ns", "first"), POOL, None) is None
    await cloud.settle()
    assert cloud.begun == []
    found = await cloud.taken()
    assert cloud.snapshots.peek(KEY, ("ns", "another"), POOL, found.begun) is found


@pytest.mark.parametrize("place", range(4))
async def test_each_part_of_the_key_parts_snapshots(place: int) -> None:
    cloud = Cloud()
    other = SnapshotKey(*("x" if at == place else part for at, part in enumerate(KEY)))
    await cloud.ask("first")
    await cloud.ask("second", key=other)
    assert cloud.running == 2
    await cloud.end(0)
    await cloud.end(1)
    one, two = await cloud.ask("first"), await cloud.ask("second", key=other)
    assert isinstance(one, Snapshot)
    assert isinstance(two, Snapshot)
    assert one is not two


async def test_each_snapshot_has_the_pools_that_are_asked_for() -> None:
    cloud = Cloud()
    await cloud.ask("first", pool="a")
    asked = cloud.now
    await cloud.ask("second", pool="b", after=asked)
    await cloud.end(0)
    # It has begun after the second asked, and has not what that asked for.
    assert await cloud.ask("third", pool="b", after=asked) is None
    await cloud.end(1)
    assert cloud.pools == [{"a"}, {"a", "b"}]
    assert cloud.woken == names("first", "second", "third")
    cloud.tick(11 * KEEP)
    cloud.snapshots.prune()
    await cloud.ask("second", pool="b")
    assert cloud.pools[2] == {"b"}


async def test_a_failure_is_told_once_to_everybody_who_waited_and_to_nobody_else() -> None:
    cloud = Cloud()
    asked = cloud.now
    for who in "ab":
        await cloud.ask(who, after=asked)
    cloud.tick()
    await cloud.ask("late")
    await cloud.end(0, NO)
    assert [await cloud.ask(who, after=asked) for who in "ab"] == [NO, NO]
    assert await cloud.ask("a", after=asked) is None
    await cloud.end(1)
    assert isinstance(await cloud.ask("late", after=asked), Snapshot)


async def test_a_failure_leaves_the_last_snapshot_to_those_who_did_not_wait() -> None:
    cloud = Cloud()
    found = await cloud.taken()
    cloud.tick()
    await cloud.ask("waits")
    await cloud.end(1, NO)
    assert cloud.recent() is found
    assert cloud.recent("waits") == NO


async def test_who_got_an_earlier_one_is_not_told_that_a_later_one_failed() -> None:
    cloud = Cloud()
    asked = cloud.now
    for who in "ab":
        await cloud.ask(who, after=asked)
    await cloud.end(0)
    assert isinstance(await cloud.ask("a", after=asked), Snapshot)
    cloud.tick()
    await cloud.ask("c")
    await cloud.end(1, NO)
    assert [isinstance(await cloud.ask(who, after=asked), Snapshot) for who in "ab"] == [True, True]
    assert await cloud.ask("c") == NO


async def test_a_failure_keeps_no_older_one_for_longer() -> None:
    cloud = Cloud()
    await cloud.taken()
    cloud.tick(KEEP)
    await cloud.ask("waits")
    await cloud.end(1, NO)
    cloud.tick()
    assert cloud.recent() is None


async def test_a_surprise_is_raised_where_somebody_waited_for_it() -> None:
    cloud = Cloud()
    await cloud.ask("waits")
    await cloud.end(0, ValueError("surprise"))
    with pytest.raises(ValueError, match="surprise"):
        await cloud.ask("waits")
    assert await cloud.ask("waits") is None
    assert len(cloud.begun) == 2


async def test_a_pool_that_comes_into_doubt_is_looked_at_once_more_before_it_is_told() -> None:
    cloud = Cloud()
    asked = cloud.now
    await cloud.ask("doubted")
    cloud.tick()
    await cloud.end(0, 1)
    # The count said one node more than the list.
    assert (cloud.woken, len(cloud.begun)) == ([], 2)
    assert await cloud.ask("another", after=asked) is None
    await cloud.end(1, 1)
    assert cloud.woken == names("doubted", "another")
    found = await cloud.ask("doubted", after=asked)
    assert isinstance(found, Snapshot)
    assert found.doubtful == {POOL}
    cloud.tick(PACE + 1)
    await cloud.ask("doubted")
    await cloud.end(2, 1)
    assert len(cloud.begun) == 3, "it was told before"


async def test_a_pool_in_doubt_is_none_of_the_others_trouble() -> None:
    cloud = Cloud()
    asked = cloud.now
    cloud.snapshots.find(KEY, ("ns", "mine"), "mine", asked, Taking(cloud.prepare, cloud.take))
    cloud.snapshots.find(KEY, ("ns", "theirs"), "theirs", asked, Taking(cloud.prepare, cloud.take))
    await cloud.settle()

    def of_both(begun: datetime, _pools: frozenset[str], _count: int) -> Snapshot:
        nodes = NodeTable(begun, [Node("s", "u", "mine", "Active")])
        pools = {"mine": PoolReport("", 1), "theirs": PoolReport("", 1)}
        return Snapshot(begun, nodes, pools, {}, ClusterReport("Available"), 0.0)

    assert of_both(asked, frozenset(), 0).doubtful == {"theirs"}
    cloud.make = of_both
    await cloud.end(0)
    assert cloud.woken == names("mine")
    assert isinstance(await cloud.ask("mine", pool="mine", after=asked), Snapshot)


async def test_who_comes_while_a_snapshot_waits_for_its_turn_joins_it() -> None:
    """It has not begun: its start will be later than their asking."""
    cloud = Cloud()
    for number in range(AT_ONCE - 1):
        await cloud.ask("other", key=KEY._replace(cluster_id=str(number)))
    await cloud.ask("early")
    cloud.tick()
    await cloud.ask("late")
    assert len(cloud.begun) == AT_ONCE - 1
    await cloud.end(0)
    await cloud.end(AT_ONCE - 1)
    assert cloud.woken == names("other", "early", "late")


async def test_at_the_end_what_is_under_way_is_given_up() -> None:
    cloud = Cloud()
    await cloud.ask("waits")
    await cloud.snapshots.close()
    assert cloud.running == 0
    assert cloud.woken == []


async def test_what_became_of_each_and_how_many_shared_it_is_told() -> None:
    cloud = Cloud()
    asked = cloud.now
    for who in "abc":
        await cloud.ask(who, after=asked)
    await cloud.end(0)
    for who in "abc":
        await cloud.ask(who, after=asked)
    assert (cloud.ended, cloud.used) == ([("whole", 3)], 3)
    cloud.tick()
    await cloud.ask("a")
    await cloud.end(1, NO)
    await cloud.ask("b")
    await cloud.end(2, 1)
    await cloud.end(3, 1)
    assert cloud.ended[1:] == [("failed", 1), ("again", 1), ("doubtful", 1)]
    cloud.now -= timedelta(seconds=20)
    assert cloud.recent() is None
    assert cloud.ended[4:] == [("clockSetBack", 0)]
    assert cloud.used == 3
