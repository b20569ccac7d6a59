"""Federation through the old IAM (v3): a service account's token, for an IAM token, for temporary keys.

Not for: the token of the service account. The IAM token lives for one exchange and is never sent to CCE: a request
with one has no signed time (rule P5). Wire: `POST /v3.0/OS-AUTH/id-token/tokens`, `/v3.0/OS-CREDENTIAL/securitytokens`,
as the official SDK sends them.
"""

from collections.abc import Awaitable, Callable
from typing import Final

from nodepool_membership import redaction
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.exchange import Exchange, TimedGrant, Via

TokenOf = Callable[[], Awaitable[str]]
"""Gives a new token of the identity. Raises IdentityError."""
SECONDS: Final = 21600
"""What the SDK asks for, too; IAM's default of 900 would end within a long listing."""
_JSON: Final = {"Content-Type": "application/json;charset=UTF-8"}


class Federation:
    """One identity provider of one account."""

    def __init__(
        self,
        via: Via,
        iam: str,
        provider: str,
        token_of: TokenOf,
    ) -> None:
        def remedy(status: int, _code: str) -> str:
            match status:
                case 404:
                    return (
                        f"IAM has no identity provider {provider!r}: create it, or correct"
                        " spec.identityRef.federation.identityProvider, or the endpoint, which may be another region's"
                    )
                case 401:
                    return (
                        f"IAM does not take the token: compare issuer, client id and signing keys (JWKS, to be fetched"
                        f" again after a cluster upgrade) of the identity provider {provider!r} with the cluster's, the"
                        " client id with spec.identityRef.audience"
                    )
                case 403:
                    return (
                        f"the identity provider {provider!r} must have the access type programmatic, and a mapping"
                        " rule must give this service account (sub) a user group"
                    )
                case _:
                    return f"check spec.identityRef.federation and the identity provider {provider!r}"

        self._iam = iam
        self._provider = provider
        self._token_of = token_of
        self._exchange = Exchange(via, f"IAM at {iam}", remedy)

    async def fetch(self) -> TimedGrant:
        """New keys. Raises IdentityError."""
        token = await self._token_of()
        headers = {**_JSON, "X-Idp-Id": self._provider}
        asked: object = {"auth": {"id_token": {"id": token}}}
        answer = await self._exchange.post(
            "createTokenByIdToken", f"{self._iam}/v3.0/OS-AUTH/id-token/tokens", headers, asked
        )
        subject = answer.headers.get("X-Subject-Token", "")
        if not subject:
            raise IdentityError(
                f"IAM at {self._iam}: an answer without X-Subject-Token: check that this is an IAM endpoint",
                reason=Reason.CLOUD_UNREACHABLE,
            )
        redaction.register(subject)
        identity = {"methods": ["token"], "token": {"id": subject, "duration_seconds": SECONDS}}
        url = f"{self._iam}/v3.0/OS-CREDENTIAL/securitytokens"
        body = {"auth": {"identity": identity}}
        return self._exchange.lease(await self._exchange.post("createTemporaryAccessKey", url, _JSON, body))
