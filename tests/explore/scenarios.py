"""The small worlds from which histories begin, and which moves their users and their clouds make.

Not for: what a move does (`moves`).
"""

from dataclasses import dataclass, field
from typing import Final

from explore import physics
from explore.objects import Object, Spec
from explore.remembered import fresh
from explore.world import World

A, B = 0, 1
BOTH: Final = frozenset({A, B})
ONE: Final = frozenset({A})
OTHER: Final = frozenset({B})
ALL: Final = frozenset({0, 1, 2})
NOBODY: Final[frozenset[int]] = frozenset()


@dataclass(frozen=True)
class Scenario:
    """A beginning, and the edits that its users make: of an object, the values that a field may take."""

    name: str
    objects: tuple[Object, ...]
    edits: dict[str, tuple[object, ...]] = field(default_factory=dict)
    others: tuple[str, ...] = ("vanish", "away", "break", "move", "remake", "foreign")
    deletes: bool = False
    breaks_status: bool = False
    clocks: tuple[int, ...] = ()
    servers: int = 2
    templates: bool = False
    """Somebody changes the pool's template, once."""
    temporary: bool = False
    """Keys end and are renewed."""
    settled: int = 0
    """It begins when all has come to rest, so many seconds later."""
    fate: str = ""
    """Of the calls until then, if it is not the usual one."""
    before: tuple[str, ...] = ()
    """Moves that come then, each with its round; after a tick, the fate of a call in it. "settle" and seconds: it comes
    to rest again for so long."""
    marks: tuple[int, ...] = ()
    """Of servers at the start (`physics.Cloud.marks`)."""

    def begin(self) -> World:
        """The world at its start: nothing was looked at yet."""
        cloud = physics.Cloud((None,) * self.servers, marks=self.marks)
        return World(0, self.objects, cloud, (fresh(self.objects),), stirred=True, uids=9, temporary=self.temporary)


def an_object(name: str, spec: Spec, namespace: str = "ns", uid: int = 1, created: int = 0) -> Object:
    return Object(namespace, name, spec, uid, created=created - 100)


LISTS: Final = (NOBODY, ONE, OTHER, BOTH)
POLICIES: Final = ("Retain", "Remove")

KEYS_END: Final = "keys that end between an intent and its call"

SCENARIOS: Final = (
    Scenario("plain", (an_object("x", Spec(BOTH)),), {"servers": LISTS, "suspend": (False, True)}, breaks_status=True),
    Scenario(
        "removal",
        (an_object("x", Spec(BOTH, removal="Remove")),),
        {"servers": LISTS, "removal": POLICIES, "suspend": (False, True)},
    ),
    Scenario(
        "joined, then released or removed",
        (an_object("x", Spec(BOTH)),),
        {"servers": LISTS, "removal": POLICIES, "suspend": (False, True)},
        others=("vanish", "remake", "move"),
        settled=3600,
    ),
    Scenario(
        "joined, then moved between lists",
        (an_object("x", Spec(BOTH, removal="Remove")), an_object("y", Spec(NOBODY), "other", 2, 50)),
        {"servers": (ONE, OTHER, BOTH), "removal": POLICIES},
        others=("vanish", "away"),
        deletes=True,
        settled=3600,
    ),
    Scenario(
        "joined, then vanished under Rejoin",
        (an_object("x", Spec(BOTH, drift="Rejoin")),),
        {"servers": (ONE, BOTH), "suspend": (False, True)},
        others=("vanish", "away", "break", "remake"),
        breaks_status=True,
        settled=3600,
    ),
    Scenario(
        "joined by a job that does not end",
        (an_object("x", Spec(BOTH, drift="Rejoin")),),
        {"servers": (ONE, BOTH), "suspend": (False, True)},
        others=("vanish", "away", "break", "remake"),
        settled=3 * 3600,
        fate="outlasts",
    ),
    Scenario(
        "three at a time",
        (an_object("x", Spec(frozenset({0, 1, 2, 3}), batch=3)),),
        {"suspend": (False, True), "batch": (1, 3)},
        others=("vanish",),
        breaks_status=True,
        servers=4,
    ),
    Scenario(
        "two lists",
        (an_object("x", Spec(BOTH)), an_object("y", Spec(OTHER), "other", 2, 50)),
        {"servers": (ONE, OTHER, BOTH)},
        others=("vanish", "away", "move"),
        deletes=True,
    ),
    Scenario(
        "two lists that remove",
        (an_object("x", Spec(BOTH, removal="Remove")), an_object("y", Spec(NOBODY, removal="Remove"), "ns", 2, 50)),
        {"servers": (ONE, OTHER, BOTH), "removal": POLICIES},
        others=("vanish",),
    ),
    Scenario(
        "deletion",
        (an_object("x", Spec(BOTH, deletion="Remove")),),
        {"servers": (ONE, BOTH), "deletion": POLICIES, "removal": POLICIES},
        others=("vanish", "move"),
        deletes=True,
    ),
    Scenario(
        "rejoin, one by one",
        (an_object("x", Spec(BOTH, drift="Rejoin", batch=1, attempts=2)),),
        {"servers": (ONE, BOTH), "batch": (1, 200)},
        breaks_status=True,
        clocks=(-7200, 7200),
    ),
    Scenario(
        "a canary first",
        (an_object("x", Spec(ALL, canary=1, parallel=3)),),
        {"servers": (BOTH, ALL), "canary": (0, 1), "batch": (1, 200)},
        others=("vanish", "break"),
        templates=True,
        servers=3,
    ),
    Scenario(
        "nothing before a yes",
        (an_object("x", Spec(BOTH, approval="Manual", batch=1, removal="Remove", drift="Rejoin")),),
        {"servers": (ONE, BOTH), "suspend": (False, True), "batch": (1, 200)},
        others=("vanish", "move"),
        deletes=True,
        templates=True,
    ),
    Scenario(
        "joined, then no removal before a yes",
        (an_object("x", Spec(BOTH, removal="Remove", drift="Rejoin")),),
        {"servers": (ONE, BOTH), "approval": ("Automatic", "Manual")},
        others=("vanish",),
        deletes=True,
        settled=3600,
    ),
    Scenario(
        "joined by a yes, then lost under Rejoin",
        (an_object("x", Spec(BOTH, approval="Manual", drift="Rejoin")),),
        {"servers": (ONE, BOTH), "suspend": (False, True)},
        others=("vanish", "away"),
        settled=3600,
        before=("approve 0", "settle 3600"),
    ),
    Scenario(
        "a yes, then a start at which not all are read",
        (an_object("x", Spec(ONE, approval="Manual", drift="Rejoin")), an_object("y", Spec(NOBODY), "other", 2, 50)),
        others=("vanish", "away"),
        settled=3600,
        before=("approve 0", "tick 0", "kill"),
    ),
    Scenario(
        "joined by a yes, then removed by another",
        (an_object("x", Spec(BOTH, approval="Manual", removal="Remove", deletion="Remove")),),
        {"servers": (ONE, OTHER, BOTH), "approval": ("Automatic", "Manual"), "suspend": (False, True)},
        others=("vanish",),
        deletes=True,
        settled=3600,
        before=("approve 0", "settle 3600"),
    ),
    Scenario(
        "a removal under way, then a yes to another",
        (an_object("x", Spec(ALL, removal="Remove", parallel=2)),),
        {"servers": (BOTH, frozenset({0, 1, 3})), "removal": POLICIES, "approval": ("Automatic", "Manual")},
        others=("vanish",),
        servers=4,
        settled=3600,
        before=(
            *("edit 0 servers=01", "tick 0", "tick 360 stays", "edit 0 approval=Manual", "tick 0"),
            *("edit 0 servers=013", "ask 0", "tick 0"),
        ),
    ),
    Scenario(
        "a yes, and a canary",
        (an_object("x", Spec(ALL, approval="Manual", canary=1, parallel=2)),),
        {"servers": (BOTH, ALL), "suspend": (False, True)},
        others=("vanish", "break"),
        templates=True,
        servers=3,
        settled=3600,
    ),
    Scenario(
        "a canary that failed",
        (an_object("x", Spec(ALL, canary=1, parallel=2, batch=1)),),
        {"suspend": (False, True), "canary": (0, 1)},
        others=("vanish",),
        templates=True,
        servers=3,
        settled=3600,
        fate="breaks",
    ),
    Scenario(
        "a canary, suspended",
        (an_object("x", Spec(ALL, canary=1, parallel=2, batch=1, drift="Rejoin")),),
        {"suspend": (False, True), "timeout": (300, 600)},
        others=("vanish",),
        servers=3,
    ),
    Scenario(
        "twice away, then suspended",
        (an_object("x", Spec(ONE, drift="Rejoin")),),
        {"servers": (ONE, BOTH), "suspend": (False, True)},
        others=("vanish", "away"),
        settled=3600,
        before=("away 0", "tick 0", "tick 360"),
    ),
    Scenario(
        "twice away, then beside a call that takes long",
        (an_object("x", Spec(ONE, drift="Rejoin")),),
        {"servers": (ONE, BOTH)},
        others=("away",),
        settled=3600,
        before=("away 0", "tick 0", "tick 360", "edit 0 servers=01", "tick 0 long"),
    ),
    Scenario(
        "only with a mark",
        (an_object("x", Spec(BOTH, mark=True)),),
        {"servers": LISTS, "preflight": ("Off", "Report", "Enforce"), "mark": (False, True)},
        others=("vanish", "mark", "unmark"),
        marks=(physics.NEVER, -physics.NEVER),
    ),
    Scenario(
        "joined with a mark, then vanished under Rejoin",
        (an_object("x", Spec(BOTH, preflight="Off", mark=True, drift="Rejoin")),),
        {"servers": (ONE, BOTH), "preflight": ("Off", "Enforce"), "approval": ("Automatic", "Manual")},
        others=("vanish", "away", "mark", "unmark"),
        settled=3600,
        marks=(physics.NEVER, physics.NEVER),
    ),
    Scenario(
        KEYS_END,
        (an_object("x", Spec(BOTH, batch=1, parallel=2, removal="Remove")),),
        {"servers": (ONE, BOTH), "batch": (1, 200)},
        others=("vanish",),
        temporary=True,
    ),
    Scenario(
        "a call under way, another that waits for its server, and a status that breaks",
        (an_object("x", Spec(NOBODY)), an_object("y", Spec(ONE), "ns", 2, 50)),
        {"servers": (ONE, OTHER, BOTH)},
        others=("vanish",),
        breaks_status=True,
        settled=3600,
        before=("edit 1 servers=01", "tick 0 slow", "edit 0 servers=1", "tick 0"),
    ),
)
