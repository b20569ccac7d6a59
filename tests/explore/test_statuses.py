"""That a status which breaks, or is replaced by an older one, gives away no server that an earlier call may still wipe.

Not for: what its own membership does then (`tests/unit/core/state`). Each of these histories wiped a server twice once.
"""

from dataclasses import replace

import pytest

from explore.scenarios import SCENARIOS
from explore.search import replay
from nodepool_membership.runtime.claims.claimed import ClaimedServers
from nodepool_membership.runtime.claims.claims import Claims

EXPLORED = next(s for s in SCENARIOS if s.name.endswith("and a status that breaks"))
SHARED = replace(EXPLORED, before=("back-up 1", *EXPLORED.before))
"""A process that starts after an older status was restored knows nothing of the call: see P2."""
LOOK = ("work 0", "work 1")
UNSTORED = "work 1 7=unanswered-lost"
LATER = ("tick 60", *LOOK, "snapshot", "work 0")


@pytest.mark.parametrize(
    "moves",
    [
        ("edit 1 servers=0", "tick 0", *LOOK, "spoil 1", "tick 0", *LOOK, *LATER),
        ("spoil 1", "tick 0", *LOOK, "edit 1 servers=0", "tick 0", *LOOK, *LATER),
        ("restore 1", "tick 0", "work 0", UNSTORED, "tick 60", "work 0", UNSTORED, "snapshot", "work 0"),
    ],
    ids=["unreadable after an edit", "edited while unreadable", "an older one, and a write that fails"],
)
def test_what_a_call_under_way_names_stays_claimed(moves: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The other membership waits for the server, and sees no node of it yet."""
    assert replay(SHARED, moves)[1] == ()
    claim, of = Claims._claim, ClaimedServers.of
    monkeypatch.setattr(Claims, "_claim", lambda self, found, named, **_: claim(self, found, named))
    monkeypatch.setattr(ClaimedServers, "of", staticmethod(lambda found, now, *_: of(found, now)))
    assert "an earlier wipe may be under way" in " ".join(replay(SHARED, moves)[1])
