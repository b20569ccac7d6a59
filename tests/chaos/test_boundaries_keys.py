"""Temporary keys over hours of virtual time: renewed while a job runs, also while nobody gives any for an hour.

Not for: crashes meanwhile (`test_boundaries`, `boundaries_scenario`), or real time (`cluster/test_identity`).
"""

from collections import Counter
from dataclasses import replace

import pytest

from cce_simulator.faults import Answer, FaultRule
from chaos.boundaries_api import Wire, mapping
from chaos.boundaries_effects import Effects
from chaos.boundaries_scenario import SCENARIOS, Scenario
from chaos.boundaries_world import World
from harness.identity import FEDERATION

TWO_HOURS = next(scenario for scenario in SCENARIOS if "two hours" in scenario.name)
AWAY = 42
"""Asks that IAM does not answer, one whenever keys are used: more than an hour."""


class Heard:
    """A run, and what was told while it lasted."""

    def __init__(self, scenario: Scenario) -> None:
        self.texts: list[str] = []
        world = World(scenario, Effects.of(()))
        changed = world.api.changed

        def hear(old: Wire | None, new: Wire | None) -> None:
            self.texts.append(str(mapping((new or {}).get("status")).get("conditions")))
            changed(old, new)

        world.api.changed = hear
        world.live()
        entries = world.simulator.ledger.entries
        self.answers = Counter((entry.route, entry.status) for entry in entries)
        self.keys = {entry.access_key for entry in entries if entry.access_key}
        self.seconds = world.clock.seconds

    def check_nobody_heard_of_keys(self) -> None:
        assert len(self.texts) > 5
        assert [text for text in self.texts if "Identity" in text or "IAM" in text or "Unauth" in text] == []
        assert [route for route, status in self.answers if status == 401] == []


def test_a_job_of_two_hours_is_followed_with_keys_of_fifteen_minutes() -> None:
    heard = Heard(TWO_HOURS)
    heard.check_nobody_heard_of_keys()
    assert heard.seconds > 7200
    # One in half of their life.
    assert 14 <= len(heard.keys) <= 20


def test_while_iam_is_away_for_an_hour_keys_that_live_are_used(caplog: pytest.LogCaptureFixture) -> None:
    away = FaultRule(
        route="createTokenByIdToken", skip=1, times=AWAY, answer=Answer(status=503, error_code="IAM.0006", message="no")
    )
    cloud = TWO_HOURS.cloud
    behaviour = cloud.behaviour.model_copy(update={"session_seconds": 3 * 3600, "job_seconds": 10_000})
    heard = Heard(
        replace(
            TWO_HOURS,
            identity=FEDERATION,
            cloud=cloud.model_copy(update={"behaviour": behaviour, "faults": (away,)}),
        )
    )
    heard.check_nobody_heard_of_keys()
    assert heard.answers["createTokenByIdToken", 503] == AWAY
    assert len(heard.keys) == 2
    # Whoever runs the operator is told, how long the keys at hand are good, too.
    said = [record for record in caplog.records if "keys not renewed, those at hand are kept" in record.message]
    assert len(said) == AWAY
    assert "503 IAM.0006 no; it is asked again" in said[0].message
    assert vars(said[0])["left"] - vars(said[-1])["left"] > 3600
