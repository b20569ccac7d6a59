"""Claims from other namespaces: they need proof, and nothing that a user may write is any (rule P16).

Not for: claims within a namespace (`test_runtime_claims`).
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.spec import AgencyRef, FederationRef, IdentityMethod, IdentityRef, SecretRef, Spec
from nodepool_membership.api.status import Hold, Operation, Phase, Status
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.runtime.claims.claimed import source_of
from unit.claims_world import World, having, intent, of, with_open
from unit.core_builders import SECOND, WINDOW, a_batch, a_spec, an_object, servers

X, Y, Z = servers(3)


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


def test_what_cannot_count_abroad_however_it_is_edited_need_not_be_read_for_others() -> None:
    world = World()
    claimant, victim = abroad("claimant", X), of("victim", X)
    called = of("called", X, namespace="elsewhere", status=having(of("called", X), (X,)).status)
    world.sees(claimant, victim, called)
    keys = [(found.metadata.namespace, found.metadata.name) for found in (claimant, victim, called)]

    def may_count_in_ns() -> dict[str, bool]:
        return {key[1]: world.claims.may_count_in("ns", key) for key in (*keys, ("abroad", "unknown"))}

    expected = {"claimant": False, "victim": True, "called": True, "unknown": True}
    assert may_count_in_ns() == expected
    world.claims.looked(claimant, saw=False)
    assert may_count_in_ns() == expected
    # Another one of its namespace has read a pool: it may name the same Secret by now.
    another = abroad("another", Y)
    world.sees(another)
    world.claims.looked(another, saw=True)
    assert may_count_in_ns() == {**expected, "claimant": True}


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


def test_an_old_object_that_names_servers_later_takes_only_what_nobody_has_called_for() -> None:
    """Decision 9: age is that of the object."""
    world = World()
    called, member, held, waits = servers(4)
    young = having(with_open(of("young", called, member, held, waits), called), members=(member,))
    young = replace(young, status=replace(young.status, holds=(Hold((held,)),)))
    empty = abroad("old", age=10**6)
    world.sees(young, empty)
    world.claims.looked(empty, saw=True)
    assert world.claims.rivals(young) == {}
    old = abroad("old", called, member, held, waits, age=10**6)
    world.sees(old)
    assert world.better(young) == {waits: "abroad/old"}
    assert world.better(old) == dict.fromkeys((called, member, held), "ns/young")
    assert not world.claims.reserve(old, intent(called), world.now)


def test_what_is_not_proven_withholds_no_removal_and_no_reservation_abroad() -> None:
    world = World()
    owner, claimant = having(of("owner"), members=(X,)), abroad("claimant", X)
    world.sees(owner, claimant)
    assert world.claims.rivals(owner) == {}
    assert world.claims.reserve(owner, intent(X, operation=Operation.REMOVE), world.now)


def test_proof_that_comes_between_plan_and_reservation_counts() -> None:
    world = World()
    victim, claimant = of("victim", X), abroad("claimant", X)
    world.sees(victim, claimant)
    assert world.claims.rivals(victim) == {}
    world.claims.looked(claimant, saw=True)
    assert not world.claims.reserve(victim, intent(X), world.now)


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
    assert world.claims.reserve(victim, intent(X), world.now)
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


FEDERATION = FederationRef("cce")
IDENTITY = IdentityRef("adopter", "client", IdentityMethod.FEDERATION, federation=FEDERATION)
BY_SECRET = a_spec()


@pytest.mark.parametrize(
    "other",
    [
        replace(BY_SECRET, credentials_ref=SecretRef("other")),
        replace(BY_SECRET, credentials_ref=None, identity_ref=IDENTITY),
        replace(BY_SECRET, credentials_ref=None, identity_ref=replace(IDENTITY, service_account_name="other")),
        replace(BY_SECRET, credentials_ref=None, identity_ref=IdentityRef(operator=True)),
        replace(BY_SECRET, assume_agency=AgencyRef(agency_urn="iam::a:agency:b")),
    ],
)
def test_what_one_identity_has_read_proves_nothing_for_another(other: Spec) -> None:
    assert source_of(an_object(other)) != source_of(an_object(BY_SECRET))
    assert source_of(an_object(other)) == source_of(an_object(replace(other, batch_size=7)))
