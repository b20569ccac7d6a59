"""The operator's options that decisions depend on.

Not for: parsing them (`runtime.ops.options`).
"""

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

JOB_GRACE: Final = timedelta(minutes=5)
"""A job still running this long after `joinTimeoutSeconds` is overdue (rule P10)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Durations from the command line (`runtime.ops.options`)."""

    poll_interval: timedelta = timedelta(seconds=15)
    settle_window: timedelta = timedelta(minutes=30)
    resync_interval: timedelta = timedelta(minutes=5)
    removal_delay: timedelta = timedelta(minutes=2)
