"""Where a program gives the world a choice, and what came of running one.

Not for: running it (`process`), or which choices are made (`moves`).
"""

from typing import NamedTuple

from explore.world import World


class Point(NamedTuple):
    """A place in a program where the world had a choice, or the program might stand still."""

    at: int
    """How many effects came before it."""
    kind: str
    """"look", "begin" and "heard" (it stands still at most), "jobs", "servers", "add",
    "remove", "status", "finalizer" or "reserve"."""
    servers: tuple[int, ...] = ()
    more: tuple[str, ...] = ()
    """Choices beside those of its kind."""


class Ran(NamedTuple):
    """What came of running a program, to its end or to where it stands still."""

    world: World
    points: tuple[Point, ...]
    wrongs: tuple[str, ...] = ()
    seconds: float | None = None
    """Until the object is worked again; None: the program stands still, or the object is gone."""
