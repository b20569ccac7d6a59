"""A key that is refused is left alone before the gateway locks it (rule P23)."""

import asyncio
import contextlib

import pytest

from nodepool_membership.cce.errors import (
    CloudError,
    ForbiddenError,
    NotSentError,
    UnauthenticatedError,
    UnavailableError,
)
from nodepool_membership.cce.lockout import PAUSE_SECONDS, WRONG_BY_KEY, WRONG_IN_A_ROW, Lockout, Lockouts
from times import Clock

WRONG = UnauthenticatedError("verify aksk signature fail", status=401, code="APIGW.0301")
EXPIRED = UnauthenticatedError("signature expired, signature date: x", status=401, code="APIGW.0301")
DENIED = ForbiddenError("no", status=403, code="CCE.01403001")


async def call(lockout: Lockout, error: CloudError | None = None, *, changes: bool = False) -> bool:
    """A call that ends with this error, or well; whether it was made."""
    made = False
    try:
        async with lockout.call(changes=changes):
            made = True
            if error is not None:
                raise error
    except CloudError:
        pass
    return made


async def refused(lockout: Lockout, times: int) -> None:
    for _ in range(times):
        assert await call(lockout, WRONG)


@pytest.mark.parametrize("changes", [False, True])
async def test_after_three_wrong_answers_in_a_row_nothing_is_called_for_five_minutes(*, changes: bool) -> None:
    clock = Clock(1000.0)
    lockout = Lockout(clock=clock)
    for _ in range(3):
        assert await call(lockout, WRONG, changes=changes)
    kind = NotSentError if changes else UnauthenticatedError
    with pytest.raises(kind, match="signature fail; not called again"):
        async with lockout.call(changes=changes):
            pytest.fail("called")
    clock.now += 299.9
    assert not await call(lockout, changes=changes)
    clock.now += 0.1
    assert await call(lockout, changes=changes)


async def test_after_the_pause_one_more_wrong_answer_closes_it_again() -> None:
    clock = Clock(1000.0)
    lockout = Lockout(clock=clock)
    await refused(lockout, WRONG_IN_A_ROW)
    clock.now += PAUSE_SECONDS
    await refused(lockout, 1)
    assert not await call(lockout)


@pytest.mark.parametrize("between", [None, DENIED])
async def test_an_answer_to_a_good_signature_ends_the_row(between: CloudError | None) -> None:
    lockout = Lockout(clock=Clock(1000.0))
    for _ in range(5):
        await refused(lockout, 2)
        assert await call(lockout, between)


@pytest.mark.parametrize("between", [UnavailableError("gone"), UnavailableError("html", status=502)])
async def test_what_says_nothing_of_the_signature_does_not_end_the_row(between: CloudError) -> None:
    lockout = Lockout(clock=Clock(1000.0))
    await refused(lockout, 2)
    assert await call(lockout, between)
    await refused(lockout, 1)
    assert not await call(lockout)


async def test_an_expired_signature_is_about_clocks_not_about_the_key() -> None:
    lockout = Lockout(clock=Clock(1000.0))
    for _ in range(10):
        assert await call(lockout, EXPIRED)


async def test_of_many_reads_at_once_only_three_are_wrong() -> None:
    """More than 5 in a row, and the gateway would lock the key for others who use it."""
    lockout = Lockout(clock=Clock(1000.0))
    made = 0

    async def read() -> None:
        nonlocal made
        try:
            async with lockout.call(changes=False):
                made += 1
                await asyncio.sleep(0)
                raise WRONG
        except UnauthenticatedError:
            pass

    await asyncio.gather(*(read() for _ in range(20)))
    assert made == WRONG_IN_A_ROW


async def test_a_key_that_is_known_to_be_good_is_used_by_all_at_once() -> None:
    lockout = Lockout(clock=Clock(1000.0))
    assert await call(lockout)
    together = asyncio.Barrier(20)

    async def read() -> None:
        async with lockout.call(changes=False):
            await together.wait()

    async with asyncio.timeout(5):
        await asyncio.gather(*(read() for _ in range(20)))


async def test_a_read_that_is_given_up_leaves_room() -> None:
    lockout = Lockout(clock=Clock(1000.0))

    async def hang() -> None:
        async with lockout.call(changes=False):
            await asyncio.Event().wait()

    hanging = [asyncio.create_task(hang()) for _ in range(WRONG_IN_A_ROW)]
    waiting = asyncio.create_task(call(lockout))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    hanging[0].cancel()
    async with asyncio.timeout(5):
        assert await waiting
    for task in hanging:
        task.cancel()


async def test_a_secret_that_changes_is_tried_at_once() -> None:
    clock = Clock(1000.0)
    lockouts = Lockouts(clock=clock)
    old = lockouts.get("https://a", "old", "old")
    await refused(old, WRONG_IN_A_ROW)
    assert lockouts.get("https://a", "old", "old") is old
    assert not await call(lockouts.get("https://a", "old", "old"))
    assert await call(lockouts.get("https://a", "new", "new"))
    assert await call(lockouts.get("https://b", "old", "old"))


async def test_the_keys_of_others_do_not_make_one_forgotten() -> None:
    lockouts = Lockouts(clock=Clock(1000.0))
    for number in range(WRONG_IN_A_ROW):
        await refused(lockouts.get("https://a", "mine", "mine"), 1)
        assert await call(lockouts.get("https://a", str(number), str(number)))
    assert not await call(lockouts.get("https://a", "mine", "mine"))


async def test_those_of_old_secrets_are_forgotten() -> None:
    clock = Clock(1000.0)
    lockouts = Lockouts(clock=clock)
    for day in range(100):
        await refused(lockouts.get("https://a", str(day), str(day)), WRONG_IN_A_ROW)
        clock.now += 86_400
    assert len(lockouts._lockouts) <= 2


async def test_wrong_secrets_with_one_access_key_count_together_and_stop_nobody_who_was_right() -> None:
    clock = Clock(1000.0)
    lockouts = Lockouts(clock=clock)
    right = lockouts.get("https://a", "right", "AK")
    assert await call(right)
    await refused(lockouts.get("https://a", "wrong1", "AK"), 3)
    await refused(lockouts.get("https://a", "wrong2", "AK"), 2)
    for name in ("wrong2", "wrong3"):
        with pytest.raises(UnauthenticatedError, match="with other secret keys"):
            async with lockouts.get("https://a", name, "AK").call(changes=False):
                pytest.fail("called")
    assert await call(lockouts.get("https://a", "other", "AK2"))
    assert await call(lockouts.get("https://b", "wrong3", "AK"))
    assert await call(right)
    await refused(lockouts.get("https://a", "wrong3", "AK"), 3)
    clock.now += PAUSE_SECONDS
    assert await call(lockouts.get("https://a", "wrong1", "AK"))


async def test_no_more_unproven_contents_of_an_access_key_are_tried_at_once_than_may_be_wrong() -> None:
    lockouts = Lockouts(clock=Clock(1000.0))
    inside, most, may_end = 0, 0, asyncio.Event()

    async def read(number: int) -> None:
        nonlocal inside, most
        with contextlib.suppress(CloudError):
            async with lockouts.get("https://a", str(number), "AK").call(changes=False):
                inside += 1
                most = max(most, inside)
                await may_end.wait()
                inside -= 1
                raise WRONG

    async with asyncio.TaskGroup() as group:
        for number in range(20):
            group.create_task(read(number))
        await asyncio.sleep(0)
        may_end.set()
    assert most == WRONG_BY_KEY
