"""The whole small world as one immutable value, and the form by which two of them are told to be the same.

Not for: what happens in it (`moves`, `process`).
"""

import re
from collections.abc import Sequence
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from explore.objects import EPOCH, Object, Spec, moment, parsed
from explore.physics import MARK, NEVER, Cloud
from nodepool_membership.core.observed.waiting import Waiting

OLD: Final = 3600
"""Seconds after which a moment is as good as any earlier one."""
RESYNC: Final = 300
"""Seconds after which what was waited for is looked at anew."""
_SINCE: Final = re.compile(r'"lastTransitionTime":"[^"]*"')
_MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class Seen(NamedTuple):
    """A snapshot of the cluster that a process took."""

    begun: datetime
    shown: tuple[Any, ...]
    """What it is made of, in a form that compares."""
    view: Any
    """The same as the operator sees it."""


class Process(NamedTuple):
    """What an operator process remembers; `claims` as `process` packs them."""

    unread: frozenset[int]
    """Objects that were there at its start and were not read yet."""
    memories: tuple[Any, ...]
    """By object: its uid and the memory of it, or None."""
    ledgers: tuple[Any, ...]
    """By object: its uid and what is remembered of its calls, or None."""
    claims: bytes
    doubted: bool = False
    skew: int = 0
    """Its clock minus the cloud's, in seconds."""
    steps: int = 0
    """How often it has looked at its clock in this second: no two moments of one process are the same."""
    seen: Seen | None = None
    """The last snapshot."""
    parked: frozenset[int] = frozenset()
    """Objects that wait for the next one."""
    entitled: frozenset[int] = frozenset()
    """Those that waited for the last one, and were not worked since."""
    noted: tuple[Any, ...] = ()
    """By object: its version, and since when the process knows it to be so."""
    keys_until: int = 0
    """How long the temporary keys at hand are good, by the cloud's clock; 0: there are none."""


class Paused(NamedTuple):
    """A program that stands before an effect: it goes on from its recorded answers."""

    who: int
    key: int
    answers: tuple[tuple[bool, Any], ...]
    """Whether each is an answer, or an error that was thrown."""
    point: int
    kind: str
    before: str
    """The effect before which it stands."""


class World(NamedTuple):
    now: int
    objects: tuple[Object, ...]
    cloud: Cloud
    processes: tuple[Process, ...]
    leader: int = 0
    todo: tuple[int, ...] = ()
    """Objects that are still to be worked in this round."""
    spins: int = 0
    paused: Paused | None = None
    uids: int = 0
    stirred: bool = False
    """Something happened since time passed last."""
    burnt: int = NEVER
    """When three servers or more of one call are all lost; until a user says something after it."""
    going: bool = False
    """The namespace of the first object is being deleted."""
    temporary: bool = False
    """Keys end and are renewed, and a call has to wait for them."""

    def goes(self, key: int) -> bool:
        """Whether the namespace of an object is being deleted."""
        return self.going and self.objects[key].namespace == self.objects[0].namespace

    def with_object(self, key: int, stored: Object) -> "World":
        objects = list(self.objects)
        objects[key] = stored
        return self._replace(objects=tuple(objects))


@lru_cache(maxsize=300_000)
def _seconds_in(status: str) -> tuple[str, tuple[int, ...]]:
    """The text without its moments, and these in seconds; when a condition began matters to nobody but its reader."""
    status = _SINCE.sub("", status)
    moments = tuple(int((datetime.fromisoformat(found) - EPOCH).total_seconds()) for found in _MOMENT.findall(status))
    return _MOMENT.sub("@", status), moments


def canonical(world: World, claims: Sequence[object]) -> bytes:
    """The same for worlds in which the same follows. `claims`: those of each process in a form that compares."""
    now = world.now

    def ago(seconds: int) -> int:
        return max(seconds - now, -OLD)

    objects: list[object] = []
    for o in world.objects:
        if not o.there:
            objects.append((o.spec, o.kept))
            continue
        plain, moments = _seconds_in(o.status)
        deleted = None if o.deleted is None else ago(o.deleted)
        seen_by_all = (o.namespace, o.uid, _spec(o.spec), o.generation, deleted, o.held)
        words = [(w.plan, sorted(w.add), sorted(w.remove)) for w in (o.offered, o.approved)]
        asked_for = (o.reset, o.only, o.paused, o.asked, sorted(o.surplus), words)
        objects.append((*seen_by_all, *asked_for, plain, tuple(ago(m) for m in moments), o.kept))
    c = world.cloud
    nodes = [
        None if n is None else (n.uid, n.pool, n.phase, ago(n.created), max(n.away_until - now, 0)) for n in c.nodes
    ]
    wipes = sorted(
        (w.server, max(w.over - now, 0), tuple((at - now, p or "") for at, p in w.changes), w.template) for w in c.wipes
    )
    cloud = (
        nodes,
        wipes,
        [(r.server, r.uid, r.gone - now) for r in c.removals],
        [(j.uid, max(j.ends - now, 0), j.failed, j.servers) for j in c.jobs],
        [(held.arrives - now, ago(held.signed), held.servers, held.uids) for held in c.late],
        c.serial,
        None if c.told is None or c.told[1] <= now else (c.told[0], c.told[1] - now),
        (c.template, sorted(c.proven), c.tried),
        [NEVER if off == NEVER else min(now - off, MARK + 1) for off in c.marks],
    )
    processes = [
        (
            sorted(p.unread),
            [_memory(m, world, i) for i, m in enumerate(p.memories)],
            [_ledger(known, stored) for known, stored in zip(p.ledgers, world.objects, strict=True)],
            claims[n],
            p.doubted,
            p.skew,
            max(p.keys_until - now, 0),
            *_snapshot(p, world),
        )
        for n, p in enumerate(world.processes)
    ]
    burnt = None if world.burnt == NEVER else max(world.burnt - now, 0)
    paused = None
    if world.paused is not None:
        p = world.paused
        paused = (p.who, p.key, p.point, p.before, now)
    whole = (
        objects,
        cloud,
        processes,
        world.leader,
        world.todo,
        world.spins,
        paused,
        world.stirred,
        burnt,
        world.going,
    )
    return blake2b(repr(whole).encode(), digest_size=10).digest()


def _spec(spec: Spec) -> tuple[object, ...]:
    return (sorted(spec.servers), *spec[1:])


def _ago(at: datetime, world: World) -> int:
    return max(int((at - EPOCH).total_seconds()) - world.now, -OLD)


def _memory(memory: tuple[str, Any] | None, world: World, key: int) -> object:
    if memory is None:
        return None
    uid, kept = memory
    absences = sorted((s, a.listings, _ago(a.last, world), _ago(a.first, world)) for s, a in kept.absences.items())
    current = kept.unreadable == str(world.objects[key].version)
    refused = sorted((i, _ago(at, world)) for i, at in kept.refused.items())
    return uid, absences, min(kept.failed_reads, 3), current, refused, _waiting(kept.waiting, world)


def _waiting(waiting: Waiting | None, world: World) -> object:
    """What a call waits for. That it has since longer ago than any wait lasts makes no difference."""
    if waiting is None:
        return None
    until = None if waiting.until is None else _ago(waiting.until, world)
    return waiting.what, waiting.blocker, max(_ago(waiting.since, world), -RESYNC), until


KEPT: Final = 30
"""Seconds for which a snapshot may serve at all, but for who waited for it."""


def _snapshot(process: Process, world: World) -> tuple[object, ...]:
    """What a process has of a snapshot, and what is known to be as it was before it."""
    parked = [(i, str(kept.known and kept.known.jobs)) for i, kept in _kept(process) if i in process.parked]
    seen = process.seen
    age = 0 if seen is None else int((moment(world.now + process.skew) - seen.begun).total_seconds())
    if seen is None or (age > KEPT and not process.entitled):
        return (parked,)
    known: list[object] = []
    for i, kept in _kept(process):
        now = kept.known if kept.known is not None and kept.known.version == str(world.objects[i].version) else None
        known.append((i, now is not None and now.since <= seen.begun))
    return parked, age, seen.shown, sorted(process.entitled), known


def _kept(process: Process) -> list[tuple[int, Any]]:
    return [(i, memory[1]) for i, memory in enumerate(process.memories) if memory is not None]


def _ledger(known: tuple[str, Any] | None, stored: Object) -> object:
    """What is remembered of calls, as far as the status does not say it."""
    if known is None or not stored.there or not known[0].endswith(f"{stored.uid:012d}"):
        return None
    ledger, status = known[1], parsed(stored.status)
    open_ones = [(b.batch, b.job_id, b.server_ids) for b in ledger.open]
    jobs = {j["batch"]: j for j in status.get("jobs", [])}
    if ledger.last_batch == status.get("lastBatch") and all(b[0] in jobs for b in open_ones):
        return None
    return ledger.last_batch, open_ones, None if ledger.halt is None else ledger.halt.reason
