"""The order of a reconcile where two memberships meet: claims are checked and reserved right before the intent (P16).

Not for: decisions (`test_core_rivals`), or the index (`test_runtime_claims`).
"""

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

import turns
from nodepool_membership.api.membership import InvalidObjectError, Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Batch, Operation, Phase, Status, Wait
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.core.program.effects import WriteStatus
from nodepool_membership.runtime.claims import claims
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.reconcile.store import Store
from unit.core_builders import JOB, NOW, SECOND, SETTINGS, a_batch, a_spec, active, servers
from unit.process_builders import Api, Process, Quiet

X, Y = servers(2)
DAY = timedelta(days=1)
CALLED = Status(
    1, last_batch=1, members=(Y,), jobs=(Batch(1, Operation.ADD, 1, Phase.SUCCEEDED, 1, JOB, submit_time=NOW - SECOND),)
)
"""It has called a moment ago."""
OLD, YOUNG, BROKEN = ("cce-system", "old"), ("cce-system", "young"), ("cce-system", "broken")


async def test_a_server_that_another_takes_between_plan_and_intent_is_not_sent_twice() -> None:
    api = Api()
    api.make(YOUNG, X)
    process = Process(api)
    await process.started()
    api.held[YOUNG] = asyncio.Event()
    young = asyncio.create_task(process.reconciler.reconcile(YOUNG))
    await api.reached.wait()
    api.make(OLD, X, age=60)
    await process.reconciler.reconcile(OLD)
    api.held[YOUNG].set()
    assert await young == 0.0
    assert process.calls.sent == [("old", (X,))]
    assert api.objects[YOUNG].status.jobs == ()
    del api.held[YOUNG]
    await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is Reason.CONFLICT
    assert api.objects[YOUNG].metadata.finalizers == ()


async def test_work_waits_for_the_first_list_which_tells_what_all_claim() -> None:
    api = Api()
    api.make(YOUNG, X, Y)
    api.make(OLD, X, age=60)
    process = Process(api)
    assert await process.reconciler.reconcile(YOUNG) == 10.0
    assert api.opened == []
    await process.started()
    assert sorted(process.woken) == [OLD, YOUNG]
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("young", (Y,))]


async def test_whose_calls_count_yet_is_read_before_anybody_adds() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.make(OLD, Y, age=60, status=CALLED)
    process = Process(api)
    await process.started()
    assert process.woken == [OLD]
    assert await process.reconciler.reconcile(YOUNG) == 10.0
    assert api.opened == []
    await process.reconciler.reconcile(OLD)
    assert YOUNG in process.woken
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("young", (X,))]


async def test_servers_that_wait_for_long_do_not_keep_the_others_from_their_resync() -> None:
    api = Api()
    api.make(OLD, X, Y)
    locked = Wait(Operation.ADD, Reason.LOCKED, "busy", NOW + timedelta(minutes=60))
    status = Status(1, last_batch=1, members=(X,), waits=(locked,))
    api.objects[OLD] = replace(api.objects[OLD], status=status)
    process = Process(api)
    process.cloud.nodes = active([X])
    await process.started()
    wait = await process.reconciler.reconcile(OLD)
    assert wait is not None
    assert 0 < wait <= 1.1 * 300
    assert process.calls.sent == []


async def test_a_cloud_that_asks_for_a_longer_wait_is_not_looked_at_before() -> None:
    """Promise 7: `Retry-After` is for looks, too, also where it outlasts the resync."""
    api = Api()
    api.make(OLD, X)
    process = Process(api)
    process.cloud.trouble = Trouble(Reason.THROTTLED, "too many requests", retry_after=600.0)
    await process.started()
    assert await process.reconciler.reconcile(OLD) == 600.0


async def test_what_cannot_be_read_at_all_does_not_keep_the_others_waiting() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.broken.add(BROKEN)
    process = Process(api)
    await process.started()
    with pytest.raises(InvalidObjectError):
        await process.reconciler.reconcile(BROKEN)
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("young", (X,))]


async def test_a_read_that_does_not_come_is_shown_as_the_reason_for_the_wait() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.make(OLD, Y, status=CALLED)
    process = Process(api)
    await process.started()
    await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is None
    process.seconds = 11
    await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is Reason.STARTING
    await process.reconciler.reconcile(OLD)
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("young", (X,))]
    await process.reconciler.close()


async def test_owners_in_other_namespaces_are_named_in_the_log_only(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.make(YOUNG, X)
    process = Process(api)
    await process.started()
    owner = api.objects[YOUNG]
    meta = replace(owner.metadata, namespace="secret", name="list", uid="older", creation_timestamp=NOW - DAY)
    process.claims.note(replace(owner, metadata=meta, status=replace(owner.status, last_batch=1, members=(X,))))
    with caplog.at_level("INFO"):
        for _ in range(2):
            await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is Reason.CONFLICT
    assert "secret" not in repr(api.objects[YOUNG].status)
    assert [r.claimedBy for r in caplog.records if hasattr(r, "claimedBy")] == [["secret/list"]]


@pytest.mark.parametrize("live", [False, True])
async def test_who_has_no_room_for_its_claims_stops_others_only_if_calls_may_act_for_it(
    monkeypatch: pytest.MonkeyPatch, *, live: bool
) -> None:
    monkeypatch.setattr(claims, "_SLOTS", 1 if live else 2)
    monkeypatch.setattr(claims, "_KEPT", 0)
    api = Api()
    api.make(OLD, Y)
    api.make(YOUNG, X)
    if live:
        young = api.objects[YOUNG]
        api.objects[YOUNG] = replace(young, status=replace(young.status, last_batch=1, members=(X,)))
    process = Process(api)
    await process.started()
    await process.reconciler.reconcile(OLD)
    await process.reconciler.reconcile(YOUNG)
    if live:
        assert not process.parts.initial_sync.is_complete
        return
    assert api.reason(YOUNG) is Reason.TOO_MANY_MEMBERSHIPS
    assert process.parts.initial_sync.is_complete
    assert process.calls.sent == [("old", (Y,))]


async def test_removals_that_are_withheld_are_told_to_their_owner(caplog: pytest.LogCaptureFixture) -> None:
    api = Api()
    api.make(YOUNG, X)
    process = Process(api)
    posted: list[tuple[object, ...]] = []

    class Posted(Quiet):
        def post(self, *event: object) -> None:
            posted.append(event)

    store = Store(api, Posted(), Metrics(), process.claims, process.cloud, SETTINGS)
    theirs = {X: Rival("ns/a", better=True), Y: Rival("secret/list", better=True, foreign=True)}
    store.tell_withheld(api.objects[YOUNG], theirs)
    ((_, reason, kind, _, text),) = posted
    assert (reason, kind) == ("RemovalWithheld", "Warning")
    assert "1 by another namespace, 1 by ns/a" in str(text)
    assert [r.claimedBy for r in caplog.records if hasattr(r, "claimedBy")] == [["ns/a", "secret/list"]]


async def test_what_is_stored_is_claimed_at_once() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.make(OLD, X, age=60)
    process = Process(api)
    old, young = api.objects[OLD], api.objects[YOUNG]
    process.claims.note(old)
    process.claims.note(young)
    await process.parts.store.perform(WriteStatus(young, replace(young.status, members=(X,))))
    assert process.claims.rivals(old)[X].recorded


async def test_calls_that_the_first_list_told_of_count_though_an_older_status_is_restored_before_a_look() -> None:
    api = Api()
    api.make(OLD, X, age=60)
    api.make(YOUNG, Y, status=Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, X, submitted=NOW - DAY),)))
    process = Process(api)
    await process.started()
    young = api.objects[YOUNG]
    assert process.claims.rivals(api.objects[OLD])[X].better
    for _ in range(2):
        await process.parts.memories.note(replace(young, status=Status(1, last_batch=0)))
        assert process.claims.rivals(api.objects[OLD])[X].better


async def test_nothing_is_removed_that_a_list_names_which_changed_while_its_key_is_worked() -> None:
    api = Api()
    status = Status(1, last_batch=1, members=(X, Y), surplus_since=NOW - timedelta(hours=1))
    api.make(OLD, Y, status=replace(status, observed_removal_policy=RemovalPolicy.REMOVE))
    api.make(YOUNG)
    api.broken.add(BROKEN)
    process = Process(api)
    process.cloud.nodes = active([X, Y])
    await process.started()
    for key in (BROKEN, YOUNG):
        process.unread.changed(key)
    with pytest.raises(InvalidObjectError):
        await process.reconciler.reconcile(BROKEN)
    await process.reconciler.reconcile(YOUNG)
    assert process.unread.others(OLD) == ()
    # Its list is edited, and nobody reads it: the look at it is still under way, or waits for its turn.
    for key in (BROKEN, YOUNG):
        process.unread.changed(key)
    named = api.objects[YOUNG]
    api.objects[YOUNG] = replace(named, spec=a_spec(X))
    assert await process.reconciler.reconcile(OLD) == pytest.approx(15, rel=0.11)
    assert process.calls.sent == []
    api.objects[YOUNG] = named
    await process.reconciler.reconcile(OLD)
    assert process.calls.sent == [("old", (X,))]


async def test_a_removal_reads_no_changed_lists_that_cannot_count_for_it() -> None:
    """Else an editor who changes many large lists without end keeps the removals of others waiting."""
    api = Api()
    status = Status(1, last_batch=1, members=(X, Y), surplus_since=NOW - timedelta(hours=1))
    api.make(OLD, Y, status=replace(status, observed_removal_policy=RemovalPolicy.REMOVE))
    api.make(YOUNG)
    abroad = [("abroad", "one"), ("abroad", "two"), ("unknown", "new")]
    for key in abroad[:2]:
        api.make(key, X)
        api.objects[key] = in_namespace(api.objects[key], key[0])
    process = Process(api)
    process.cloud.nodes = active([X, Y])
    await process.started()
    for key in (YOUNG, *abroad):
        process.unread.changed(key)
    await process.reconciler.reconcile(OLD)
    assert process.calls.sent == [("old", (X,))]
    assert set(api.asked) & {YOUNG, *abroad} == {YOUNG, ("unknown", "new")}


async def test_a_removal_reads_no_list_that_was_read_in_its_own_turn_meanwhile() -> None:
    api = Api()
    status = Status(1, last_batch=1, members=(X, Y), surplus_since=NOW - timedelta(hours=1))
    api.make(OLD, Y, status=replace(status, observed_removal_policy=RemovalPolicy.REMOVE))
    api.make(YOUNG)
    process = Process(api)
    process.cloud.nodes = active([X, Y])
    await process.started()
    process.unread.changed(YOUNG)
    other = ("cce-system", "other")
    process.unread.changed(other)
    unread = process.unread

    async def read(namespace: str, name: str) -> Membership | None:
        if name == "young":
            unread.read(other, unread.change(other))
        return await Api.read(api, namespace, name)

    api.read = read  # type: ignore[method-assign]
    await process.reconciler.reconcile(OLD)
    assert process.calls.sent == [("old", (X,))]
    assert YOUNG in api.asked
    assert other not in api.asked


def in_namespace(found: Membership, namespace: str) -> Membership:
    return replace(found, metadata=replace(found.metadata, namespace=namespace))


async def test_a_change_during_a_read_is_still_unread_after_it() -> None:
    unread = Unread()
    unread.changed(OLD)
    before = unread.change(OLD)
    unread.changed(OLD)
    unread.read(OLD, before)
    assert unread.others(YOUNG) == (OLD,)
    unread.read(OLD, unread.change(OLD))
    assert unread.others(YOUNG) == ()


async def test_the_loop_turns_while_a_long_list_comes_into_the_index() -> None:
    """Whoever waits for another membership's list waits for a small part of it."""
    api = Api()
    api.make(YOUNG, *servers(5000))
    process = Process(api)
    await process.started()
    with turns.counted() as others:
        await process.parts.memories.note(api.objects[YOUNG])
    assert others.count >= 19
