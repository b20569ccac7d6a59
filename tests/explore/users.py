"""What people do to objects: edits, requests, words, and what happens to a status that is kept badly.

Not for: what happens to servers and processes (`moves`).
"""

import json
from collections.abc import Iterator
from typing import Any, Final

from explore import judge, physics
from explore.objects import NEW_STATUS, Object, Offer, deleted, edited, made_anew, open_jobs, parsed, with_status
from explore.scenarios import Scenario
from explore.world import World

CALLS: Final = frozenset({"begin", "add", "remove"})
"""Points between an intent and its call."""


def edits(scenario: Scenario, world: World, key: int, stored: Object) -> Iterator[tuple[str, World]]:
    if not stored.there:
        if any(world.goes(i) and o.there for i, o in enumerate(world.objects)):
            return
        if any(node is not None and node.away_until > world.now for node in world.cloud.nodes):
            # A new object knows of no members: one listing that agrees with the count proves their absence to it.
            return
        made = world.with_object(key, made_anew(stored, world.uids + 1, world.now))
        yield f"create {key}", made._replace(uids=world.uids + 1, going=False)
        return
    if world.paused is not None and world.paused.kind in CALLS and world.paused.key == key:
        # Between the intent and its call nobody can take back what was asked for.
        return
    for name, values in scenario.edits.items() if stored.deleted is None else ():
        for value in values:
            fields: dict[str, Any] = {name: value}
            after = edited(stored, stored.spec._replace(**fields))
            if after is not None:
                told = world.with_object(key, after)
                # To stop and go on says nothing of what failed.
                yield f"edit {key} {name}={_shown(value)}", told if name == "suspend" else _said(told, stored)
    for text in (*_OF_STATUS, *_OF_OBJECT):
        if (after := _done(scenario, world, stored, text)) is not None:
            told = world.with_object(key, after)
            yield f"{text} {key}", _said(told, stored) if text.startswith("reset") else told


def _said(world: World, stored: Object) -> World:
    """Somebody said something, by an edit or a reset: whoever lost servers or a canary may go on.

    A canary that is under way, as one reads in its status, nobody has lost yet.
    """
    status = parsed(stored.status)
    waits = "halt" not in status and any(job["operation"] == "Add" for job in open_jobs(status))
    return world._replace(burnt=physics.NEVER, cloud=world.cloud._replace(tried=world.cloud.tried and waits))


_OF_OBJECT = ("reset", "reset-only-0", "ask", "delete", "pause", "pause-all", "go on", "unhold", "approve", "withdraw")
_OF_STATUS = ("lose", "spoil", "restore", "back-up", "clear")


def _done(scenario: Scenario, world: World, stored: Object, text: str) -> Object | None:  # noqa: PLR0911 - a table of moves
    if text in _OF_STATUS:
        return _status_done(stored, text) if scenario.breaks_status else None
    changed = stored._replace(version=stored.version + 1)
    status = parsed(stored.status)
    lost = stored.held and (not status.get("lastBatch") or "recovery" in status)
    match text:
        case "reset" if not lost:
            return changed._replace(reset=stored.reset + 1, only=None, asked=0)
        case "reset-only-0":
            return changed._replace(reset=stored.reset + 1, only=0, asked=0)
        case "ask":
            return changed._replace(asked=stored.asked + 1)
        case "delete" if scenario.deletes and stored.deleted is None:
            return deleted(stored, world.now)
        case "pause" | "pause-all" if not stored.paused:
            return changed._replace(paused="object" if text == "pause" else "namespace")
        case "go on" if stored.paused:
            return changed._replace(paused="")
        case "approve" | "withdraw":
            return _word_given(stored, text)
        case "unhold" if scenario.breaks_status and stored.held and stored.deleted is None:
            return changed._replace(held=False)
    return None


def _word_given(stored: Object, text: str) -> Object | None:
    """A yes to the plan that its status shows, or the end of one."""
    shows = stored.spec.approval == judge.MANUAL and "plan" in parsed(stored.status)
    if text == "approve" and shows and stored.approved.plan != stored.offered.plan:
        more, before = stored.offered, stored.approved
        both = Offer(more.plan, more.add | before.add, more.remove | before.remove)
        return stored._replace(version=stored.version + 1, approved=both)
    if text == "withdraw" and stored.approved.plan:
        return stored._replace(version=stored.version + 1, approved=Offer())
    return None


def _status_done(stored: Object, text: str) -> Object | None:
    status = parsed(stored.status)
    match text:
        case "lose" if stored.held and stored.status != NEW_STATUS:
            return with_status(stored, NEW_STATUS)
        case "spoil" if isinstance(status.get("lastBatch"), int):
            return with_status(stored._replace(kept=stored.status), _text(status | {"lastBatch": "many"}))
        case "restore" if stored.kept is not None and stored.kept != stored.status:
            return with_status(stored, stored.kept)
        case "back-up" if stored.kept is None and status.get("lastBatch") is not None:
            return stored._replace(kept=stored.status)
        case "clear" if status.get("conditions"):
            return with_status(stored, _text(status | {"conditions": []}))
    return None


def _text(status: dict[str, Any]) -> str:
    return json.dumps(status, separators=(",", ":"))


def _shown(value: object) -> str:
    return "".join(str(s) for s in sorted(value)) if isinstance(value, frozenset) else str(value)
