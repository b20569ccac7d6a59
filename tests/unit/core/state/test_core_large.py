"""The largest objects: what nobody asked for must fit, too (P4).

Not for: whether a call is made that might not fit; test_core_queries, test_core_room.
"""

import json
from dataclasses import replace
from typing import Final

import pytest

from nodepool_membership.api.codec import MAX_MESSAGE
from nodepool_membership.api.membership import status_json
from nodepool_membership.api.names import MAX_OBJECT_BYTES
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.api.spec import DriftPolicy
from nodepool_membership.api.status import Hold, Phase, Status
from nodepool_membership.core.observed.drift import LISTINGS_WITHOUT
from nodepool_membership.core.state.failures import NAMED_TWICE, Cause, causes_of, fold, shortened
from nodepool_membership.core.state.state import KEPT_FINISHED
from unit.core_builders import JOB, NOW, SETTINGS, Run, a_batch, a_spec, active, an_object, servers

ALL: Final = servers(10_000)
STORED: Final = 1_572_864
"""What etcd takes in one request, by default."""
BESIDE: Final = 4_000
"""Bytes of metadata and of all the spec but the list."""


def size(run: Run) -> int:
    """About what the API server stores."""
    parts = (status_json(run.status), sorted(run.membership.spec.server_ids))
    text = "".join(json.dumps(part, ensure_ascii=False, separators=(",", ":")) for part in parts)
    return len(text.encode()) + BESIDE


def look(run: Run) -> None:
    run.membership = replace(run.membership, wire_bytes=size(run))
    run.step()
    run.wait(SETTINGS.resync_interval)


def all_gone(letter: str, drift: DriftPolicy = DriftPolicy.REPORT) -> Run:
    """All members are gone, and all that finished batches can hold is there."""
    jobs = []
    for number in range(1, KEPT_FINISHED + 1):
        ids = ALL[200 * (number - 1) : 200 * number]
        batch = a_batch(Phase.SUCCEEDED, number=number, job_id=JOB, finished=NOW, message=letter * MAX_MESSAGE)
        jobs.append(replace(batch, servers=len(ids), called_ids=ids, template="f" * 16))
    status = Status(1, last_batch=KEPT_FINISHED, members=ALL, jobs=tuple(jobs))
    run = Run(an_object(a_spec(*ALL, drift=drift), status))
    for _ in range(LISTINGS_WITHOUT + 1):
        look(run)
        assert size(run) < STORED
    return run


@pytest.mark.parametrize(("letter", "most"), [("x", MAX_OBJECT_BYTES), ("\u6587", MAX_OBJECT_BYTES + 10_000)])
def test_ten_thousand_members_that_are_gone_at_once_fit(letter: str, most: int) -> None:
    run = all_gone(letter)
    assert size(run) <= most
    (group,) = run.status.failures
    told = (group.reason, group.count, group.server_ids)
    assert told == (FailureReason.LISTING_IMPLAUSIBLE, len(ALL), ALL[:NAMED_TWICE])
    assert causes_of(run.status).keys() == set(ALL)
    assert (run.status.joined, run.status.failed) == (0, len(ALL))
    assert "and 9997 more in status.holds" in run.ready.message
    wire = run.status
    look(run)
    assert run.status == wire, "a look that finds nothing new writes nothing"


def test_who_went_before_the_many_is_told_apart_from_them() -> None:
    few, many = frozenset(ALL[:50]), frozenset(ALL[50:100])
    causes = dict.fromkeys(few, Cause(FailureReason.MEMBER_MISSING, "gone", 0))
    causes |= dict.fromkeys(many, Cause(FailureReason.LISTING_IMPLAUSIBLE, "gone", 0))
    holds = (Hold(tuple(sorted(few)), NOW), Hold(tuple(sorted(many)), NOW, mass=True))
    short = shortened(fold(causes), holds, few | many)
    assert [(group.count, len(group.server_ids)) for group in short] == [(50, NAMED_TWICE)] * 2
    assert causes_of(Status(failures=short, holds=holds, members=ALL[:100])) == causes


def test_who_is_named_by_the_holds_only_counts_as_joined_when_its_node_is_back() -> None:
    run = all_gone("x")
    run.cloud.nodes = active(ALL[5_000:])
    look(run)
    assert (run.status.joined, run.status.failed) == (5_000, 5_000)
    assert causes_of(run.status).keys() == set(ALL[:5_000])
    run.cloud.nodes = active(ALL)
    look(run)
    assert (run.ready.status, run.status.failures, run.status.holds) == ("True", (), ())


def test_a_narrowed_reset_takes_up_who_is_named_by_the_holds_only() -> None:
    run = all_gone("x")
    last = ALL[-1]
    run.annotate({"cce.nodepools.dev/reset-requested-at": "1", "cce.nodepools.dev/reset-only": last})
    look(run)
    assert set(ALL) - set(run.status.members) == {last}
    run.annotate({"cce.nodepools.dev/reset-requested-at": "2", "cce.nodepools.dev/reset-only": "ListingImplausible"})
    look(run)
    assert run.status.members == ()
