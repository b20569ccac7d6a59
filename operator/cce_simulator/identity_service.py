"""What the old and the new IAM share: temporary keys, and how their end is written.

Not for: who gets one (`iam`, `sts`), or whether a request is signed with one (`auth`).
"""

from collections.abc import Callable
from datetime import UTC, datetime

from cce_simulator.auth import Authenticator
from cce_simulator.config import AccessKeyConfig, SimulatorConfig


class IdentityService:
    """`config` returns the configuration in force."""

    def __init__(
        self,
        config: Callable[[], SimulatorConfig],
        authenticator: Authenticator,
        clock: Callable[[], float],
    ) -> None:
        self._config = config
        self._authenticator = authenticator
        self._clock = clock

    def _issued_key(self, project_id: str, seconds: float, user: str, digits: int) -> tuple[AccessKeyConfig, str]:
        """A new key and its end, with so many digits of a fraction; a switch in the configuration outranks both."""
        behaviour = self._config().behaviour
        seconds = behaviour.session_seconds or seconds
        key = self._authenticator.issue_key(project_id, seconds, user)
        digits = digits if behaviour.expiry_digits is None else behaviour.expiry_digits
        return key, iso_time(self._clock() + seconds, digits)


def iso_time(seconds: float, digits: int = 6) -> str:
    """A moment with so many digits of a fraction; IAM's form has 6: `2026-01-03T03:04:05.527363Z`."""
    moment = datetime.fromtimestamp(seconds, UTC)
    fraction = f".{moment.microsecond:06d}"[: digits + 1] if digits else ""
    return f"{moment:%Y-%m-%dT%H:%M:%S}{fraction}Z"
