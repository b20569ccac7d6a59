"""The index of claims: who has the right to a server, checked and reserved in one step, compactly (rule P16).

Not for: interleavings of two reconciles (`property.test_claims`), or what a conflict does (`test_core_rivals`).
"""

import sys
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from unittest.mock import patch

import pytest

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.status import Hold, Operation, Recovery, Status
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.runtime.claims import claims as module
from nodepool_membership.runtime.claims import index
from nodepool_membership.runtime.claims.claimed import NoRoomError
from nodepool_membership.runtime.claims.index import Index
from unit.claims_world import World, having, intent, of, with_open
from unit.core_builders import NOW, SECOND, WINDOW, a_spec, server, servers

X, Y, Z = servers(3)


def test_the_older_membership_has_the_right_and_is_named() -> None:
    world = World()
    old, young = of("old", X, Y, age=2), of("young", Y, Z, age=1)
    world.sees(young, old)
    assert world.claims.rivals(young) == {Y: Rival("ns/old", better=True)}
    assert world.claims.rivals(old) == {Y: Rival("ns/young", better=False)}


def test_of_memberships_made_in_the_same_second_the_uid_decides() -> None:
    world = World()
    one, other = of("one", X, uid="b"), of("other", X, uid="a")
    world.sees(one, other)
    assert world.better(one) == {X: "ns/other"}
    assert world.better(other) == {}


def test_a_record_outranks_age_and_an_open_batch_a_record() -> None:
    world = World()
    old, member, batch = of("old", X, age=3), of("member", X, age=2), of("batch", X, age=1)
    world.sees(old, having(member, members=(X,)))
    assert world.claims.rivals(old) == {X: Rival("ns/member", better=True, recorded=True)}
    world.sees(with_open(batch, X))
    assert world.better(old) == world.better(member) == {X: "ns/batch"}
    assert world.better(with_open(batch, X)) == {}


def test_an_open_batch_and_a_record_claim_ids_that_left_the_list() -> None:
    world = World()
    left, other = of("left", age=1), of("other", X, Y, age=2)
    world.sees(having(with_open(left, X), members=(Y,)), other)
    assert world.better(other) == {X: "ns/left", Y: "ns/left"}


def test_an_owner_that_is_suspended_or_deleted_keeps_its_right_while_it_exists() -> None:
    world = World()
    owner, other = of("owner", X, age=1), of("other", X)
    meta = replace(owner.metadata, deletion_timestamp=NOW)
    world.sees(replace(owner, metadata=meta, spec=replace(owner.spec, suspend=True)), other)
    assert world.better(other) == {X: "ns/owner"}


def test_who_waits_is_woken_when_the_owner_lets_go() -> None:
    world = World()
    owner, other, bystander = of("owner", X, Y, age=1), of("other", X), of("bystander", Y, age=2)
    world.sees(owner, other, bystander)
    for membership in (owner, other, bystander):
        world.claims.rivals(membership)
    world.sees(owner)
    assert world.woken == []
    world.sees(of("owner", Y, age=1))
    assert world.woken == [("ns", "other")]
    assert world.claims.rivals(other) == {}
    world.sees(owner)
    assert world.better(other) == {X: "ns/owner"}
    world.woken.clear()
    world.claims.drop(("ns", "owner"))
    assert world.woken == [("ns", "other")]
    assert world.claims.rivals(other) == {}


def test_who_waits_is_woken_when_a_batch_of_the_owner_ends_without_a_record() -> None:
    world = World()
    old, young = of("old", X, age=1), with_open(of("young", X), X)
    world.sees(old, young)
    assert world.better(old) == {X: "ns/young"}
    ended = having(young, jobs=())
    world.claims.stored(young, ended)
    assert world.woken == [("ns", "old")]
    assert world.better(old) == {}
    assert world.better(ended) == {X: "ns/old"}


def test_a_reservation_is_refused_where_another_has_the_right_and_then_changes_nothing() -> None:
    world = World()
    old, young = of("old", X, age=1), of("young", X, Y)
    world.sees(old, young)
    assert not world.claims.reserve(young, intent(X, Y), world.now)
    assert world.claims.reserve(old, intent(X), world.now)
    assert world.claims.reserve(young, intent(Y), world.now)


def test_a_reservation_holds_against_an_older_membership_until_it_is_known_to_have_come_to_nothing() -> None:
    world = World()
    young = of("young", X)
    world.sees(young)
    assert world.claims.reserve(young, intent(X), world.now)
    old = of("old", X, age=1)
    world.sees(old)
    assert world.better(old) == {X: "ns/young"}
    assert not world.claims.reserve(old, intent(X), world.now)
    world.sees(young)
    assert world.claims.reserve(old, intent(X), world.now)


def test_a_reservation_ends_with_a_status_that_does_not_hold_it() -> None:
    world = World()
    young, old = of("young", X), of("old", X, age=1)
    world.sees(young)
    world.claims.reserve(young, intent(X), world.now)
    world.claims.stored(young, having(young, members=()))
    world.sees(old)
    assert world.better(old) == {}


def test_a_reservation_becomes_an_open_batch_and_then_a_record() -> None:
    world = World()
    young, old = of("young", X), of("old", X, age=1)
    world.sees(young)
    world.claims.reserve(young, intent(X), world.now)
    stored = with_open(young, X)
    world.claims.stored(young, stored)
    world.sees(old, stored)
    assert world.better(old) == {X: "ns/young"}
    done = having(stored, jobs=(), members=(X,))
    world.claims.stored(stored, done)
    assert world.claims.rivals(old) == {X: Rival("ns/young", better=True, recorded=True)}
    world.claims.stored(done, having(done, members=()))
    assert world.better(old) == {}


def test_nothing_is_removed_that_another_names() -> None:
    world = World()
    owner, other = having(of("owner", age=1), members=(X, Y)), of("other", X)
    world.sees(owner, other)
    assert world.better(owner) == {}
    assert not world.claims.reserve(owner, intent(X, operation=Operation.REMOVE), world.now)
    assert world.claims.reserve(owner, intent(Y, operation=Operation.REMOVE), world.now)


def test_nothing_is_reserved_for_an_object_that_is_not_known() -> None:
    world = World()
    world.sees(of("pool", X))
    assert not world.claims.reserve(of("pool", X, uid="another"), intent(X), world.now)
    assert not world.claims.reserve(of("unknown", X), intent(X), world.now)


@pytest.mark.parametrize("created_anew", [False, True])
def test_open_batches_of_an_object_that_is_gone_hold_for_a_settle_window(*, created_anew: bool) -> None:
    world = World()
    gone, other = with_open(of("gone", X, Y), X), of("other", X, Y, age=1)
    world.sees(gone, other)
    assert world.claims.rivals(other)[X].until is None
    if created_anew:
        again = of("gone", X, uid="another")
        world.sees(again)
        assert world.better(again) == {X: "ns/gone"}
    else:
        world.claims.drop(("ns", "gone"))
    assert world.better(other) == {X: "ns/gone"}
    assert world.claims.rivals(other)[X].until == NOW + WINDOW
    world.now += WINDOW + SECOND
    assert world.better(other) == {}


def test_a_lost_status_claims_all_that_it_may_have_sent_for_as_long_as_it_waits() -> None:
    world = World()
    sent, other = with_open(of("sent", X, Y), X, Z), of("other", X, Y, Z, age=1)
    world.sees(sent, other)
    lost = replace(sent, status=Status(), metadata=replace(sent.metadata, finalizers=(FINALIZER,)))
    world.sees(lost)
    everything = dict.fromkeys((X, Y, Z), "ns/sent")
    assert world.better(other) == everything
    waits = replace(lost, status=Status(last_batch=0, recovery=Recovery(NOW, NOW + WINDOW)))
    world.claims.stored(lost, waits)
    assert world.better(other) == everything
    assert world.better(waits) == {}
    world.now += WINDOW + SECOND
    world.sees(waits)
    assert world.better(other) == {}


@pytest.mark.parametrize("owner_lost", [False, True])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_lost_status_takes_no_record_from_another(*, owner_lost: bool, recorded: bool) -> None:
    """Restored beside the original, a copy recorded the same members, and both were Ready."""
    world = World()
    lost = Status(1, last_batch=1, recovery=Recovery(NOW, NOW + WINDOW))
    owner = of("owner", X, age=2, status=replace(lost, members=(X,), recovery=lost.recovery if owner_lost else None))
    copy = of("copy", X, age=1, status=replace(lost, members=(X,) if recorded else ()))
    world.sees(owner, copy)
    told = world.claims.rivals(copy)[X]
    assert (told.better, told.recorded or not recorded) == (True, True)
    assert not world.claims.reserve(copy, intent(X), world.now)
    assert not world.claims.rivals(owner)[X].recorded


def test_a_record_counts_also_behind_a_lost_status() -> None:
    world = World()
    owner = having(of("owner", X, age=3), members=(X,))
    copy = having(of("copy", X, age=2), members=(X,))
    lost = of("lost", X, age=1, status=Status(1, last_batch=0, recovery=Recovery(NOW, NOW + WINDOW)))
    world.sees(owner, copy, lost)
    assert world.claims.rivals(copy) == {X: Rival("ns/lost", better=True, recorded=True)}
    assert world.claims.rivals(owner) == {X: Rival("ns/lost", better=True)}


def test_after_a_reset_a_lost_batch_is_held_against_others_only() -> None:
    world = World()
    sent, other = with_open(of("sent", X, age=1), X), of("other", X)
    world.sees(sent, other)
    lost = replace(sent, status=Status(), metadata=replace(sent.metadata, finalizers=(FINALIZER,)))
    reset = replace(lost, status=Status(last_batch=0))
    world.sees(lost, reset)
    assert world.better(reset) == {}
    assert world.claims.reserve(reset, intent(X), world.now)
    assert world.better(other) == {X: "ns/sent"}


def test_a_status_that_cannot_be_understood_claims_its_list_with_the_best_right() -> None:
    world = World()
    broken, other = of("broken", X), of("other", X, age=1)
    world.claims.note(UnreadableStatus(broken.metadata, broken.spec, "why"))
    world.sees(other)
    assert world.claims.rivals(other) == {X: Rival("ns/broken", better=True)}
    world.sees(broken)
    assert world.better(other) == {}


def test_a_membership_that_shares_nothing_costs_nothing_to_ask_about(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.sees(of("one", X), of("other", Y))
    looked: list[int] = []
    monkeypatch.setattr(Index, "of", lambda _, digest: looked.append(digest))
    assert world.claims.rivals(of("one", X)) == {}
    world.sees(of("one", X))
    assert looked == []


def test_claims_read_anew_leave_nothing_behind() -> None:
    world = World()
    for _ in range(30):
        for ids in (servers(300), servers(300, 200)):
            world.sees(of("pool", *ids))
    for _ in range(10):
        world.sees(of("pool", *servers(300, 200)))
    assert len(world.claims) == 300
    world.claims.drop(("ns", "pool"))
    world.now += WINDOW + SECOND
    for _ in range(10):
        world.claims.drop(("ns", "pool"))
    assert len(world.claims) == 0


def test_slots_are_used_again_and_running_out_of_them_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", 8)
    monkeypatch.setattr(module, "_KEPT", 0)
    world = World()
    for number in range(100):
        world.sees(of("pool", server(number)))
        for _ in range(3):
            world.sees(of("pool", server(number)))
    world.sees(of("two", X), of("three", X), of("four", X))
    with pytest.raises(NoRoomError, match="--namespace") as raised:
        world.sees(of("five", X))
    assert not raised.value.needed


def test_a_namespace_has_no_more_slots_than_are_left_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", 64)
    monkeypatch.setattr(module, "_KEPT", 4)
    world = World()
    for namespace, share in (("flood", 30), ("second", 15), ("third", 8)):
        world.sees(*(of(f"m{n}", X, namespace=namespace) for n in range(share)))
        with pytest.raises(NoRoomError):
            world.sees(of("more", X, namespace=namespace))
    world.sees(of("victim", Y, namespace="victim"))
    with pytest.raises(NoRoomError):
        world.sees(of("new", *servers(3), namespace="flood"))
    world.sees(with_open(of("live", Z, namespace="flood"), Z))


def test_where_there_is_no_room_for_an_edit_what_was_live_stays_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", 2)
    world = World()
    sent, other = with_open(of("sent", X, Y), X), with_open(of("other", X, Z, age=1), Z)
    world.sees(sent, other)
    edited = replace(sent, spec=a_spec(Y))
    with pytest.raises(NoRoomError) as raised:
        world.sees(edited)
    assert raised.value.needed
    world.claims.stored(edited, edited)
    assert world.better(other) == {X: "ns/sent"}
    assert not world.claims.reserve(other, intent(X), world.now)


def test_what_is_made_and_deleted_again_and_again_takes_no_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SLOTS", 32)
    monkeypatch.setattr(module, "_KEPT", 2)
    world = World()
    for number in range(200):
        world.sees(of("pool", X, uid=f"uid-{number}"))
        world.claims.drop(("ns", "pool"))
    assert len(world.claims) < 10


def many(count: int, ids: int) -> Iterable[Membership]:
    for number in range(count):
        yield of(f"m{number}", *servers(ids, number * ids), age=number + 1)


def test_every_claim_is_found_however_many_there_are() -> None:
    world = World()
    with patch.object(index, "_FULL", 3):
        world.sees(*many(40, 500))
        asking = of("asking", *servers(40 * 500 + 5, 0))
        world.sees(asking)
        assert len(world.better(asking)) == 40 * 500
        for membership in many(40, 500):
            world.claims.drop((membership.metadata.namespace, membership.metadata.name))
        assert world.better(asking) == {}


def held_by_claims() -> int:
    """Bytes that the index has allocated; what else the process does meanwhile does not count."""
    snapshot = tracemalloc.take_snapshot().filter_traces(
        [tracemalloc.Filter(inclusive=True, filename_pattern=index.__file__)]
    )
    return sum(trace.size for trace in snapshot.traces)


def test_a_claim_takes_about_8_bytes_and_few_cost_little() -> None:
    world = World()
    small, large = list(many(10, 50)), [of(f"large{n}", *servers(3_000, 10_000 + n * 3_000)) for n in range(40)]
    tracemalloc.start()
    try:
        world.sees(*small)
        few = held_by_claims()
        world.sees(*large)
        more = held_by_claims() - few
    finally:
        tracemalloc.stop()
    assert few < 200_000
    assert more / 120_000 < 9


def test_a_thousand_memberships_that_claim_the_same_servers() -> None:
    world = World()
    ids = servers(50)
    crowd = [of(f"m{number:04}", *ids, age=number) for number in range(1000)]
    steps = 0

    def count(_frame: object, _event: str, _argument: object) -> None:
        nonlocal steps
        steps += 1

    world.sees(*crowd[:-1])
    sys.setprofile(count)
    try:
        world.sees(crowd[-1])
    finally:
        sys.setprofile(None)
    assert steps < 100 * len(ids)
    assert world.better(crowd[-1]) == {}
    assert world.better(crowd[500]) == dict.fromkeys(ids, "ns/m0999")
    assert len(world.claims) == 50_000


def test_a_server_that_is_held_is_added_by_nobody_else_and_for_a_while_after_its_object_is_gone() -> None:
    world = World()
    holder, other = of("holder", X), of("other", X, age=1)
    held = replace(holder, spec=a_spec(Y), status=Status(1, last_batch=1, holds=(Hold((X,)),)))
    world.sees(held, other)
    assert world.better(other) == {X: "ns/holder"}
    (rival,) = world.claims.rivals(other).values()
    assert (rival.holds, rival.recorded) == (True, False)
    world.claims.drop(("ns", "holder"))
    assert world.better(other) == {X: "ns/holder"}
    world.now += WINDOW
    assert world.better(other) == {}
