"""The decision not to send after all, at the last moment (rule P5), and an end that cannot wait for a record.

Not for: answers of the cloud (`tests/contract`), or the order of writes and calls (`tests/cluster`).
"""

import asyncio
import logging
from datetime import datetime, timedelta

import httpx
import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Phase
from nodepool_membership.cce.budget import Budgets
from nodepool_membership.cce.errors import CloudError, NotSentError, WithheldError
from nodepool_membership.cce.listings import ListingKey
from nodepool_membership.core.calls import Accepted, Answer, NotSent
from nodepool_membership.runtime import troubles
from nodepool_membership.runtime.clouds import Access
from nodepool_membership.runtime.send import Sender
from nodepool_membership.runtime.store import Store
from scripted_cloud import CLUSTER, ENDPOINT, JOB, KEY, PROJECT, Wire, always, client
from unit.core_builders import NOW, a_batch, a_spec, an_object, server

MEMBERSHIP = an_object(a_spec(server(1)))
INTENT = a_batch(Phase.SUBMITTING, server(1), submitted=NOW)


class Records(Store):
    """Keeps answers in place of an API server."""

    def __init__(self) -> None:
        self.answers: list[Answer] = []

    async def answer(self, membership: Membership, intent: Batch, answer: Answer) -> None:
        assert (membership, intent) == (MEMBERSHIP, INTENT)
        self.answers.append(answer)


class World:
    def __init__(self) -> None:
        self.records = Records()
        self.wire = always(200, {"jobid": JOB})
        self.now = NOW
        self.leads = True
        self.sender = Sender(self.records, now=lambda: self.now, monotonic=lambda: 0.0, may_call=lambda: self.leads)

    def at(self, now: datetime) -> None:
        self.now = now

    async def send(self) -> Answer:
        key = ListingKey(ENDPOINT, PROJECT, CLUSTER, KEY.fingerprint)
        access = Access(client(self.wire), key, KEY.identity, Budgets(10, random=lambda: 0.0, clock=lambda: 0.0))
        await self.sender.send(MEMBERSHIP, INTENT, access)
        (answer,) = self.records.answers
        return answer


@pytest.fixture
def world() -> World:
    return World()


async def test_a_call_is_sent_until_60_s_after_its_intent(world: World) -> None:
    world.at(NOW + timedelta(seconds=60))
    assert await world.send() == Accepted(JOB)


async def test_nothing_is_sent_later(world: World) -> None:
    world.at(NOW + timedelta(seconds=61))
    answer = await world.send()
    assert answer == NotSent("more than 60 s lie between the stored intent and the call", Reason.PROGRESSING)
    assert world.wire.seen == []


async def test_nothing_is_sent_without_the_lease_but_recorded(world: World) -> None:
    world.leads = False
    answer = await world.send()
    assert answer == NotSent("the operator lost its lease before the call was sent", Reason.PROGRESSING)
    assert world.wire.seen == []


async def test_nothing_is_sent_once_the_end_began(world: World) -> None:
    await world.sender.close()
    assert await world.send() == NotSent("the operator is stopping", Reason.PROGRESSING)
    assert world.wire.seen == []


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (NotSentError("connection refused"), Reason.CLOUD_UNREACHABLE),
        (NotSentError("Incorrect IAM authentication", status=401, code="APIGW.0301"), Reason.UNAUTHENTICATED),
        (WithheldError("the operator is stopping"), Reason.PROGRESSING),
    ],
)
def test_what_kept_a_call_from_being_sent_is_no_trouble_of_the_network_unless_it_is(
    error: CloudError, reason: Reason
) -> None:
    answer = troubles.of_call(error)
    assert isinstance(answer, NotSent)
    assert answer.reason is reason


async def test_an_end_that_cannot_wait_names_the_call_that_is_under_way(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    called, never = asyncio.Event(), asyncio.Event()

    async def hang(_request: httpx.Request) -> httpx.Response:
        called.set()
        await never.wait()
        return httpx.Response(200)

    world.wire = Wire(hang)
    sending = asyncio.create_task(world.send())
    await called.wait()
    closing = asyncio.create_task(world.sender.close())
    await asyncio.sleep(0)
    assert not closing.done()
    closing.cancel()
    async with asyncio.timeout(5):
        await asyncio.wait([closing, sending])
    assert closing.cancelled()
    assert world.records.answers == []
    (said,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "call under way" in said.getMessage()
    assert (getattr(said, "batch", None), getattr(said, "object", None)) == (1, "cce-system/gpu-workers")
