"""An endpoint that does not answer is asked by one at a time, and by nobody for a while that grows.

Not for: what counts as no answer (`tests/contract/test_silent_endpoint.py`).
"""

import pytest

from nodepool_membership.cce.breaker import FIRST_WAIT, LONGEST_WAIT, Breaker, Breakers
from nodepool_membership.cce.errors import NotSentError
from times import Clock


def silent(breaker: Breaker) -> None:
    with breaker.call() as attempt:
        attempt.silence = "no route"


def test_after_a_call_without_an_answer_one_at_a_time_tries() -> None:
    breaker = Breaker(clock=Clock())
    silent(breaker)
    with breaker.call() as attempt:
        with pytest.raises(NotSentError, match=r"not asked.*no route"), breaker.call():
            pass
        attempt.answered = True
    with breaker.call(), breaker.call():
        assert not breaker.is_open


def test_the_waits_between_tries_grow_up_to_a_bound() -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    silent(breaker)
    waits = []
    for _ in range(8):
        silent(breaker)
        begun = clock.now
        while True:
            try:
                with breaker.call():
                    break
            except NotSentError:
                clock.now += 0.5
        waits.append(clock.now - begun)
    assert waits[:3] == [FIRST_WAIT, 2 * FIRST_WAIT, 4 * FIRST_WAIT]
    assert waits[-1] == LONGEST_WAIT


def test_calls_that_were_under_way_together_count_as_one_failure() -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    calls = [breaker.call() for _ in range(20)]
    attempts = [call.__enter__() for call in calls]
    for call, attempt in zip(calls, attempts, strict=True):
        attempt.silence = "no route"
        call.__exit__(None, None, None)
    with breaker.call():
        pass


def test_a_call_that_was_withheld_or_cancelled_says_nothing() -> None:
    breaker = Breaker(clock=Clock())
    silent(breaker)
    with pytest.raises(KeyboardInterrupt), breaker.call():
        raise KeyboardInterrupt
    assert breaker.is_open
    with breaker.call() as attempt:
        attempt.answered = True
    assert not breaker.is_open


def test_endpoints_are_apart_and_idle_ones_are_forgotten() -> None:
    clock = Clock()
    breakers = Breakers(clock=clock)
    silent(breakers.get("https://a"))
    assert breakers.get("https://a").is_open
    assert not breakers.get("https://b").is_open
    clock.now = 4000
    breakers.get("https://c")
    assert not breakers.get("https://a").is_open
