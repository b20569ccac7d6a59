"""An agency on top of another source: for another account, or a narrower role. Signed with that source's keys.

Not for: chaining agencies. Wire: IAM v3 `POST /v3.0/OS-CREDENTIAL/securitytokens` with `assume_role`; STS v5
`POST /v5/agencies/assume`.
"""

from typing import Final

import httpx

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import AgencyRef
from nodepool_membership.cce.credentials import AccessKey, Source
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.signing import SignatureAuth
from nodepool_membership.cce.sources.exchange import SESSION_NAME, Exchange, ServiceAnswer, TimedGrant, Via

SECONDS: Final = 3600
"""The most that STS gives to a caller whose own keys are temporary."""
_JSON: Final = {"Content-Type": "application/json"}


class Agency:
    """One agency; `url` is that of IAM for one by name, of STS for one by URN."""

    def __init__(
        self,
        via: Via,
        url: str,
        agency: AgencyRef,
        base: Source,
    ) -> None:
        def remedy(status: int, _code: str) -> str:
            if status == httpx.codes.UNAUTHORIZED:
                return "the keys that the agency is assumed with are refused: check credentialsRef or identityRef"
            return (
                "the agency must exist, its trust must name this account (and external id), and the caller needs the"
                " right to assume it (Agent Operator, or sts:agencies:assume): correct spec.assumeAgency, or grant it"
            )

        self._url = url
        self._agency = agency
        self._base = base
        self._now = via.now
        name = agency.agency_urn or agency.agency_name
        what = f"assuming the agency {name!r} at {url}"
        self._exchange = Exchange(via, what, remedy)

    async def fetch(self) -> TimedGrant:
        """New keys. Raises IdentityError, also the base's own."""
        key = await self._base.current()
        try:
            return await self._assume(key)
        except IdentityError as error:
            # The base's keys may have ended before their time; they are renewed before they are blamed.
            if error.reason is not Reason.IDENTITY_REFUSED or not await self._base.renewed(key):
                raise
            return await self._assume(await self._base.current())

    async def _assume(self, key: object) -> TimedGrant:
        if not isinstance(key, AccessKey):
            raise IdentityError(
                "spec.assumeAgency needs an access key to sign with, and the Secret holds a token: store accessKey and"
                " secretKey, or use spec.identityRef",
                reason=Reason.CREDENTIALS_INVALID,
            )
        auth = SignatureAuth(key, now=self._now)
        return self._exchange.lease(await self._ask(auth))

    async def _ask(self, auth: httpx.Auth) -> ServiceAnswer:
        agency = self._agency
        if agency.agency_urn is not None:
            body = {
                "agency_urn": agency.agency_urn,
                "agency_session_name": SESSION_NAME,
                "duration_seconds": SECONDS,
                **({"external_id": agency.external_id} if agency.external_id else {}),
            }
            url = f"{self._url}/v5/agencies/assume"
            return await self._exchange.post("assumeAgency", url, _JSON, body, auth=auth)
        domain = {"domain_id": agency.domain_id} if agency.domain_id else {"domain_name": agency.domain_name}
        role = {"agency_name": agency.agency_name, **domain, "duration_seconds": SECONDS}
        asked: object = {"auth": {"identity": {"methods": ["assume_role"], "assume_role": role}}}
        url = f"{self._url}/v3.0/OS-CREDENTIAL/securitytokens"
        return await self._exchange.post("createTemporaryAccessKey", url, _JSON, asked, auth=auth)
