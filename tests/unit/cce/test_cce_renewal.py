"""Keys that renew themselves: once for all, in time, and live ones are kept when it fails.

Not for: how keys are asked for (`contract/test_cce_sources.py`).
"""

import asyncio
from datetime import UTC, datetime

import pytest

from nodepool_membership import redaction
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.exchange import TimedGrant
from nodepool_membership.cce.sources.renewal import IDLE_SECONDS, Renewing
from nodepool_membership.cce.sources.wire import TemporaryKey

LIFE = 1000.0


class Way:
    """Gives keys number 1, 2, ... or fails; may be held up."""

    def __init__(self) -> None:
        self.now = 0.0
        self.asked = 0
        self.error: IdentityError | None = None
        self.crash = False
        self.open = asyncio.Event()
        self.open.set()
        self.source = Renewing("a-user", "a-way", self.fetch, monotonic=lambda: self.now, random=lambda: 0.0)

    async def fetch(self) -> TimedGrant:
        self.asked += 1
        await self.open.wait()
        if self.crash:
            raise ZeroDivisionError
        if self.error is not None:
            raise self.error
        key = AccessKey(f"ACCESS-{self.asked}", f"secret-of-the-key-{self.asked}", f"token-of-the-key-{self.asked}")
        return TimedGrant(TemporaryKey(key, datetime(2026, 1, 1, tzinfo=UTC)), LIFE)

    async def current(self) -> str:
        return (await self.source.current()).access_key

    async def settle(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_all_who_wait_share_one_exchange() -> None:
    way = Way()
    way.open.clear()
    waiting = [asyncio.create_task(way.current()) for _ in range(50)]
    await way.settle()
    waiting[0].cancel()
    way.open.set()
    assert {await task for task in waiting[1:]} == {"ACCESS-1"}
    assert way.asked == 1


async def test_at_half_of_their_life_they_are_renewed_without_anybody_waiting() -> None:
    way = Way()
    assert await way.current() == "ACCESS-1"
    way.now = LIFE / 2 - 1
    assert (await way.current(), way.asked) == ("ACCESS-1", 1)
    way.now = LIFE / 2
    way.open.clear()
    assert await way.current() == "ACCESS-1"
    way.open.set()
    await way.settle()
    assert (await way.current(), way.asked) == ("ACCESS-2", 2)


async def test_live_keys_are_kept_when_a_renewal_fails_and_it_is_asked_with_growing_waits() -> None:
    way = Way()
    await way.current()
    way.error = IdentityError("IAM is away", reason=Reason.CLOUD_UNREACHABLE)
    asked: list[int] = []
    for second in range(int(LIFE) - 31):
        way.now = float(second)
        assert await way.current() == "ACCESS-1"
        await way.settle()
        if len(asked) < way.asked - 1:
            asked.append(second)
    # Doubling from a second to a minute.
    assert asked[:7] == [500, 501, 503, 507, 515, 531, 563]
    assert asked[8] - asked[7] == 60
    way.now = LIFE
    with pytest.raises(IdentityError, match="IAM is away"):
        await way.current()
    way.error = None
    way.now += 61
    assert await way.current() == f"ACCESS-{way.asked}"


async def test_after_a_failure_nobody_asks_before_the_time_that_was_said() -> None:
    way = Way()
    way.error = IdentityError("429", reason=Reason.THROTTLED, retry_after=30)
    for _ in range(1000):
        with pytest.raises(IdentityError, match="429"):
            await way.current()
    assert way.asked == 1
    way.now, way.error = 30.0, None
    assert await way.current() == "ACCESS-2"


async def test_refused_keys_are_renewed_once_for_all() -> None:
    way = Way()
    first = await way.source.current()
    assert await asyncio.gather(*(way.source.renewed(first) for _ in range(20))) == [True] * 20
    assert (await way.current(), way.asked) == ("ACCESS-2", 2)
    # One who comes late with the old keys.
    assert await way.source.renewed(first)
    assert way.asked == 2


async def test_refused_keys_stay_to_blame_if_there_are_no_others() -> None:
    way = Way()
    first = await way.source.current()
    way.error = IdentityError("IAM is away", reason=Reason.CLOUD_UNREACHABLE)
    assert not await way.source.renewed(first)
    assert await way.source.current() == first


async def test_refused_keys_are_given_up_when_the_trust_is_revoked_too() -> None:
    """What is wrong is then told by whoever gives keys, and CCE is not asked with them again."""
    way = Way()
    first = await way.source.current()
    way.error = IdentityError("the trust was revoked")
    outcomes = await asyncio.gather(*(way.source.renewed(first) for _ in range(9)), return_exceptions=True)
    assert [str(outcome) for outcome in outcomes] == ["the trust was revoked"] * 9
    assert way.asked == 2
    with pytest.raises(IdentityError, match="revoked"):
        await way.current()
    way.now, way.error = 2.0, None
    assert await way.current() == "ACCESS-3"


async def test_an_error_that_is_told_often_keeps_nothing_of_whoever_asked() -> None:
    way = Way()
    way.error = IdentityError("no")
    caught = []
    for _ in range(3):
        with pytest.raises(IdentityError) as error:
            await way.current()
        caught.append(error.value)
    assert len({id(error) for error in (*caught, way.error)}) == 4


async def test_an_exchange_that_fails_unexpectedly_is_logged_and_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    way = Way()
    way.crash = True
    with pytest.raises(IdentityError, match="see the operator's log") as caught:
        await way.current()
    assert caught.value.reason is Reason.CLOUD_UNREACHABLE
    assert "ZeroDivisionError" in caplog.text
    way.now, way.crash = 2.0, False
    assert await way.current() == "ACCESS-2"


async def test_its_name_in_budgets_lockouts_and_listings_outlives_its_keys() -> None:
    way = Way()
    before = way.source.identity, way.source.fingerprint
    await way.source.renewed(await way.source.current())
    assert (way.source.identity, way.source.fingerprint) == before
    assert not {"a-user", "a-way"} & set(before)


async def test_its_keys_are_known_to_the_redaction_at_each_use() -> None:
    way = Way()
    await way.current()
    assert "key-1" not in redaction.redact("x secret-of-the-key-1 token-of-the-key-1")


async def test_it_is_idle_after_an_hour_without_use() -> None:
    way = Way()
    await way.current()
    way.now = IDLE_SECONDS - 1
    assert not way.source.is_idle
    way.now = IDLE_SECONDS
    assert way.source.is_idle


async def test_close_ends_an_exchange_under_way() -> None:
    way = Way()
    way.open.clear()
    waiting = asyncio.create_task(way.current())
    await way.settle()
    await way.source.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
