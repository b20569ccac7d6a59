"""IAM v3: tokens for a password or for a service account's token, temporary keys for a token or an agency.

Not for: catalogues, or the new IAM (`sts`).
"""

from collections.abc import Mapping

from cce_simulator.auth import Identity, SignedRequest, mapped_user
from cce_simulator.config import AgencyConfig
from cce_simulator.errors import ApiError, invalid
from cce_simulator.identity_service import IdentityService, iso_time
from cce_simulator.jwt import TokenError, verified
from cce_simulator.routes import Reply, json_object, json_reply

TOKEN_SECONDS = 24 * 3600
KEY_SECONDS = range(900, 86_401)


class Iam(IdentityService):
    """The old IAM."""

    def handle(self, route: str, request: SignedRequest) -> Reply:
        """Answer a call of a route without an action. Raises ApiError."""
        document = json_object(request.body)
        if route == "createTokenByIdToken":
            return self._federated(request, document)
        identity = at(document, "auth", "identity")
        methods = identity.get("methods")
        if route == "createToken":
            return self._token(identity if methods == ["password"] else {})
        if methods == ["token"]:
            return self._for_token(request, at(identity, "token"))
        if methods == ["assume_role"]:
            return self._for_agency(request, at(identity, "assume_role"))
        raise invalid("auth.identity.methods must be token or assume_role")

    def _token(self, identity: Mapping[str, object]) -> Reply:
        given = at(identity, "password", "user")
        domain = at(given, "domain").get("name")
        for user in self._config().users:
            if (given.get("name"), given.get("password"), domain) == (user.name, user.password, user.domain):
                told = {"name": user.name, "domain": {"name": user.domain}}
                return self._issued(user.project_id, "", "password", told)
        error = {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}
        return json_reply({"error": error}, 401)

    def _issued(self, project_id: str, user: str, method: str, told: Mapping[str, object]) -> Reply:
        token = self._authenticator.issue_token(project_id, TOKEN_SECONDS, user)
        document = {
            "token": {
                "methods": [method],
                "issued_at": iso_time(self._clock()),
                "expires_at": iso_time(self._clock() + TOKEN_SECONDS),
                "project": {"id": project_id},
                "user": told,
            }
        }
        reply = json_reply(document, 201)
        return Reply(reply.status, reply.body, headers={"X-Subject-Token": token.value})

    def _federated(self, request: SignedRequest, document: Mapping[str, object]) -> Reply:
        name = request.headers.get("x-idp-id", "")
        provider = next((p for p in self._config().identity_providers if p.name == name), None)
        if provider is None:
            raise ApiError(404, "IAM.0004", f"Could not find identity provider: {name}.")
        if provider.console_only:
            raise ApiError(403, "IAM.0081", "The identity provider does not support programmatic access.")
        token = at(document, "auth", "id_token").get("id")
        if not isinstance(token, str):
            raise ApiError(400, "IAM.0011", "Request body is invalid: auth.id_token.id.")
        try:
            claims = verified(token, provider.keys, self._clock())
        except TokenError as error:
            raise ApiError(401, "IAM.0001", f"The request you have made requires authentication: {error}.") from error
        if claims.issuer != provider.issuer or not set(claims.audiences) & set(provider.client_ids):
            raise ApiError(401, "IAM.0001", "The issuer or the audience of the token is not the provider's.")
        mapping = next((m for m in provider.mappings if m.subject == claims.subject), None)
        if mapping is None:
            raise ApiError(403, "IAM.0003", f"No mapping rule for {claims.subject}.")
        user = mapped_user(provider.name, mapping.subject)
        told = {"name": mapping.subject, "OS-FEDERATION": {"identity_provider": {"id": provider.name}}}
        return self._issued(mapping.project_id, user, "mapped", told)

    def _for_token(self, request: SignedRequest, asked: Mapping[str, object]) -> Reply:
        # The header wins; the SDK sends the token in the body and nothing else.
        value = request.headers.get("x-auth-token") or asked.get("id")
        if not isinstance(value, str):
            raise ApiError(401, "IAM.0001", "The request you have made requires authentication.")
        seconds = _seconds(asked)
        return self._key(self._authenticator.by_token(value), seconds)

    def _for_agency(self, request: SignedRequest, asked: Mapping[str, object]) -> Reply:
        seconds = _seconds(asked)
        caller = self._authenticator.identify(request)
        agency = next((a for a in self._config().agencies if _is_meant(a, asked)), None)
        if agency is None:
            raise ApiError(404, "IAM.0004", f"Could not find agency: {asked.get('agency_name')}.")
        if caller.name not in agency.callers:
            raise ApiError(403, "IAM.0002", "You do not have the right to assume this agency.")
        return self._key(Identity(agency.urn, agency.project_id, frozenset()), seconds)

    def _key(self, caller: Identity, seconds: float) -> Reply:
        # A key of a token that is nobody's in particular has that token's rights alone.
        user = "" if caller.name.startswith("token:") else caller.name
        key, ends = self._issued_key(caller.project_id, seconds, user, digits=6)
        credential = {
            "access": key.access_key,
            "secret": key.secret_key,
            "securitytoken": key.security_token,
            "expires_at": ends,
        }
        return json_reply({"credential": credential}, 201)


def _seconds(asked: Mapping[str, object]) -> int:
    seconds = asked.get("duration_seconds", KEY_SECONDS.start)
    if not isinstance(seconds, int) or seconds not in KEY_SECONDS:
        raise invalid(f"duration_seconds must be {KEY_SECONDS.start} to {KEY_SECONDS.stop - 1}")
    return seconds


def _is_meant(agency: AgencyConfig, asked: Mapping[str, object]) -> bool:
    if asked.get("agency_name") != agency.name:
        return False
    return agency.domain_id == asked.get("domain_id") or agency.domain_name == asked.get("domain_name")


def at(document: Mapping[str, object], *names: str) -> Mapping[str, object]:
    """The object below these names; empty if there is none."""
    found: object = document
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
