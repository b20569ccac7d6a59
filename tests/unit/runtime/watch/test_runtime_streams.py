"""The arithmetic of the watch's probes, with a clock that tests turn: who is at fault, and for how long."""

import pytest

from nodepool_membership.runtime.watch.streams import (
    AT_FAULT_SECONDS,
    REFUSED_SECONDS,
    REOPENING_SECONDS,
    SERVER_TIMEOUT_SECONDS,
    SILENT_SECONDS,
    Streams,
)

A, B = "ns-a", "ns-b"
CHECK = 30.0


class World:
    """kopf, the API server and the time; `run` lets time pass as the watch's `_doubt` sees it."""

    def __init__(self, *names: str) -> None:
        self.now = 1000.0
        self.streams = Streams(names or (A,), clock=lambda: self.now)
        self.api = True

    def open(self, name: str = A) -> None:
        self.answer(200, name)
        self.streams.asked(name)
        self.streams.answered(name, 200, watch=True)

    def answer(self, status: int, name: str = A) -> None:
        self.streams.asked(name)
        self.streams.answered(name, status, watch=False)

    def run(self, seconds: float) -> str | None:
        """Let so much time pass; the first thing that liveness says meanwhile."""
        end = self.now + seconds
        while self.now < end:
            self.now = min(end, self.now + CHECK)
            self.streams.api_answers(does=self.api)
            if (reason := self.streams.alive()) is not None:
                return reason
        return None


def test_a_stream_that_is_opened_again_and_again_is_well_for_ever() -> None:
    world = World()
    for _ in range(100):
        world.open()
        assert world.run(SERVER_TIMEOUT_SECONDS) is None
        assert world.streams.ready() is None


def test_not_ready_before_the_first_watch_is_open() -> None:
    world = World()
    assert "the first list is not finished: no answer" in str(world.streams.ready())
    world.answer(200)
    assert "the first list is not finished" in str(world.streams.ready())
    world.open()
    assert world.streams.ready() is None
    world.streams.ended()
    assert "the first list is not finished" in str(world.streams.ready())


def test_opening_again_takes_a_moment_in_which_it_stays_ready() -> None:
    world = World()
    world.open()
    world.now += 200
    world.streams.asked(A)
    world.now += REOPENING_SECONDS
    assert world.streams.ready() is None
    world.now += 1
    assert world.streams.ready() == f"watch: {A}: not open for 16 s: no answer from the API server"


def test_an_api_server_that_is_away_for_hours_is_no_reason_to_restart() -> None:
    world = World()
    world.open()
    world.api = False
    world.streams.asked(A)
    assert world.run(4 * 3600) is None
    assert "not open for 14400 s" in str(world.streams.ready())
    # It is back, and kopf finds back to it in time.
    world.api = True
    assert world.run(AT_FAULT_SECONDS - CHECK) is None
    world.open()
    assert world.run(SILENT_SECONDS) is None


@pytest.mark.parametrize("asked", [True, False], ids=["unanswered", "not-asked"])
def test_a_stream_without_answers_while_the_api_server_answers_others_fails(asked: bool) -> None:
    world = World()
    world.open()
    if asked:
        world.streams.asked(A)
    failed = world.run(3600)
    assert failed is not None
    assert f"{A}: no answer for" in failed
    assert "though the API server answers others" in failed
    assert SILENT_SECONDS + AT_FAULT_SECONDS <= world.now - 1000 <= SILENT_SECONDS + AT_FAULT_SECONDS + 3 * CHECK
    assert world.streams.ready() is not None


def test_one_dead_stream_of_two_is_named() -> None:
    world = World(A, B)
    failed = None
    world.open(B)
    for _ in range(10):
        world.open(A)
        failed = failed or world.run(100)
    assert failed is not None
    assert f"{B}: no answer for" in failed


def test_an_outage_in_between_starts_the_count_anew() -> None:
    world = World()
    world.open()
    assert world.run(SILENT_SECONDS + AT_FAULT_SECONDS - CHECK) is None
    world.api = False
    assert world.run(CHECK) is None
    world.api = True
    assert world.run(AT_FAULT_SECONDS) is None
    assert world.run(3 * CHECK) is not None


@pytest.mark.parametrize("status", [403, 429, 500])
def test_an_answer_however_bad_is_an_answer(status: int) -> None:
    world = World()
    world.open()
    for _ in range(400):
        world.answer(status)
        assert world.run(10) is None
    assert f"the API server answers {status}" in str(world.streams.ready())


def test_a_login_that_is_refused_for_long_fails() -> None:
    world = World()
    world.open()
    reasons = []
    for _ in range(int(REFUSED_SECONDS / 10) + 2):
        world.answer(401)
        reasons.append(world.run(10))
    assert reasons[:60] == [None] * 60
    assert "the API server refuses the login (401) for" in str(reasons[-1])
    assert "the login is refused; renew the token" in str(world.streams.ready())
    world.answer(200)
    assert world.run(10) is None


def test_a_refusal_before_an_outage_does_not_count_on() -> None:
    world = World()
    world.open()
    world.answer(401)
    world.api = False
    assert world.run(3 * REFUSED_SECONDS) is None
