"""The two IAM routes a client of CCE may need: a token for a password, a temporary key for a token.

Not for: agencies, federation, catalogues. `assume_role` is answered as `token` is.
"""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cce_simulator.auth import Authenticator, SignedRequest
from cce_simulator.config import SimulatorConfig
from cce_simulator.errors import invalid
from cce_simulator.routes import Reply, json_object, json_reply

TOKEN_SECONDS = 24 * 3600
KEY_SECONDS = range(900, 86_401)


class Iam:
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

    def handle(self, route: str, request: SignedRequest) -> Reply:
        """Answer a call of a route without an action. Raises ApiError."""
        identity = _at(json_object(request.body), "auth", "identity")
        methods = identity.get("methods")
        if route == "createToken":
            return self._token(identity if methods == ["password"] else {})
        if methods not in (["token"], ["assume_role"]):
            raise invalid("auth.identity.methods must be token or assume_role")
        return self._security_token(request, identity)

    def _token(self, identity: Mapping[str, object]) -> Reply:
        given = _at(identity, "password", "user")
        domain = _at(given, "domain").get("name")
        for user in self._config().users:
            if (given.get("name"), given.get("password"), domain) == (user.name, user.password, user.domain):
                token = self._authenticator.issue_token(user.project_id, TOKEN_SECONDS)
                document = {
                    "token": {
                        "methods": ["password"],
                        "issued_at": iso_time(self._clock()),
                        "expires_at": iso_time(self._clock() + TOKEN_SECONDS),
                        "project": {"id": user.project_id},
                        "user": {"name": user.name, "domain": {"name": user.domain}},
                    }
                }
                return Reply(201, json.dumps(document).encode(), headers={"X-Subject-Token": token.value})
        error = {"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}
        return json_reply({"error": error}, 401)

    def _security_token(self, request: SignedRequest, identity: Mapping[str, object]) -> Reply:
        caller = self._authenticator.identify(request)
        method = _at(identity, "token") or _at(identity, "assume_role")
        seconds = method.get("duration_seconds", KEY_SECONDS.start)
        if not isinstance(seconds, int) or seconds not in KEY_SECONDS:
            raise invalid(f"duration_seconds must be {KEY_SECONDS.start} to {KEY_SECONDS.stop - 1}")
        key = self._authenticator.issue_key(caller.project_id, seconds)
        credential = {
            "access": key.access_key,
            "secret": key.secret_key,
            "securitytoken": key.security_token,
            "expires_at": iso_time(self._clock() + seconds),
        }
        return json_reply({"credential": credential}, 201)


def iso_time(seconds: float) -> str:
    """IAM's form: `2026-01-03T03:04:05.527363Z`."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S.%f}Z"


def _at(document: Mapping[str, object], *names: str) -> Mapping[str, object]:
    """The object below these names; empty if there is none."""
    found: object = document
    for name in names:
        found = found.get(name) if isinstance(found, Mapping) else None
    return found if isinstance(found, Mapping) else {}
