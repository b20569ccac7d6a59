"""Federation through the new IAM: STS gives keys of a trust agency for a service account's token, unsigned.

Not for: the token. Wire: `POST /v5/agencies/assume-with-oidc`, as the official SDK sends it.
"""

from dataclasses import dataclass
from typing import Final

from nodepool_membership.cce.sources.exchange import SESSION_NAME, Exchange, TimedGrant, Via
from nodepool_membership.cce.sources.federation import TokenOf

_JSON: Final = {"Content-Type": "application/json;charset=UTF-8"}


@dataclass(frozen=True, slots=True)
class Trust:
    """Whom STS is asked to let us be; `duration_seconds` 900..43200, at most the agency's maximum."""

    provider_urn: str
    agency_urn: str
    duration_seconds: int


class AssumeWithOidc:
    """One trust agency."""

    def __init__(
        self,
        via: Via,
        sts: str,
        trust: Trust,
        token_of: TokenOf,
    ) -> None:
        def remedy(_status: int, code: str) -> str:
            match code:
                case "STS5.1001":
                    return (
                        f"the trust policy of {trust.agency_urn!r} must allow sts:agencies:assumeWithOIDC to"
                        f" {trust.provider_urn!r} for the token's oidc:iss, oidc:aud and oidc:sub"
                    )
                case "STS5.2001":
                    return (
                        "the token's audience is none of the provider's client ids: correct spec.identityRef.audience,"
                        f" or add it to {trust.provider_urn!r}"
                    )
                case "STS5.1007":
                    return "this region has no such API: name another region's STS in spec.identityRef.endpoint"
                case _:
                    return (
                        "check providerURN, agencyURN and durationSeconds in spec.identityRef.sts, and the issuer of"
                        " the cluster's tokens"
                    )

        self._sts = sts
        self._trust = trust
        self._token_of = token_of
        self._exchange = Exchange(via, f"STS at {sts}", remedy)

    async def fetch(self) -> TimedGrant:
        """New keys. Raises IdentityError."""
        body = {
            "provider_urn": self._trust.provider_urn,
            "agency_urn": self._trust.agency_urn,
            "agency_session_name": SESSION_NAME,
            "id_token": await self._token_of(),
            "duration_seconds": self._trust.duration_seconds,
        }
        url = f"{self._sts}/v5/agencies/assume-with-oidc"
        return self._exchange.lease(await self._exchange.post("assumeAgencyWithOidc", url, _JSON, body))
