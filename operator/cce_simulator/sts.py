"""STS v5: keys of an agency for a service account's token or for another key; and the pod identity agent of a node.

Not for: the old IAM (`iam`).
"""

import hmac
from collections.abc import Callable, Mapping
from pathlib import Path

from cce_simulator.auth import Authenticator, SignedRequest
from cce_simulator.config import AgencyConfig, SimulatorConfig
from cce_simulator.errors import ApiError
from cce_simulator.identity_service import IdentityService
from cce_simulator.jwt import TokenError, verified
from cce_simulator.routes import Reply, json_object, json_reply

SESSION_SECONDS = range(900, 43_201)
LONGEST_CHAINED = 3600
"""Of a session that is made with temporary keys."""


def _refused(code: str, text: str, status: int = 403) -> ApiError:
    return ApiError(status, code, text)


class Sts(IdentityService):
    """The new one, and the agent."""

    def __init__(
        self,
        config: Callable[[], SimulatorConfig],
        authenticator: Authenticator,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(config, authenticator, clock)
        self._routes: dict[str, Callable[[SignedRequest], Reply]] = {
            "assumeAgencyWithOidc": self._with_oidc,
            "assumeAgency": self._assume,
            "callerIdentity": self._caller,
            "agentCredentials": self._agent,
        }

    def handle(self, route: str, request: SignedRequest) -> Reply | None:
        """Answer a call; None: the route is another service's. Raises ApiError."""
        answer = self._routes.get(route)
        return None if answer is None else answer(request)

    def _with_oidc(self, request: SignedRequest) -> Reply:
        asked = json_object(request.body)
        seconds = _seconds(asked)
        provider = next((p for p in self._config().identity_providers if p.urn == asked.get("provider_urn")), None)
        if provider is None or not provider.urn:
            raise _refused("STS5.1003", f"the provider {asked.get('provider_urn')} does not exist", 404)
        try:
            claims = verified(str(asked.get("id_token")), provider.keys, self._clock())
        except TokenError as error:
            raise _refused("STS5.2000", f"the id token is invalid: {error}", 400) from error
        if claims.issuer != provider.issuer:
            raise _refused("STS5.2000", "the id token is invalid: its issuer is another", 400)
        if not set(claims.audiences) & set(provider.client_ids):
            raise _refused("STS5.2001", "the audience is not in the client ids of the provider", 400)
        agency = self._agency(asked)
        trusted = agency is not None and any(
            (trust.provider_urn, trust.subject) == (provider.urn, claims.subject) and trust.audience in claims.audiences
            for trust in agency.trusts
        )
        if agency is None or not trusted:
            raise _refused("STS5.1001", "no identity-based policy allows sts:agencies:assumeWithOIDC")
        answer = self._session(agency, seconds)
        about = {"audience": claims.audiences[0], "provider": provider.urn, "subject_from_id_token": claims.subject}
        return json_reply({**answer, **about})

    def _assume(self, request: SignedRequest) -> Reply:
        caller = self._authenticator.identify(request)
        asked = json_object(request.body)
        seconds = _seconds(asked)
        agency = self._agency(asked)
        if agency is None or caller.name not in agency.callers or asked.get("external_id") != agency.external_id:
            raise _refused("STS5.1001", "no identity-based policy allows sts:agencies:assume")
        if "x-security-token" in request.headers and seconds > LONGEST_CHAINED:
            raise _refused("STS5.1005", f"a chained session lasts at most {LONGEST_CHAINED} s", 400)
        return json_reply(self._session(agency, seconds))

    def _agency(self, asked: Mapping[str, object]) -> AgencyConfig | None:
        return next((a for a in self._config().agencies if a.urn == asked.get("agency_urn")), None)

    def _session(self, agency: AgencyConfig, seconds: int) -> dict[str, object]:
        if seconds > agency.max_session_seconds:
            raise _refused("STS5.1005", f"duration_seconds exceeds {agency.max_session_seconds}", 400)
        keys = self._keys(agency, seconds)
        assumed = {
            "urn": f"sts::{agency.domain_id}:assumed-agency:{agency.name}/session",
            "id": f"{agency.name}:session",
        }
        return {"assumed_agency": assumed, "credentials": keys}

    def _keys(self, agency: AgencyConfig, seconds: float, digits: int = 3) -> dict[str, object]:
        key, ends = self._issued_key(agency.project_id, seconds, agency.urn, digits)
        return {
            "access_key_id": key.access_key,
            "secret_access_key": key.secret_key,
            "security_token": key.security_token,
            "expiration": ends,
        }

    def _caller(self, request: SignedRequest) -> Reply:
        caller = self._authenticator.identify(request)
        return json_reply({"account_id": caller.project_id, "principal_urn": caller.name, "principal_id": caller.name})

    def _agent(self, request: SignedRequest) -> Reply:
        agent = self._config().agent
        if agent is None:
            raise _refused("APIGW.0101", "The API does not exist or has not been published", 404)
        # The kubelet replaces the file: what is in it now counts.
        file = Path(agent.token_file)
        wanted = file.read_text().strip() if file.is_file() else ""
        if not wanted or not hmac.compare_digest(request.headers.get("authorization", ""), wanted):
            raise _refused("CCE.01401001", "the token is not that of a pod on this node", 401)
        agency = next((a for a in self._config().agencies if a.name == agent.agency), None)
        if agency is None:
            raise _refused("CCE.01404001", "no pod identity association", 404)
        keys = self._keys(agency, LONGEST_CHAINED, digits=6)
        names = {
            "access_key_id": "accessKeyId",
            "secret_access_key": "secretAccessKey",
            "security_token": "securityToken",
        }
        credentials = {names.get(name, name): value for name, value in keys.items()}
        answer: dict[str, object] = {
            "audience": "service.cce.pods",
            "credentials": credentials,
            "podIdentityAssociationId": "association",
            "subject": {"namespace": "nodepool-membership", "serviceAccount": "nodepool-membership-operator"},
        }
        if agent.trust_agency:
            answer["assumedAgency"] = {"urn": agency.urn, "id": agency.name}
        return json_reply(answer)


def _seconds(asked: Mapping[str, object]) -> int:
    seconds = asked.get("duration_seconds", LONGEST_CHAINED)
    if not isinstance(seconds, int) or seconds not in SESSION_SECONDS:
        raise _refused("STS5.1005", "duration_seconds must be 900 to 43200", 400)
    return seconds
