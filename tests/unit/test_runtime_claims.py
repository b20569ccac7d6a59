"""The index of claims: who has the right to a server, checked and reserved in one step, compactly (rule P16).

Not for: interleavings of two reconciles (`property.test_claims`), or what a conflict does (`test_core_rivals`).
"""

import sys
import tracemalloc
from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from unittest.mock import patch

import pytest

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.spec import SecretRef
from nodepool_membership.api.status import Batch, Hold, Operation, Phase, Recovery, Status
from nodepool_membership.core.rivals import Rival
from nodepool_membership.runtime import claims as module
from nodepool_membership.runtime.claims import Claims, NoRoomError
from nodepool_membership.runtime.queue import Key
from unit.core_builders import NOW, SECOND, WINDOW, a_batch, a_spec, an_object, server, servers

X, Y, Z = servers(3)


class World:
    """An index, the clock, and whom it woke."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.woken: list[Key] = []
        self.claims = Claims(self.woken.append, WINDOW, now=lambda: self.now)

    def sees(self, *memberships: Membership) -> None:
        for membership in memberships:
            self.claims.note(membership)

    def better(self, membership: Membership) -> dict[str, str]:
        """Servers that others have the right to, and who."""
        return {i: rival.owner for i, rival in self.claims.rivals(membership).items() if rival.better}


def of(
    name: str, *ids: str, age: int = 0, namespace: str = "ns", uid: str | None = None, status: Status | None = None
) -> Membership:
    """A membership, the older the larger `age`; other pool, cluster and project than its namesakes."""
    made = an_object(a_spec(*ids), status)
    pool = replace(made.spec.node_pool, cluster_id=f"cluster of {name}", node_pool_id=f"pool of {name}")
    meta = replace(
        made.metadata, name=name, namespace=namespace, uid=uid or f"uid-{name}", creation_timestamp=NOW - age * SECOND
    )
    return replace(made, metadata=meta, spec=replace(made.spec, node_pool=pool))


def having(membership: Membership, members: tuple[str, ...] = (), jobs: tuple[Batch, ...] | None = None) -> Membership:
    jobs = membership.status.jobs if jobs is None else jobs
    return replace(membership, status=replace(membership.status, last_batch=1, members=members, jobs=jobs))


def with_open(membership: Membership, *ids: str) -> Membership:
    return having(membership, jobs=(a_batch(Phase.RUNNING, *ids),))


def intent(*ids: str, operation: Operation = Operation.ADD) -> Batch:
    nodes = ids if operation is Operation.REMOVE else ()
    return replace(a_batch(Phase.SUBMITTING, *ids), operation=operation, node_ids=nodes)


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
    assert not world.claims.reserve(young, intent(X, Y))
    assert world.claims.reserve(old, intent(X))
    assert world.claims.reserve(young, intent(Y))


def test_a_reservation_holds_against_an_older_membership_until_it_is_known_to_have_come_to_nothing() -> None:
    world = World()
    young = of("young", X)
    world.sees(young)
    assert world.claims.reserve(young, intent(X))
    old = of("old", X, age=1)
    world.sees(old)
    assert world.better(old) == {X: "ns/young"}
    assert not world.claims.reserve(old, intent(X))
    world.sees(young)
    assert world.claims.reserve(old, intent(X))


def test_a_reservation_ends_with_a_status_that_does_not_hold_it() -> None:
    world = World()
    young, old = of("young", X), of("old", X, age=1)
    world.sees(young)
    world.claims.reserve(young, intent(X))
    world.claims.stored(young, having(young, members=()))
    world.sees(old)
    assert world.better(old) == {}


def test_a_reservation_becomes_an_open_batch_and_then_a_record() -> None:
    world = World()
    young, old = of("young", X), of("old", X, age=1)
    world.sees(young)
    world.claims.reserve(young, intent(X))
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
    assert not world.claims.reserve(owner, intent(X, operation=Operation.REMOVE))
    assert world.claims.reserve(owner, intent(Y, operation=Operation.REMOVE))


def test_nothing_is_reserved_for_an_object_that_is_not_known() -> None:
    world = World()
    world.sees(of("pool", X))
    assert not world.claims.reserve(of("pool", X, uid="another"), intent(X))
    assert not world.claims.reserve(of("unknown", X), intent(X))


@pytest.mark.parametrize("created_anew", [False, True])
def test_open_batches_of_an_object_that_is_gone_hold_for_a_settle_window(*, created_anew: bool) -> None:
    world = World()
    gone, other = with_open(of("gone", X, Y), X), of("other", X, Y, age=1)
    world.sees(gone, other)
    if created_anew:
        again = of("gone", X, uid="another")
        world.sees(again)
        assert world.better(again) == {X: "ns/gone"}
    else:
        world.claims.drop(("ns", "gone"))
    assert world.better(other) == {X: "ns/gone"}
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


def test_after_a_reset_a_lost_batch_is_held_against_others_only() -> None:
    world = World()
    sent, other = with_open(of("sent", X, age=1), X), of("other", X)
    world.sees(sent, other)
    lost = replace(sent, status=Status(), metadata=replace(sent.metadata, finalizers=(FINALIZER,)))
    reset = replace(lost, status=Status(last_batch=0))
    world.sees(lost, reset)
    assert world.better(reset) == {}
    assert world.claims.reserve(reset, intent(X))
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
    looked: list[str] = []
    monkeypatch.setattr(Claims, "_place", lambda _, server_id: looked.append(server_id))
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
    assert not world.claims.reserve(other, intent(X))


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
    with patch.object(module, "_FULL", 3):
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
        [tracemalloc.Filter(inclusive=True, filename_pattern=module.__file__)]
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


def abroad(name: str, *ids: str, age: int = 1, status: Status | None = None) -> Membership:
    """Of another namespace than the others, and older."""
    return of(name, *ids, age=age, namespace="abroad", status=status)


def test_a_claim_counts_in_other_namespaces_once_its_credentials_have_read_the_pool() -> None:
    world = World()
    victim, claimant = of("victim", X), abroad("claimant", X)
    world.sees(victim, claimant)
    assert world.claims.rivals(victim) == world.claims.rivals(claimant) == {}
    world.claims.looked(claimant, saw=False)
    assert world.claims.rivals(victim) == {}
    world.claims.looked(claimant, saw=True)
    assert world.claims.rivals(victim) == {X: Rival("abroad/claimant", better=True, foreign=True)}
    world.claims.looked(claimant, saw=False)
    assert world.better(victim) == {X: "abroad/claimant"}


def test_proof_is_of_credentials_and_pool_and_not_of_a_name() -> None:
    world = World()
    victim, claimant = of("victim", X, Y), abroad("claimant", X)
    world.sees(victim, claimant)
    world.claims.looked(claimant, saw=True)
    spec = claimant.spec
    for other in (
        replace(spec, credentials_ref=SecretRef("another")),
        replace(spec, node_pool=replace(spec.node_pool, cluster_id="another")),
        replace(spec, node_pool=replace(spec.node_pool, endpoint="https://another")),
    ):
        world.sees(replace(claimant, spec=other))
        assert world.better(victim) == {}
    world.sees(replace(claimant, spec=replace(spec, server_ids=frozenset({X, Y}))))
    assert world.better(victim) == {X: "abroad/claimant", Y: "abroad/claimant"}


def test_what_is_not_proven_withholds_no_removal_and_no_reservation_abroad() -> None:
    world = World()
    owner, claimant = having(of("owner"), members=(X,)), abroad("claimant", X)
    world.sees(owner, claimant)
    assert world.claims.rivals(owner) == {}
    assert world.claims.reserve(owner, intent(X, operation=Operation.REMOVE))


def test_proof_that_comes_between_plan_and_reservation_counts() -> None:
    world = World()
    victim, claimant = of("victim", X), abroad("claimant", X)
    world.sees(victim, claimant)
    assert world.claims.rivals(victim) == {}
    world.claims.looked(claimant, saw=True)
    assert not world.claims.reserve(victim, intent(X))


def test_what_the_operator_stored_counts_everywhere_without_proof() -> None:
    world = World()
    victim = of("victim", X, Y, Z, age=9)
    stored = Status(1, last_batch=1, jobs=(a_batch(Phase.RUNNING, X),), holds=(Hold((Y,)),), members=(Z,))
    claimant = abroad("claimant", status=stored)
    world.sees(victim, claimant)
    world.claims.looked(claimant, saw=False)
    assert world.better(victim) == dict.fromkeys((X, Y, Z), "abroad/claimant")


def test_after_a_start_earlier_calls_are_proof_until_the_credentials_are_tried() -> None:
    world = World()
    victim, claimant = of("victim", X), abroad("claimant", X, status=Status(1, last_batch=1))
    world.sees(victim, claimant)
    assert world.better(victim) == {X: "abroad/claimant"}
    world.claims.looked(claimant, saw=False)
    assert world.woken == [("ns", "victim")]
    assert world.better(victim) == {}
    edited = replace(claimant, spec=replace(claimant.spec, credentials_ref=SecretRef("another")))
    world.sees(edited)
    assert world.better(victim) == {}
    world.sees(replace(edited, spec=replace(edited.spec, server_ids=frozenset({X, Y}))))
    assert world.better(victim) == {}


@pytest.mark.parametrize("proven", [False, True])
def test_a_forged_finalizer_quarantines_its_own_namespace_only(*, proven: bool) -> None:
    world = World()
    victim, neighbour = of("victim", X, age=2), of("neighbour", X, namespace="abroad", age=3)
    forged = abroad("forged", X)
    forged = replace(forged, metadata=replace(forged.metadata, finalizers=(FINALIZER,)))
    world.sees(victim, neighbour, forged)
    if proven:
        world.claims.looked(forged, saw=True)
    assert world.better(victim) == {}
    assert world.claims.reserve(victim, intent(X))
    world.sees(victim)
    assert world.better(neighbour) == {X: "abroad/forged"}
    world.claims.drop(("abroad", "forged"))
    assert world.better(victim) == {}
    assert world.better(neighbour) == {X: "abroad/forged"}
    world.now += WINDOW + SECOND
    assert world.better(neighbour) == {}


def test_a_status_that_is_lost_while_the_process_runs_keeps_its_calls_claimed_everywhere() -> None:
    world = World()
    victim, sent = of("victim", X, Y), with_open(abroad("sent", X, Y), X)
    world.sees(victim, sent)
    lost = replace(sent, status=Status(), metadata=replace(sent.metadata, finalizers=(FINALIZER,)))
    world.sees(lost)
    world.claims.drop(("abroad", "sent"))
    assert world.better(victim) == {X: "abroad/sent"}
