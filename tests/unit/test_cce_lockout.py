"""A key that is refused is left alone before the gateway locks it (rule P23)."""

import asyncio

import pytest

from nodepool_membership.cce.errors import (
    CloudError,
    ForbiddenError,
    NotSentError,
    UnauthenticatedError,
    UnavailableError,
)
from nodepool_membership.cce.lockout import PAUSE_SECONDS, WRONG_IN_A_ROW, Lockout, Lockouts

WRONG = UnauthenticatedError("verify aksk signature fail", status=401, code="APIGW.0301")
EXPIRED = UnauthenticatedError("signature expired, signature date: x", status=401, code="APIGW.0301")
DENIED = ForbiddenError("no", status=403, code="CCE.01403001")


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


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
    clock = Clock()
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
    clock = Clock()
    lockout = Lockout(clock=clock)
    await refused(lockout, WRONG_IN_A_ROW)
    clock.now += PAUSE_SECONDS
    await refused(lockout, 1)
    assert not await call(lockout)


@pytest.mark.parametrize("between", [None, DENIED])
async def test_an_answer_to_a_good_signature_ends_the_row(between: CloudError | None) -> None:
    lockout = Lockout(clock=Clock())
    for _ in range(5):
        await refused(lockout, 2)
        assert await call(lockout, between)


@pytest.mark.parametrize("between", [UnavailableError("gone"), UnavailableError("html", status=502)])
async def test_what_says_nothing_of_the_signature_does_not_end_the_row(between: CloudError) -> None:
    lockout = Lockout(clock=Clock())
    await refused(lockout, 2)
    assert await call(lockout, between)
    await refused(lockout, 1)
    assert not await call(lockout)


async def test_an_expired_signature_is_about_clocks_not_about_the_key() -> None:
    lockout = Lockout(clock=Clock())
    for _ in range(10):
        assert await call(lockout, EXPIRED)


async def test_of_many_reads_at_once_only_three_are_wrong() -> None:
    """More than 5 in a row, and the gateway would lock the key for others who use it."""
    lockout = Lockout(clock=Clock())
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
    lockout = Lockout(clock=Clock())
    assert await call(lockout)
    together = asyncio.Barrier(20)

    async def read() -> None:
        async with lockout.call(changes=False):
            await together.wait()

    async with asyncio.timeout(5):
        await asyncio.gather(*(read() for _ in range(20)))


async def test_a_read_that_is_given_up_leaves_room() -> None:
    lockout = Lockout(clock=Clock())

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
    clock = Clock()
    lockouts = Lockouts(clock=clock)
    old = lockouts.get("https://a", "old")
    await refused(old, WRONG_IN_A_ROW)
    assert lockouts.get("https://a", "old") is old
    assert not await call(lockouts.get("https://a", "old"))
    assert await call(lockouts.get("https://a", "new"))
    assert await call(lockouts.get("https://b", "old"))


async def test_the_keys_of_others_do_not_make_one_forgotten() -> None:
    lockouts = Lockouts(clock=Clock())
    for number in range(WRONG_IN_A_ROW):
        await refused(lockouts.get("https://a", "mine"), 1)
        assert await call(lockouts.get("https://a", str(number)))
    assert not await call(lockouts.get("https://a", "mine"))


async def test_those_of_old_secrets_are_forgotten() -> None:
    clock = Clock()
    lockouts = Lockouts(clock=clock)
    for day in range(100):
        await refused(lockouts.get("https://a", str(day)), WRONG_IN_A_ROW)
        clock.now += 86_400
    assert len(lockouts._lockouts) <= 2
