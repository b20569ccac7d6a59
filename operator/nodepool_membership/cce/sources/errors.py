"""What went wrong on the way to keys: with it, nothing was sent to CCE.

Not for: answers of CCE itself (`cce.errors`).
"""

from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.errors import NotSentError


class IdentityError(NotSentError):
    """No keys could be had. The message names the field and the remedy; `retry_after` in seconds, if it was said."""

    def __init__(
        self, message: str, *, reason: Reason = Reason.IDENTITY_REFUSED, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.retry_after = retry_after
