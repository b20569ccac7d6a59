"""That the explorer finds what goes wrong between two features, neither of which is wrong alone.

Each of these defects was in the operator once, and was found by hand.
"""

from collections.abc import Callable
from dataclasses import replace

import pytest

from explore.objects import Spec
from explore.scenarios import BOTH, ONE, SCENARIOS, Scenario, an_object
from explore.search import Bounds, explore, replay
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.status import Plan, Status
from nodepool_membership.core.decision import decide
from nodepool_membership.core.observed import drift
from nodepool_membership.core.observed.observation import PoolReport
from nodepool_membership.core.planning import approval
from nodepool_membership.core.planning.approval import Foreseen, Standing
from nodepool_membership.core.program import reconcile, storing
from nodepool_membership.core.state import edits, ledger, state
from nodepool_membership.core.state.state import State

Breaks = Callable[[pytest.MonkeyPatch], None]


def by_name(name: str) -> Scenario:
    return next(s for s in SCENARIOS if s.name == name)


def one_word_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a plan's id did not change with the calls that were made."""

    def plan_of(membership: Membership, state: State, what: Foreseen, pool: PoolReport | None) -> Plan:
        return once(membership, replace(state, last_batch=0), what, pool)

    once = approval.plan_of
    monkeypatch.setattr(approval, "plan_of", plan_of)


def any_removal(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a yes to one plan were one to all removals."""

    def standing(membership: Membership, state: State, what: Foreseen, pool: PoolReport, size: int = 0) -> Standing:
        found = once(membership, state, what, pool, size)
        if found.covered is None or found.state.approved is None:
            return found
        return replace(found, covered=found.covered | state.surplus)

    once = approval.standing
    monkeypatch.setattr(approval, "standing", standing)


def no_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approval, "standing", lambda _membership, state, *_: Standing(state))


def gaps_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if who is away in two listings were away between them, however long nobody looked."""
    monkeypatch.setattr(drift, "UNSEEN", 10**6)


def absences_outlive_a_suspension(monkeypatch: pytest.MonkeyPatch) -> None:
    def standing(self: decide._Pipeline, before: State) -> Standing:
        found = once(self, before)
        if self._spec.suspend:
            self._absences = self._seen.absences
        return found

    once = decide._Pipeline._standing
    gaps_do_not_count(monkeypatch)
    monkeypatch.setattr(decide._Pipeline, "_standing", standing)


def a_suspension_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edits, "spec_digest", lambda spec: str(spec.suspend))
    monkeypatch.setattr(decide, "spec_digest", lambda spec: str(spec.suspend))


def an_edit_answers_for_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    once = state._pardoned
    monkeypatch.setattr(state, "_pardoned", lambda batch, **_: once(batch, canary=True))


def without_halt(status: Status) -> ledger.Ledger | None:
    known = ledger.ledger_of(status)
    return None if known is None else replace(known, halt=None)


UNASKED = "is wiped, and no approval covers it"
UNREMOVED = "is removed, nobody asked for it"
TWICE = "is wiped although it has a node that nobody removed"
MORE = "more servers are wiped after a whole call was lost"
SECOND = "a second batch is wiped before the canary is Active, and nobody said so"
LOST = replace(
    by_name("joined by a yes, then lost under Rejoin"),
    objects=(an_object("x", Spec(ONE, approval="Manual", drift="Rejoin")),),
    edits={},
    others=("vanish",),
    servers=1,
)
DELETED = replace(
    by_name("joined by a yes, then removed by another"),
    objects=(an_object("x", Spec(ONE, deletion="Remove")),),
    edits={"approval": ("Manual",)},
    before=("edit 0 approval=Manual",),
    servers=1,
)
UNDER_WAY = replace(
    by_name("a removal under way, then a yes to another"),
    edits={"servers": (BOTH, frozenset({0, 1, 3})), "approval": ("Manual",)},
    others=(),
)
AWAY = replace(by_name("twice away, then suspended"), edits={"suspend": (False, True)}, others=("away",))
FAILED = replace(by_name("a canary that failed"), edits={"suspend": (False, True)}, others=(), templates=False)
CANARY = replace(by_name("a canary, suspended"), edits={"timeout": (300, 600)}, others=())
LONG = by_name("twice away, then beside a call that takes long")


@pytest.mark.parametrize(
    ("breaks", "scenario", "cost", "wrong"),
    [
        (one_word_twice, LOST, 6, UNASKED),
        (any_removal, UNDER_WAY, 6, UNREMOVED),
        (no_yes, DELETED, 6, UNREMOVED),
        (absences_outlive_a_suspension, AWAY, 8, TWICE),
        (gaps_do_not_count, LONG, 8, TWICE),
        (a_suspension_answers, FAILED, 6, SECOND),
        (an_edit_answers_for_what_is_under_way, CANARY, 6, SECOND),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_defect_between_two_features_is_found(
    monkeypatch: pytest.MonkeyPatch, breaks: Breaks, scenario: Scenario, cost: int, wrong: str
) -> None:
    breaks(monkeypatch)
    found = explore(scenario, Bounds(cost, states=20_000, seconds=800, live_every=10**9, broken=1))
    assert found.broken, "nothing is found"
    assert wrong in found.broken[0].wrongs[0]


LOOK = ("work 0", "work 1", "snapshot", "work 0")
STARTED = (
    *("tick 360", "work 0", "work 1 1=away", "snapshot", "work 0"),
    "vanish 0",
    *(("tick 360", *LOOK, "work 1") * 3),
    *("tick 1860", *LOOK),
)
"""Who was added by a word is seen to have joined while another membership cannot be read, and vanishes."""


def test_a_word_that_is_not_held_against_who_has_joined_before_all_are_read_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def standing(self: decide._Pipeline, before: State) -> Standing:
        return Standing(before) if self._seen.rivals is None else once(self, before)

    scenario = by_name("a yes, then a start at which not all are read")
    assert replay(scenario, STARTED)[1] == ()
    once = decide._Pipeline._standing
    monkeypatch.setattr(decide._Pipeline, "_standing", standing)
    assert UNASKED in replay(scenario, STARTED)[1][0]


RELEASED = ("edit 0 removal=Retain", "edit 0 removal=Remove", "tick 60", *LOOK[:1], "snapshot", "work 0")


def test_a_release_that_is_forgotten_while_the_removal_is_under_way_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    scenario, moves = by_name("a removal under way, then a yes to another"), (*RELEASED, "and then all goes well")
    assert replay(scenario, moves)[1] == ()
    monkeypatch.setattr(edits, "_released", lambda batch, *_, **__: batch)
    assert "nobody asked" in replay(scenario, moves)[1][0]


HALTED = replace(
    by_name("three at a time"),
    objects=(an_object("x", Spec(frozenset({0, 1, 2, 3}), batch=3, suspend=True)),),
    settled=3600,
    before=("back-up 0", "edit 0 suspend=False", "tick 0 burns", "tick 360"),
)
ALONE = ("work 0", "snapshot", "work 0")
RESTORED = ("restore 0", "tick 0", *ALONE, "tick 1860", *ALONE)
"""A status of before a whole call was lost is restored. Killed as well, a process knows nothing of it: see P2."""


def test_a_halt_that_is_forgotten_where_an_older_status_is_restored_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert replay(HALTED, RESTORED)[1] == ()
    monkeypatch.setattr(reconcile, "ledger_of", without_halt)
    monkeypatch.setattr(storing, "ledger_of", without_halt)
    assert MORE in replay(HALTED, RESTORED)[1][0]
