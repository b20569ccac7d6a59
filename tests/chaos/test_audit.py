"""What can be proven afterwards: whoever was named in a call that the cloud took stands in the log's `audit` lines.

The operator dies at each write of a run, before and after it. Not for: whether it recovers (`test_boundaries`).
"""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from chaos.boundaries_effects import Effect, Effects, Fate, Hit, Side
from chaos.boundaries_scenario import SCENARIOS
from chaos.boundaries_world import World
from nodepool_membership.runtime.reconcile import audit

ADD, REMOVE = "Add", "Remove"
ENDS = {"outcome", "abandoned"}

Line = dict[str, Any]


class _Kept(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.lines: list[Line] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(vars(record))


@contextmanager
def kept() -> Iterator[list[Line]]:
    """The audit lines of all processes of a run."""
    logger, handler = logging.getLogger(audit.__name__), _Kept()
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield handler.lines
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)


def play(name: str, *hits: Hit) -> tuple[World, Sequence[Line]]:
    scenario = next(scenario for scenario in SCENARIOS if scenario.name == name)
    world = World(scenario, Effects.of(hits))
    with kept() as lines:
        world.live()
    return world, lines


def missing(world: World, lines: Sequence[Line]) -> list[str]:
    """What the ledger of the cloud knows and the log does not."""
    found = []
    for entry in world.simulator.ledger.entries:
        operation = REMOVE if entry.removed else ADD
        for server in (*entry.accepted, *entry.removed):
            about = [line for line in lines if line["operation"] == operation and server in line["serverIDs"]]
            if not {"intent", "interrupted"} & {line["stage"] for line in about}:
                found.append(f"{operation} of {server}: no intent")
            if not ENDS & {line["stage"] for line in about}:
                found.append(f"{operation} of {server}: no outcome")
            if not all(line["uid"] and line["batch"] and line["attempt"] for line in about):
                found.append(f"{operation} of {server}: a line without its call")
    return found


def stages(lines: Sequence[Line]) -> list[tuple[str, str]]:
    return [(line["stage"], line.get("result", "")) for line in lines]


def test_a_join_is_told_in_three_lines_with_job_and_request() -> None:
    world, lines = play("plain")
    assert missing(world, lines) == []
    calls = [entry for entry in world.simulator.ledger.entries if entry.accepted]
    for batch in {line["batch"] for line in lines}:
        own = stages([line for line in lines if line["batch"] == batch])
        assert own == [("intent", ""), ("accepted", ""), ("outcome", "Joined")]
    accepted = [line for line in lines if line["stage"] == "accepted"]
    assert [(line["jobID"], line["requestID"]) for line in accepted] == [(e.job_id, e.request_id) for e in calls]
    assert [tuple(line["serverIDs"]) for line in accepted] == [entry.accepted for entry in calls]
    assert {line["jobID"] for line in lines if line["stage"] == "outcome"} == {entry.job_id for entry in calls}
    assert all(line["template"] for line in lines if line["stage"] == "intent")


def test_the_question_of_the_page_names_what_the_lines_have() -> None:
    """`who wiped it`: its filter, and the fields that it shows."""
    page = Path(__file__).parent.parent.parent / "docs" / "operations.md"
    (question,) = re.findall(r"jq -cR --arg id SERVER-ID '([^']*)'", page.read_text())
    wanted, _, shown = question.rpartition("| ")
    _, lines = play("plain")
    _, refused = play("narrowing by name")
    fields = {"time", "msg"} | {name for line in (*lines, *refused) for name in line}
    asked = set(shown.strip("{}").split(", ")) | set(re.findall(r"(?<![\w)])\.(\w+)", wanted))
    assert asked - fields <= {"editedBy"}, "of objects that nobody applied"
    assert {line["msg"] for line in lines} == set(re.findall(r'\.msg == "(\w+)"', wanted))


def test_a_removal_names_servers_and_nodes_and_who_is_gone() -> None:
    world, lines = play("removal")
    assert missing(world, lines) == []
    removal = [line for line in lines if line["operation"] == REMOVE]
    assert stages(removal) == [("intent", ""), ("accepted", ""), ("outcome", "Removed")]
    assert all(len(line["nodeUIDs"]) == len(line["serverIDs"]) for line in removal[:2])


def test_a_refusal_names_everybody_and_wiped_nobody() -> None:
    world, lines = play("narrowing by name")
    assert missing(world, lines) == []
    refused = [line for line in lines if line["stage"] == "refused"]
    said = [entry for entry in world.simulator.ledger.entries if entry.server_ids and not entry.accepted]
    assert [tuple(line["serverIDs"]) for line in refused] == [entry.server_ids for entry in said]
    assert [line["requestID"] for line in refused] == [entry.request_id for entry in said]


def test_a_lost_answer_is_told_as_one_and_its_servers_in_the_end() -> None:
    world, lines = play("lost answer")
    assert missing(world, lines) == []
    assert ("unknown", "") in stages(lines)
    batch = next(line["batch"] for line in lines if line["stage"] == "unknown")
    told = stages([line for line in lines if line["batch"] == batch])
    assert told[-1] == ("outcome", "Joined")


def test_who_never_appeared_and_what_was_left_behind_is_told() -> None:
    world, lines = play("never appears once")
    assert missing(world, lines) == []
    assert ("outcome", "NeverAppeared") in stages(lines)
    world, lines = play("deleted while joining")
    assert missing(world, lines) == []


def _writes(effects: Sequence[Effect]) -> list[Effect]:
    return [effect for effect in effects if effect.writes and not effect.is_event]


@pytest.mark.parametrize("name", ["plain", "removal", "narrowing by name", "lost answer"])
def test_nothing_is_missing_wherever_the_process_dies(name: str) -> None:
    world, _ = play(name)
    effects = _writes(world.effects.done[: world.settled_at])
    assert len(effects) >= 5
    for effect in effects:
        for side in Side:
            hit = Hit(effect, side, Fate.CRASH)
            struck, lines = play(name, hit)
            assert missing(struck, lines) == [], str(hit)


def test_a_kill_between_call_and_record_is_told_by_the_next_process() -> None:
    world, _ = play("plain")
    call = next(effect for effect in world.effects.done if effect.what == "cloud addNodes")
    world, lines = play("plain", Hit(call, Side.AFTER, Fate.CRASH))
    assert stages(lines)[:2] == [("intent", ""), ("interrupted", "")]
    assert missing(world, lines) == []
