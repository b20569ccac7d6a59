"""What is wrong with memberships before anybody applies them, and what applying them would do to servers.

Not for: a cluster (`plan` asks one). Pure but for the schema that it reads once.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.core.wording import counted
from nodepool_membership.plugin.files import schema
from nodepool_membership.plugin.files.manifests import Manifest, table

SHOWN: Final = 5
"""Ids that a line names; the rest are counted."""


class Level(StrEnum):
    """How bad it is."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Remark:
    """One thing to say. `server_ids` are all that it is about."""

    level: Level
    where: str
    text: str
    server_ids: tuple[str, ...] = field(default=())

    def __str__(self) -> str:
        return f"{self.where}: {self.level}: {self.text}"


def lint(now: Sequence[Manifest], before: Sequence[Manifest] | None = None) -> list[Remark]:
    """Everything there is to say; `before` is what an earlier revision had."""
    earlier = {manifest.key: manifest for manifest in before or ()}
    remarks = [remark for manifest in now for remark in _alone(manifest, earlier.get(manifest.key))]
    remarks += _named_twice(now)
    remarks += _listed_by_several(now)
    if before is not None:
        remarks += _changes(now, before)
    return remarks


def _alone(manifest: Manifest, before: Manifest | None) -> Iterator[Remark]:
    for text in schema.complaints(manifest.document, None if before is None else before.document):
        yield Remark(Level.ERROR, manifest.where, f"{manifest.name}: {text}")
    twice = tuple(sorted(i for i, count in Counter(manifest.server_ids).items() if count > 1))
    if twice:
        yield Remark(Level.WARNING, manifest.where, f"{manifest.name}: listed more than once: {_some(twice)}", twice)


def _named_twice(now: Iterable[Manifest]) -> Iterator[Remark]:
    seen: dict[tuple[str, str], Manifest] = {}
    for manifest in now:
        first = seen.setdefault(manifest.key, manifest)
        if first is not manifest and manifest.key[1]:
            text = f"{manifest.name} is defined in {first.where}, too: only one of them can be applied"
            yield Remark(Level.ERROR, manifest.where, text)


def _listed_by_several(now: Iterable[Manifest]) -> Iterator[Remark]:
    owners: defaultdict[str, list[Manifest]] = defaultdict(list)
    for manifest in now:
        for server_id in sorted(set(manifest.server_ids)):
            owners[server_id].append(manifest)
    groups: defaultdict[tuple[int, ...], list[str]] = defaultdict(list)
    known = {id(manifest): manifest for manifest in now}
    for server_id, manifests in owners.items():
        keys = {manifest.key for manifest in manifests}
        if len(keys) > 1:
            groups[tuple(id(manifest) for manifest in manifests)].append(server_id)
    for members, ids in groups.items():
        names = [f"{known[member].name} ({known[member].where})" for member in members]
        text = f"listed by {' and '.join(names)}: the newer one waits with reason Conflict: {_some(ids)}"
        yield Remark(Level.ERROR, known[members[-1]].where, text, tuple(ids))


def _changes(now: Sequence[Manifest], before: Sequence[Manifest]) -> Iterator[Remark]:
    then, later = _by_key(before), _by_key(now)
    gained = {key: set(m.server_ids) - set(then[key].server_ids if key in then else ()) for key, m in later.items()}
    lost = {key: set(m.server_ids) - set(later[key].server_ids if key in later else ()) for key, m in then.items()}
    moved: set[str] = set()
    for old_key, left in lost.items():
        for new_key, came in gained.items():
            ids = left & came
            if ids and old_key != new_key:
                moved |= ids
                yield _move(then[old_key], later[new_key], ids)
    for key, came in gained.items():
        fresh = tuple(sorted(came - moved))
        if fresh:
            would = f"{counted(len(fresh), 'server')} would be added, WIPED if no nodes yet"
            text = f"{later[key].name}: {would}: {_some(fresh)}"
            yield Remark(Level.NOTE, later[key].where, text, fresh)
    for key, left in lost.items():
        gone = tuple(sorted(left - moved))
        if gone:
            yield _loss(then[key], later.get(key), gone)


def _by_key(manifests: Iterable[Manifest]) -> dict[tuple[str, str], Manifest]:
    return {manifest.key: manifest for manifest in manifests}


def _move(old: Manifest, new: Manifest, ids: set[str]) -> Remark:
    same = table(old.spec.get("nodePool")) == table(new.spec.get("nodePool"))
    policy = old.spec.get("removalPolicy")
    if same and policy != RemovalPolicy.REMOVE:
        text = f"moved from {old.name} to {new.name}, of the same pool: adopted as they are"
        return Remark(Level.NOTE, new.where, f"{text}: {_some(ids)}", tuple(sorted(ids)))
    why = f"{old.name} has removalPolicy Remove" if policy == RemovalPolicy.REMOVE else "the pools differ"
    text = f"moved from {old.name} to {new.name}, and {why}: they may be removed, and WIPED when they are added again"
    return Remark(Level.WARNING, new.where, f"{text}: {_some(ids)}", tuple(sorted(ids)))


def _loss(old: Manifest, new: Manifest | None, ids: tuple[str, ...]) -> Remark:
    if new is None:
        policy, what = old.spec.get("deletionPolicy"), "the membership is gone"
    else:
        policy, what = new.spec.get("removalPolicy"), "they left the list"
    manifest = new or old
    if policy == RemovalPolicy.REMOVE:
        would = f"{counted(len(ids), 'member')} would be REMOVED from the cluster and wiped"
        text = f"{old.name}: {what}: {would}: {_some(ids)}"
        return Remark(Level.WARNING, manifest.where, text, ids)
    stay = "1 server stays in the pool and is" if len(ids) == 1 else f"{len(ids)} servers stay in the pool and are"
    text = f"{old.name}: {what}: {stay} forgotten: {_some(ids)}"
    return Remark(Level.NOTE, manifest.where, text, ids)


def _some(ids: Iterable[str]) -> str:
    listed = sorted(ids)
    more = f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else ""
    return ", ".join(listed[:SHOWN]) + more
