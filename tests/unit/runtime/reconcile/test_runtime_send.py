"""The decision not to send after all, at the last moment (rule P5).

Not for: answers of the cloud (`tests/contract`), or the order of writes and calls (`tests/cluster`, `test_program`).
"""

from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Phase
from nodepool_membership.cce.budget import Budgets
from nodepool_membership.cce.errors import CloudError, NotSentError, WithheldError
from nodepool_membership.cce.snapshots import SnapshotKey
from nodepool_membership.core.decision.record import Accepted, Answer, NotSent
from nodepool_membership.runtime.cloud import error_mapping
from nodepool_membership.runtime.cloud.clouds import Access
from nodepool_membership.runtime.reconcile.send import Sender
from scripted_cloud import CLUSTER, ENDPOINT, JOB, KEY, PROJECT, always, client
from unit.core_builders import NOW, a_batch, a_spec, an_object, server

MEMBERSHIP = an_object(a_spec(server(1)))
INTENT = a_batch(Phase.SUBMITTING, server(1), submitted=NOW)


class World:
    def __init__(self) -> None:
        self.wire = always(200, {"jobid": JOB})
        self.now = NOW
        self.leads = True
        self.sender = Sender(now=lambda: self.now, monotonic=lambda: 0.0, may_call=lambda: self.leads)

    def at(self, now: datetime) -> None:
        self.now = now

    async def send(self) -> Answer:
        key = SnapshotKey(ENDPOINT, PROJECT, CLUSTER, KEY.fingerprint)
        access = Access(client(self.wire), key, KEY, Budgets(10, random=lambda: 0.0, clock=lambda: 0.0))
        return await self.sender.call(MEMBERSHIP, INTENT, access)


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
    answer = error_mapping.of_call(error)
    assert isinstance(answer, NotSent)
    assert answer.reason is reason


def test_a_pool_is_doubted_where_it_was_seen_and_nowhere_else(world: World) -> None:
    world.sender.doubt(MEMBERSHIP)
    pool = MEMBERSHIP.spec.node_pool
    assert world.sender.is_doubted(pool)
    for other in (
        replace(pool, endpoint="https://another"),
        replace(pool, project_id="another"),
        replace(pool, cluster_id="another"),
        replace(pool, node_pool_id="another"),
    ):
        assert not world.sender.is_doubted(other)
