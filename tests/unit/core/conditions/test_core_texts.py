"""Every message with 0, 1 and many: numbers agree with their nouns, three servers are named, the rest is counted."""

import inspect
import re
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

import nodepool_membership
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Batch, Operation, Phase, Plan, Status
from nodepool_membership.core import wording
from nodepool_membership.core.conditions import events, texts
from nodepool_membership.core.observed.rivals import Rival
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    a_batch,
    a_failure,
    a_spec,
    a_wait,
    an_object,
    server,
    servers,
)

PACKAGE = Path(nodepool_membership.__file__).parent
NUMBERS = (0, 1, 2, 3, 20)

WRONG = re.compile(
    r"\b1 (?:servers|members|batches|calls|causes|nodes)\b"
    r"|\b(?:0|[2-9]|\d\d+) (?:server|member|batch|call|cause|node)\b"
    r"|\(s\)|\b1 of \d+ servers? were|\b1 servers? are|the reset annotation|\(\)|, ,|;;|  "
)


def removal(*ids: str, phase: Phase = Phase.RUNNING) -> Batch:
    made = Batch(2, Operation.REMOVE, 1, phase, max(len(ids), 1), JOB, ids, tuple(f"node-{i}" for i in ids), NOW)
    return replace(made, settling_since=NOW if phase is Phase.VERIFYING else None)


def of(count: int) -> Status:
    """So many in each place."""
    ids = servers(count)
    jobs: tuple[Batch, ...] = ()
    if count:
        add = a_batch(Phase.VERIFYING, *servers(count, 100), job_id=JOB, finished=NOW)
        jobs = (add, removal(*servers(count, 200), phase=Phase.VERIFYING))
    return Status(
        desired=3 * count,
        joined=count,
        joining=count,
        pending=count,
        failed=count,
        surplus=count,
        surplus_since=NOW,
        members=ids,
        jobs=jobs,
    )


def owner(count: int, *, deleted: bool = False) -> Membership:
    return an_object(a_spec(batch_size=1), of(count), deleted=NOW if deleted else None)


RENDERED: dict[str, Callable[[int], str]] = {
    "some": lambda n: wording.some(servers(n), "status.jobs") or "nobody",
    "counted": lambda n: wording.counted(n, "server"),
    "are": lambda n: f"{wording.counted(n, 'server')} {wording.are(n)} there",
    "them": lambda n: f"{wording.counted(n, 'server')}: leave {wording.them(n)}",
    "surplus_ids": lambda n: ", ".join(texts.surplus_ids(owner(n), of(n))) or "nobody",
    "members": lambda n: texts.members(Status(desired=n, joined=n)),
    "progress": lambda n: texts.progress(owner(n), of(n), SETTINGS, NOW + timedelta(minutes=1)),
    "counts": lambda n: texts.counts(of(n)),
    "surplus": lambda n: texts.surplus(owner(n), of(n), SETTINGS) if n else "nobody",
    "causes": lambda n: texts.causes(
        [a_failure(FailureReason.REFUSED, *servers(max(n, 1)), retry=NOW)] * max(n, 1), 3, NOW - SECOND
    ),
    "conflict": lambda n: texts.conflict({i: Rival("team/other", better=True) for i in servers(max(n, 1))}, "team/me"),
    "conflict with who is gone": lambda n: texts.conflict(
        {i: Rival("team/me", better=True, until=NOW) for i in servers(max(n, 1))}, "team/me"
    ),
    "preview": lambda n: "; ".join(texts.preview(Plan("p", n, n, n, n), of(n))),
    "deleting": lambda n: texts.deleting(owner(n, deleted=True), of(n), SETTINGS, ["why"]),
    "overdue": lambda n: texts.overdue(range(1, max(n, 1) + 1), a_spec()),
    "braked": lambda n: texts.braked(max(n, 1), max(n, 1)),
    "results": lambda n: texts.results([("NodeError", servers(n))] if n else []) or "nothing",
}


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("name", RENDERED)
def test_every_text_reads_well_with_any_number(name: str, number: int) -> None:
    text = RENDERED[name](number)
    assert text
    assert not WRONG.search(text), text
    named = set(re.findall(r"[0-9a-f]{8}-1111-4222-8333-444444444444", text))
    groups = 1 + text.count("(")
    assert name == "surplus_ids" or len(named) <= 3 * groups, text
    if number > 3 and name in {"some", "causes", "conflict", "surplus", "results"}:
        assert f"and {number - 3} more in " in text


def test_every_text_is_rendered() -> None:
    made = {
        name
        for module in (texts, wording)
        for name, made in inspect.getmembers(module, inspect.isfunction)
        if made.__module__ == module.__name__
    }
    assert {name for name in made if not name.startswith("_")} <= set(RENDERED)


@pytest.mark.parametrize("number", [1, 2, 20])
@pytest.mark.parametrize("operation", Operation)
@pytest.mark.parametrize("phase", sorted(set(Phase) - {Phase.QUEUED, Phase.SUBMITTING}))
def test_every_event_reads_well_with_any_number(phase: Phase, operation: Operation, number: int) -> None:
    ids = servers(number)
    nodes = tuple(f"node-{i}" for i in ids) if operation is Operation.REMOVE else ()
    before = Batch(1, operation, 1, Phase.SUBMITTING, number, None, ids, nodes, NOW)
    is_open = phase in {Phase.RUNNING, Phase.VERIFYING}
    failed = {Phase.FAILED: number, Phase.PARTLY_FAILED: 1}.get(phase)
    after = replace(before, phase=phase, failed=failed)
    after = after if is_open else replace(after, server_ids=(), node_ids=(), called_ids=ids)
    new = Status(jobs=(after,), waits=(a_wait(NOW, Reason.LOCKED),))
    (note,) = events.events_between(Status(jobs=(before,)), new)
    assert not WRONG.search(note.text), note.text
    assert ("WIPES" in note.text or "REINSTALLS" in note.text) == (phase is Phase.RUNNING)
    assert server(1) in note.text
    assert ("17 more in status.jobs" in note.text) == (number == 20)


def test_no_text_counts_with_a_bracket_or_asks_for_an_annotation_without_its_name() -> None:
    found = [
        f"{path.name}:{number}: {line.strip()}"
        for path in sorted(PACKAGE.rglob("*.py"))
        for number, line in enumerate(path.read_text().splitlines(), 1)
        if re.search(r"\w\(s\)(?! URL)|(?:set|setting) (?:the|a) reset annotation", line)
    ]
    assert found == []
