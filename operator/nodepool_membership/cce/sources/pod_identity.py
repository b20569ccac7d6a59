"""CCE Pod Identity: an agent on the node gives the operator's own pod keys of the agency associated with it.

Not for: the identity of a namespace. The client must use no proxy: the agent's address is plain http and link-local.
Wire: `POST $HC_CONTAINER_CREDENTIALS_FULL_URI`, as the official SDK sends it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

import httpx

from nodepool_membership import redaction
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.exchange import Exchange, TimedGrant, Via

URI_VARIABLE: Final = "HC_CONTAINER_CREDENTIALS_FULL_URI"
FILE_VARIABLE: Final = "HC_CONTAINER_AUTHORIZATION_TOKEN_FILE"
AGENT_SECONDS: Final = 5.0
"""The time-out of the SDK, too: the agent is on the same node."""
_MAX_BYTES: Final = 64 << 10
_JSON: Final = {"Content-Type": "application/json"}
_REMEDY: Final = "check the pod identity association of this namespace and service account in CCE, and its agency"


def read_token(path: Path, named_by: str) -> str:
    """A token in a file, read anew at each exchange: the kubelet replaces it.

    Raises:
        IdentityError: it is missing, empty, or no text.
    """
    remedy = f"check {named_by} and the volume that holds it"
    try:
        with path.open("rb") as file:
            token = file.read(_MAX_BYTES + 1).decode("ascii").strip()
    except OSError as error:
        text = f"the token file {str(path)!r} cannot be read ({error.strerror}): {remedy}"
        raise IdentityError(text, reason=Reason.CREDENTIALS_INVALID) from None
    except UnicodeDecodeError:
        token = ""
    if not token or len(token) > _MAX_BYTES or not token.isprintable():
        text = f"the token file {str(path)!r} is empty or holds no token: {remedy}"
        raise IdentityError(text, reason=Reason.CREDENTIALS_INVALID)
    redaction.register_token(token)
    return token


class PodIdentity:
    """The agent that the environment names; what is missing there is told at each exchange."""

    def __init__(self, via: Via, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._exchange = Exchange(via, "the pod identity agent", lambda _status, _code: _REMEDY)

    async def fetch(self) -> TimedGrant:
        """New keys. Raises IdentityError."""
        missing = [name for name in (URI_VARIABLE, FILE_VARIABLE) if not self._environ.get(name)]
        if missing:
            raise IdentityError(
                f"{' and '.join(missing)} not set in the operator's pod: label it"
                ' pod-identity.cce.io/injection: "on", and check that the add-on runs',
                reason=Reason.CREDENTIALS_INVALID,
            )
        token = read_token(Path(self._environ[FILE_VARIABLE]), FILE_VARIABLE)
        headers = {**_JSON, "Authorization": token}
        try:
            answer = await self._exchange.post("agentCredentials", self._environ[URI_VARIABLE], headers, {})
        except httpx.InvalidURL:
            raise IdentityError(f"{URI_VARIABLE} is no URL", reason=Reason.CREDENTIALS_INVALID) from None
        return self._exchange.lease(answer)
