"""Refusals that may be about one server or about all are asked about; of servers that clash, one stays in.

Not for: refusals that are about servers (`test_core_narrowing`). Rule P15.
"""

import pytest

from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Phase, Status
from nodepool_membership.core.decision.record import Refused
from nodepool_membership.core.observed.catalogue import refusal
from unit.core_builders import Run, a_spec, an_object, next_attempt, servers
from unit.narrowing_builders import fresh, phases, refused, try_until_settled

IDS = servers(8)
UNCLEAR = refusal(400, "CCE.01400025")


def unclear(said: str = "subeni quota is 0", told: str = "CCE.01400025: subeni quota is 0") -> Refused:
    return Refused(UNCLEAR, told, said)


def test_of_an_unclear_refusal_three_from_all_over_are_asked_for_alone() -> None:
    ids = servers(200)
    asked: set[str] = set()
    for number in range(20):
        run = Run(an_object(a_spec(*ids), Status(1, last_batch=number)))
        run.step(unclear())
        first, rest, *probes = phases(run)
        assert first == (Phase.REFUSED, ())
        assert len(rest[1]) == 197
        assert [len(part) for _, part in probes] == [1, 1, 1]
        assert sorted((*rest[1], *(i for _, part in probes for i in part))) == sorted(ids)
        asked |= {i for _, part in probes for i in part}
        assert (run.status.failures, run.status.pending) == ((), 200)
    assert len(asked) > 30, "not the same ones each time: bad servers stay bad"


def test_if_all_three_are_refused_it_is_about_all_and_waits() -> None:
    run = fresh(*IDS)
    calls = 0
    while run.step(unclear(told=f"CCE.01400025: {9 - calls} of 9 used")).intent is not None:
        calls += 1
    assert calls == 4, "figures that differ make no other text"
    assert not any(job.phase is Phase.QUEUED for job in run.status.jobs)
    assert set(run.causes) == set(IDS)
    assert {attempts for _, attempts in run.causes.values()} == {1}
    assert (run.ready.reason, run.status.pending) == (Reason.QUOTA_EXCEEDED, 8)
    moment = next_attempt(run.status)
    assert moment is not None
    assert (moment - run.now).total_seconds() >= 300, "somebody has to do something first"


def test_if_one_is_accepted_it_is_about_servers() -> None:
    ids = servers(64)
    for odd in (ids[0], ids[31], ids[63]):
        run = Run(an_object(a_spec(*ids, attempts=1), Status(1, last_batch=0)))
        try_until_settled(run, {odd}, unclear())
        assert run.causes == {odd: (FailureReason.QUOTA_EXCEEDED, 1)}
        assert run.status.joined == 63


def test_more_odd_servers_than_one_are_found_too() -> None:
    ids = servers(64)
    odd = {ids[3], ids[4], ids[40], ids[62]}
    run = Run(an_object(a_spec(*ids, attempts=2), Status(1, last_batch=0)))
    try_until_settled(run, odd, unclear())
    assert set(run.causes) == odd
    assert run.status.joined == 60


def test_one_that_an_unclear_refusal_names_is_set_apart() -> None:
    run = fresh(*IDS)
    run.step(unclear(f"{IDS[5]}: subeni quota is 0"))
    assert run.causes == {IDS[5]: (FailureReason.QUOTA_EXCEEDED, 1)}
    assert phases(run)[1:] == [(Phase.QUEUED, (*IDS[:5], *IDS[6:]))]


def test_what_no_server_can_help_blames_nobody_and_uses_up_no_attempt() -> None:
    run = fresh(*IDS[:2])
    text = "Need authorize CCE to operate user resources"
    waits = []
    for _ in range(8):
        intent = run.step(Refused(refusal(400, "CCE_CM.0004", text), text, text)).intent
        assert intent is not None
        assert (intent.attempt, run.status.failures, run.status.pending) == (1, (), 2)
        assert run.ready.reason is Reason.FORBIDDEN
        moment = next_attempt(run.status)
        assert moment is not None
        waits.append((moment - run.now).total_seconds())
        run.now = moment
    assert waits[0] >= 300
    assert 3600 <= waits[-1] <= 3600 * 1.2 + 1


@pytest.mark.parametrize("said", [f"{IDS[1]} and {IDS[5]} clash", f"{IDS[5]}, {IDS[1]}: one host name"])
def test_of_two_that_are_named_together_one_stays_in(said: str) -> None:
    """Case 18 of the field: they may clash only with one another."""
    run = fresh(*IDS)
    run.step(refused(said))
    assert run.causes == {}
    assert phases(run)[1:] == [(Phase.QUEUED, IDS[5:6]), (Phase.QUEUED, (*IDS[:5], *IDS[6:]))]


def test_two_that_are_named_and_nobody_else_are_asked_for_one_by_one() -> None:
    run = fresh(*IDS[:2])
    run.step(refused(f"{IDS[0]} and {IDS[1]} clash"))
    assert run.causes == {}
    assert phases(run)[1:] == [(Phase.QUEUED, IDS[1:2]), (Phase.QUEUED, IDS[:1])]


def test_of_very_many_that_are_named_one_is_spared() -> None:
    ids = servers(40)
    run = fresh(*ids)
    run.step(refused(" ".join(ids)))
    assert set(run.causes) == set(ids[:-1])
    assert phases(run)[1:] == [(Phase.QUEUED, ids[-1:])]


def test_bad_servers_that_are_named_one_by_one_say_nothing_of_the_pool() -> None:
    run = fresh(*IDS[:5])
    for _ in range(12):
        intent = run.decide().intent
        if intent is None:
            break
        said = f"server {', '.join(intent.server_ids)}: one host name"
        run.step(Refused(refusal(400, "CCE.01400001"), said, said))
    assert run.ready.reason is not Reason.POOL_REFUSES
    assert set(run.causes) == set(IDS[:5])


def test_a_refusal_that_names_each_server_alone_may_still_be_about_the_pool() -> None:
    run = Run(an_object(a_spec(*IDS[:5], batch_size=1), Status(1, last_batch=0)))
    for _ in range(6):
        intent = run.decide().intent
        if intent is None:
            break
        said = f"server {intent.server_ids[0]}: the pool's image is gone"
        run.step(Refused(refusal(400, "CCE.01400001"), said, said))
    assert run.ready.reason is Reason.POOL_REFUSES
    assert run.causes == {}
