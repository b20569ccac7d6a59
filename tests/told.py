"""What a status tells: for tests only. The operator itself never reads its conditions back.

Not for: state (`api.status`).
"""

from typing import Literal

from nodepool_membership.api.status import Condition, Status


def condition_of(status: Status, kind: Literal["Ready", "Reconciling", "Stalled"]) -> Condition | None:
    return next((condition for condition in status.conditions if condition.type == kind), None)
