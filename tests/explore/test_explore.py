"""The short form of `make explore`, and that it finds what it is there to find."""

import ast
import subprocess
import sys
import time
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from explore import calls, live, physics, process, search
from explore.known import KNOWN
from explore.objects import Spec
from explore.remembered import fresh
from explore.scenarios import KEYS_END, ONE, SCENARIOS, Scenario, an_object
from explore.search import Bounds, Explored, explore, key_of, replay
from nodepool_membership.api.membership import Membership
from nodepool_membership.cce import calls as cce_calls
from nodepool_membership.core.planning import approval
from nodepool_membership.core.program import reconcile
from nodepool_membership.core.program.effects import Now, Program
from nodepool_membership.core.program.memory import Known, Memory
from nodepool_membership.core.servers import rollout
from nodepool_membership.core.state.state import State

HERE = Path(__file__).parent
SHARE = 60_000 // len(SCENARIOS)
WORKER_AND_TRACKER = 2


def by_name(name: str) -> Scenario:
    return next(s for s in SCENARIOS if s.name == name)


def unknown(found: Explored) -> list[str]:
    return [str(h) for h in found.broken if not any(known in "; ".join(h.wrongs) for known in KNOWN)]


@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_no_short_history_breaks_a_promise(scenario: Scenario) -> None:
    """All scenarios together see more than 50,000 states."""
    found = explore(scenario, Bounds(cost=8, states=SHARE, seconds=800, live_every=1000))
    assert found.states >= SHARE or found.complete
    assert unknown(found) == []


def test_an_operator_that_waits_too_short_is_found_and_its_history_plays_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(process, "SETTINGS", replace(process.SETTINGS, settle_window=timedelta(minutes=1)))
    scenario = by_name("plain")
    found = explore(scenario, Bounds(cost=5, states=20_000, seconds=800, live_every=10**9, broken=1))
    assert found.broken, "a server was wiped twice, and nobody noticed"
    assert "is wiped" in found.broken[0].wrongs[0]
    _, wrongs = replay(scenario, found.broken[0].moves)
    assert wrongs == found.broken[0].wrongs


def first_broken(name: str) -> str:
    found = explore(by_name(name), Bounds(cost=7, states=20_000, seconds=800, live_every=10**9, broken=1))
    assert found.broken, f"{name}: nothing is found"
    return found.broken[0].wrongs[0]


def test_an_operator_that_does_not_wait_for_its_canary_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout, "most", lambda _state, spec, _pool: min(spec.rollout.canary or 200, spec.batch_size))
    assert "a second batch is wiped before the canary is Active" in first_broken("a canary first")
    monkeypatch.setattr(rollout, "most", lambda _state, spec, _pool: spec.batch_size)
    assert first_broken("a canary first") == "a canary of 3 servers"


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("nothing before a yes", "is wiped, and no approval covers it"),
        ("joined, then no removal before a yes", "is removed, nobody asked for it"),
    ],
)
def test_an_operator_that_asks_nobody_is_found(monkeypatch: pytest.MonkeyPatch, name: str, wrong: str) -> None:
    def careless(_membership: Membership, state: State, *_: object) -> approval.Standing:
        return approval.Standing(state)

    monkeypatch.setattr(approval, "standing", careless)
    assert wrong in first_broken(name)


def test_a_decision_by_a_snapshot_older_than_its_object_is_found_and_its_history_plays_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As if an object stayed what it was however often it was edited."""

    def known(membership: Membership, memory: Memory) -> Program[Known]:
        now = yield from Now()
        since = memory.known.since if memory.known is not None else now
        return Known(membership.metadata.resource_version, min(since, now))

    monkeypatch.setattr(reconcile, "_known", known)
    scenario = by_name("plain")
    found = explore(scenario, Bounds(cost=5, states=20_000, seconds=800, live_every=10**9, broken=1))
    assert found.broken, "a call was decided by what was seen too early, and nobody noticed"
    assert found.broken[0].wrongs[0] == "a call is decided by a snapshot that began before the object was read"
    _, wrongs = replay(scenario, found.broken[0].moves)
    assert wrongs == found.broken[0].wrongs


ALONE = replace(by_name(KEYS_END), objects=(an_object("x", Spec(ONE)),), edits={}, others=(), servers=1)
"""One server, and nobody does anything: what is left is time, faults, and another process."""


def test_no_call_is_made_later_than_its_intent_or_its_keys_allow() -> None:
    found = explore(ALONE, Bounds(cost=4, states=10_000, seconds=800, live_every=10**9))
    assert (found.complete, unknown(found)) == (True, [])


async def _whenever(self: cce_calls._Leaves, event: str, _info: object) -> None:
    self._begun = True
    self._left = self._left or event.endswith(cce_calls._LEAVING)


def _signed_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if a request got the time at which it is signed."""

    def undated(*fields: object) -> cce_calls.Request:
        return replace(request(*fields), signed_at=None)  # type: ignore[arg-type]

    request = cce_calls.Request
    monkeypatch.setattr(cce_calls, "Request", undated)


def test_a_call_that_waits_for_keys_and_leaves_whenever_they_come_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cce_calls._Leaves, "trace", _whenever)
    found = explore(ALONE, Bounds(cost=4, states=10_000, seconds=800, live_every=10**9))
    assert sorted(history.wrongs[0] for history in found.broken) == [
        "a call leaves although another process has the lease",
        "a call leaves more than 60 s after its intent",
    ]


def test_a_call_that_is_signed_when_its_keys_come_wipes_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if nobody sees it leave: it is what the servers are told that counts."""
    monkeypatch.setattr(cce_calls._Leaves, "trace", _whenever)
    _signed_anew(monkeypatch)
    monkeypatch.setattr(calls._Way, "_left", lambda *_: None)
    found = explore(ALONE, Bounds(cost=5, states=10_000, seconds=800, live_every=10**9, broken=1))
    assert found.broken, "a server was wiped twice, and nobody noticed"
    assert found.broken[0].wrongs == ("server A is wiped while an earlier wipe may be under way",)
    assert "takeover" in found.broken[0].moves


def test_a_call_that_is_signed_with_another_time_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    _signed_anew(monkeypatch)
    found = explore(ALONE, Bounds(cost=5, states=10_000, seconds=800, live_every=10**9, broken=1))
    assert [history.wrongs[0] for history in found.broken] == ["a call is signed with another time than its intent's"]


def test_the_cheapest_histories_are_all_seen() -> None:
    found = explore(by_name("plain"), Bounds(cost=2, states=10**6, seconds=800, live_every=10**9))
    assert (found.complete, found.broken) == (True, [])
    again = explore(by_name("plain"), Bounds(cost=2, states=10**6, seconds=800, live_every=10**9))
    assert (found.states, found.steps) == (again.states, again.steps)


def test_the_same_world_later_is_the_same() -> None:
    world = by_name("plain").begin()
    later = world._replace(now=world.now + 100_000)
    started = tuple(o._replace(created=o.created + 100_000) for o in later.objects)
    later = later._replace(objects=started, processes=(fresh(started),))
    assert key_of(world) == key_of(later)
    assert key_of(world) != key_of(world._replace(cloud=physics.Cloud((physics.Node("n", "p", "Active", 0), None))))


def test_a_fair_world_ends_with_every_server_joined() -> None:
    assert live.of_future(by_name("plain"), by_name("plain").begin()) == []


def test_in_a_fair_world_it_is_heard_that_an_object_is_gone() -> None:
    """What it has claimed is free for others then."""
    both = ("tick 0", "work 0", "work 1", "snapshot", "work 0", "work 0", "work 1", "snapshot")
    moves = (*both, "pause 0", "work 0", "snapshot", "work 0", "delete 0", "and then all goes well")
    assert replay(by_name("two lists"), moves)[1] == ()


def test_a_wipe_of_a_server_that_has_a_node_or_is_being_wiped_is_noticed() -> None:
    cloud = physics.Cloud((None, None))
    cloud, told = physics.add(cloud, (0,), 0, 0, "joins")
    assert told.kind == "accepted"
    cloud, _ = physics.add(cloud, (0,), 10, 10, "joins")
    cloud = physics.advance(cloud, 10, 300)
    cloud, _ = physics.add(cloud, (0, 1), 5000, 5000, "joins")
    assert [(sent.had_node, sent.acted_on) for sent in cloud.sent] == [
        ((False,), (False,)),
        ((False,), (True,)),
        ((True, False), (False, False)),
    ]


def test_a_request_that_comes_late_acts_within_its_signature_only() -> None:
    cloud, told = physics.add(physics.Cloud((None,)), (0,), 50, 0, "late")
    assert told.kind == "unknown"
    arrived = physics.advance(cloud, 50, 950)
    assert [sent.late for sent in arrived.sent] == [True]
    assert physics.is_acting(arrived, 0, 950)
    _, told = physics.add(cloud, (0,), 2000, 1000, "joins")
    assert told.kind == "unsent"


@pytest.mark.parametrize("module", ["physics", "objects", "judge"])
def test_who_judges_knows_nothing_of_the_operator(module: str) -> None:
    tree = ast.parse((HERE / f"{module}.py").read_text())
    names = [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    names += [a.name for n in ast.walk(tree) if isinstance(n, ast.Import) for a in n.names]
    assert not [
        name for name in names if name.startswith(("nodepool_membership", "explore.process", "explore.remembered"))
    ]


def test_what_was_searched_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    found = explore(by_name("deletion"), Bounds(cost=1, states=500, seconds=100))
    assert "states/s" in found.line()
    assert capsys.readouterr().out == ""
    assert search.moves_of(((None, "a"), "b")) == ("a", "b")


def test_nobody_goes_on_searching_for_who_was_killed() -> None:
    command = [sys.executable, "-m", "explore", "--cores", "1", "--seconds", "40", "--only", "plain"]
    searching = subprocess.Popen(command, cwd=HERE.parent, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    children = Path(f"/proc/{searching.pid}/task/{searching.pid}/children")
    while len(children.read_text().split()) < WORKER_AND_TRACKER:
        time.sleep(0.05)
    searching.kill()
    # Its output ends with the last process that holds it.
    searching.communicate(timeout=20)
