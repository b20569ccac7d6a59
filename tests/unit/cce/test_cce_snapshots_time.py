"""How long a snapshot serves, how many begin in a time, and clocks that are set back (rules P13, P21).

Not for: who shares which (`test_cce_snapshots`).
"""

import asyncio
import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.snapshots import AT_ONCE, BURST, Pace, Snapshot
from nodepool_membership.core.observed.observation import Trouble
from unit.snapshots_world import KEEP, KEY, NO, PACE, POOL, Cloud, names


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Sleeps of the pace, which end at once: whoever waits for one moves the clock before."""
    found: list[float] = []
    sleep = asyncio.sleep

    async def at_once(seconds: float) -> None:
        if seconds:
            found.append(seconds)
        await sleep(0)

    monkeypatch.setattr("nodepool_membership.cce.snapshots.asyncio.sleep", at_once)
    return found


async def test_after_a_rest_some_begin_at_once_and_then_two_a_poll_interval(slept: list[float]) -> None:
    cloud = Cloud()
    for _ in range(BURST):
        cloud.tick()
        await cloud.taken()
    assert slept == []
    cloud.tick()
    await cloud.ask("one more")
    assert slept == [pytest.approx(PACE - BURST)]
    assert len(cloud.begun) == BURST + 1


def test_in_any_time_there_are_two_a_poll_interval_and_a_few() -> None:
    pace, now, begun = Pace(PACE), 0.0, 0
    while now < 100 * PACE:
        now += pace.wait(now)
        pace.begin(now)
        begun += 1
    assert begun <= 100 + BURST
    assert not pace.is_rested(now)
    assert pace.is_rested(now + BURST * PACE)
    assert pace.wait(now + PACE) == 0
    assert pace.wait(now) == pytest.approx(PACE)


async def test_only_so_many_of_an_endpoint_run_at_once_and_of_a_namespace_one_less() -> None:
    cloud = Cloud()
    for number in range(6):
        await cloud.ask("one", key=KEY._replace(cluster_id=str(number)))
    assert cloud.running == AT_ONCE - 1
    for number in range(6, 9):
        await cloud.ask("one", key=KEY._replace(cluster_id=str(number)), namespace="another")
        assert cloud.running == AT_ONCE
    for number in range(9):
        await cloud.end(number)
    assert (cloud.most, cloud.running) == (AT_ONCE, 0)


async def test_a_namespace_whose_snapshots_never_end_keeps_no_other_of_its_endpoint_waiting() -> None:
    cloud = Cloud()
    for number in range(400):
        await cloud.ask("hangs", key=KEY._replace(cluster_id=str(number)), namespace="attackers")
    asked = cloud.now
    for number in range(3):
        key = KEY._replace(cluster_id=f"mine-{number}")
        await cloud.ask("mine", after=asked, key=key)
        await cloud.end(len(cloud.begun) - 1)
        assert isinstance(await cloud.ask("mine", after=asked, key=key), Snapshot)


async def test_who_shares_a_cluster_with_a_namespace_that_waits_for_many_has_a_turn_of_its_own() -> None:
    cloud = Cloud()
    for number in range(AT_ONCE):
        await cloud.ask("hangs", key=KEY._replace(cluster_id=str(number)), namespace="attackers")
    asked = cloud.now
    await cloud.ask("first of the cluster", namespace="attackers")
    before = len(cloud.begun)
    await cloud.ask("mine", after=asked)
    assert len(cloud.begun) == before + 1
    await cloud.end(before)
    assert isinstance(await cloud.ask("mine", after=asked), Snapshot)


async def test_who_waits_for_keys_keeps_nobody_waiting_for_a_turn() -> None:
    cloud = Cloud()
    cloud.keys.clear()
    for number in range(2 * AT_ONCE):
        key = KEY._replace(cluster_id=str(number), credential=str(number))
        await cloud.ask("no keys yet", key=key, namespace=f"attackers-{number}")
    assert (cloud.prepared, cloud.running) == (2 * AT_ONCE, 0)
    cloud.keys.set()
    asked = cloud.now
    await cloud.ask("mine", after=asked)
    assert cloud.running == AT_ONCE


async def test_without_keys_no_snapshot_is_taken_and_all_who_wait_are_told_why() -> None:
    cloud = Cloud()
    cloud.no_keys = NO
    await cloud.ask("a")
    assert cloud.begun == []
    assert cloud.woken == names("a")
    assert await cloud.ask("a") == NO
    assert cloud.ended == [("failed", 1)]


async def test_an_endpoint_that_does_not_answer_keeps_nobody_waiting_but_its_own() -> None:
    cloud = Cloud()
    for number in range(3 * AT_ONCE):
        await cloud.ask("hangs", key=KEY._replace(endpoint="https://silent", cluster_id=str(number)))
    asked = cloud.now
    await cloud.ask("another", after=asked)
    await cloud.end(len(cloud.begun) - 1)
    assert isinstance(await cloud.ask("another", after=asked), Snapshot)


async def test_it_is_freed_when_it_is_too_old_to_be_shared_and_nothing_is_left() -> None:
    cloud = Cloud()
    called: list[tuple[float, Callable[..., object]]] = []
    loop = asyncio.get_running_loop()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "call_later", lambda delay, what: called.append((delay, what)))
        found = await cloud.taken()
        freed = weakref.ref(found.nodes)
        del found
        cloud.tick(KEEP)
        cloud.snapshots.prune()
        gc.collect()
        assert freed() is not None
        ((delay, prune),) = called
        assert delay > KEEP
        # Without anybody asking: a timer of the loop does it.
        cloud.tick(delay)
        prune()
    cloud.begun.clear()
    gc.collect()
    assert freed() is None
    assert not cloud.snapshots._shared


async def test_what_is_under_way_or_waited_for_is_spared() -> None:
    cloud = Cloud()
    asked = cloud.now
    await cloud.ask("first")
    cloud.tick(10 * KEEP)
    cloud.snapshots.prune()
    await cloud.end(0)
    cloud.snapshots.prune()
    assert isinstance(await cloud.ask("first", after=asked), Snapshot)
    assert cloud.most == 1


async def test_a_snapshot_of_before_the_clock_was_set_back_is_not_used() -> None:
    """Its begin looks later than the read that wants a newer one: it would prove absence as of too early (P13, P21)."""
    cloud = Cloud()
    old = await cloud.taken()
    cloud.now -= timedelta(seconds=20)
    assert cloud.recent() is None
    await cloud.settle()
    # Not even once the clock has caught up.
    cloud.tick(21)
    assert cloud.snapshots.peek(KEY, ("ns", "first"), POOL, old.begun) is None
    await cloud.end(1)
    found = cloud.recent()
    assert isinstance(found, Snapshot)
    assert found.begun < old.begun


async def test_who_waits_while_the_clock_is_set_back_waits_for_the_next() -> None:
    cloud = Cloud()
    await cloud.ask("waits")
    cloud.now -= timedelta(seconds=20)
    await cloud.end(0)
    assert await cloud.ask("waits") is None
    await cloud.end(1)
    assert isinstance(await cloud.ask("waits"), Snapshot)


async def test_a_snapshot_proves_absence_to_all_for_a_while_and_to_who_waited_however_late_they_come() -> None:
    cloud = Cloud()
    asked = cloud.now
    await cloud.ask("waits")
    await cloud.end(0)
    cloud.tick(PACE)
    assert isinstance(await cloud.ask("another", after=asked), Snapshot)
    cloud.tick(1)
    assert await cloud.ask("another", after=asked) is None
    cloud.tick(5 * KEEP)
    cloud.snapshots.prune()
    assert isinstance(await cloud.ask("waits", after=asked), Snapshot)
    # Its look may ask twice; its next one wants news.
    assert isinstance(await cloud.ask("waits", after=asked), Snapshot)
    cloud.tick(PACE + 1)
    assert await cloud.ask("waits", after=asked) is None


async def test_a_snapshot_shows_who_is_there_for_longer_and_counts_from_its_end() -> None:
    cloud = Cloud()
    await cloud.ask("first")
    cloud.tick(KEEP * 2)
    await cloud.end(0)
    cloud.tick(KEEP)
    assert isinstance(cloud.recent(), Snapshot)
    cloud.tick()
    assert cloud.recent() is None


@pytest.mark.parametrize(("asked", "seconds"), [(40.0, 40.0), (None, 2 * PACE), (1.0, 2 * PACE), (9999.0, 600.0)])
async def test_a_pause_that_the_cloud_asks_for_is_kept_by_all_and_told_to_each(
    asked: float | None, seconds: float
) -> None:
    cloud = Cloud()
    await cloud.ask("first")
    cloud.tick()
    await cloud.ask("waits")
    slow = Trouble(Reason.THROTTLED, "too many requests", asked)
    await cloud.end(0, slow)
    assert await cloud.ask("first") == slow
    # Who waits for the next, and who comes meanwhile: nothing is asked of the cloud for them.
    assert cloud.woken == [("ns", "first"), ("ns", "waits")]
    assert await cloud.ask("waits") == replace(slow, retry_after=seconds)
    cloud.tick(seconds - 1)
    told = await cloud.ask("another")
    assert isinstance(told, Trouble)
    assert told.retry_after == pytest.approx(1.0)
    assert len(cloud.begun) == 1
    cloud.tick()
    assert await cloud.ask("another") is None
    assert len(cloud.begun) == 2


async def test_a_pause_takes_nothing_from_who_can_do_with_what_is_there() -> None:
    cloud = Cloud()
    found = await cloud.taken()
    cloud.tick()
    await cloud.ask("waits")
    await cloud.end(1, Trouble(Reason.THROTTLED, "too many requests", 40.0))
    assert cloud.recent() is found
    assert await cloud.ask("known", after=found.begun) is found


async def test_other_troubles_keep_nobody_from_asking() -> None:
    cloud = Cloud()
    await cloud.ask("first")
    await cloud.end(0, NO)
    assert await cloud.ask("another") is None


async def test_one_that_takes_longer_than_many_poll_intervals_is_had_by_all_who_waited_and_no_other_begins() -> None:
    cloud = Cloud()
    asked = cloud.now
    assert await cloud.ask("waits") is None
    cloud.tick(20 * PACE)
    assert await cloud.ask("joins", after=asked) is None
    assert await cloud.ask("changed meanwhile") is None
    changed = cloud.now
    assert len(cloud.begun) == 1
    await cloud.end(0)
    assert isinstance(await cloud.ask("waits", after=asked), Snapshot)
    assert isinstance(await cloud.ask("joins", after=asked), Snapshot)
    assert await cloud.ask("passes by", after=asked) is None
    assert (len(cloud.begun), cloud.most) == (2, 1)
    await cloud.end(1)
    assert isinstance(await cloud.ask("changed meanwhile", after=changed), Snapshot)
    assert isinstance(await cloud.ask("passes by", after=asked), Snapshot)
