"""That the explorer finds an operator that wipes servers without the mark that their owner has to have set."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from explore.moves import work
from explore.objects import Spec
from explore.physics import NEVER
from explore.scenarios import ONE, SCENARIOS, Scenario, an_object
from explore.search import Bounds, explore, replay
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.spec import Preflight, PreflightMode
from nodepool_membership.core.observed.observation import Observation
from nodepool_membership.core.planning import vetting
from nodepool_membership.core.preflight.facts import Inspection
from nodepool_membership.core.preflight.judge import Judged
from nodepool_membership.core.state.state import State

MARKS = next(s for s in SCENARIOS if s.name == "only with a mark")
UNMARKED = "is wiped, and had no mark"


def one_server(mode: str, mark: int) -> Scenario:
    objects = (an_object("x", Spec(ONE, preflight=mode, mark=True)),)
    return replace(MARKS, objects=objects, edits={}, others=("mark", "unmark"), servers=1, marks=(mark,))


def _unread_are_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    def judged(membership: Membership, seen: Observation, inspection: Inspection) -> Judged:
        verdict = judge(membership, seen, inspection)
        return replace(verdict, passed=verdict.passed | verdict.waiting, waiting=frozenset(), why=None)

    judge = vetting.judged
    monkeypatch.setattr(vetting, "judged", judged)


def old_news_are_taken_for_new(monkeypatch: pytest.MonkeyPatch) -> None:
    def vet(membership: Membership, state: State, seen: Observation, now: datetime) -> vetting.Vetted | None:
        vetted = vet_once(membership, state, seen, now)
        return None if vetted is None else replace(vetted, looked=now)

    vet_once = vetting.vet
    monkeypatch.setattr(vetting, "vet", vet)


def _off_means_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Preflight, "reads", property(lambda self: self.mode is not PreflightMode.OFF))


def _looked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vetting, "resting", lambda seen, *_: frozenset(seen.refused))


@pytest.mark.parametrize(
    ("breaks", "mode", "wrong", "lives"),
    [
        (_unread_are_sent, "Report", UNMARKED, 10**9),
        (_off_means_off, "Off", UNMARKED, 10**9),
        (_looked_at_once, "Off", "has failed with RequiredTagMissing, which is not so", 5),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_an_operator_that_does_not_look_for_the_mark_is_found(
    monkeypatch: pytest.MonkeyPatch,
    breaks: Callable[[pytest.MonkeyPatch], None],
    mode: str,
    wrong: str,
    lives: int,
) -> None:
    breaks(monkeypatch)
    found = explore(one_server(mode, -NEVER), Bounds(cost=6, states=20_000, seconds=800, live_every=lives, broken=1))
    assert found.broken, "nothing is found"
    assert wrong in found.broken[0].wrongs[0]


@pytest.mark.parametrize("mode", ["Off", "Report", "Enforce"])
def test_a_call_by_what_was_read_too_long_ago_is_found(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    scenario = one_server(mode, NEVER)
    before = ("tick 0", "work 0", "snapshot")
    points = work(replay(scenario, before)[0], 0, {}).points
    stop = next(point.at for point in points if point.kind == "heard")
    history = (*before, f"work 0 stop={stop}", "unmark 0", "tick 360", "resume")
    assert replay(scenario, history)[1] == ()
    old_news_are_taken_for_new(monkeypatch)
    assert replay(scenario, history)[1] == ("server A is wiped, and had no mark",)
