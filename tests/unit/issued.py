"""Every secret that a way to keys handles, and the ways themselves, run against services that give or refuse.

Not for: what is told of them (`test_secrets_stay`).
"""

import json
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import httpx

from nodepool_membership.api.spec import AgencyRef
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.agency import Agency
from nodepool_membership.cce.sources.exchange import TimedGrant, Via
from nodepool_membership.cce.sources.federation import Federation
from nodepool_membership.cce.sources.pod_identity import FILE_VARIABLE, URI_VARIABLE, PodIdentity
from nodepool_membership.cce.sources.sts import AssumeWithOidc, Trust
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.service_accounts import ServiceAccounts

_NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_JWT: Final = "eyJhbGciOiJFUzI1NiIsImtpZCI6IngifQ.eyJzdWIiOiJzeXN0ZW06" + "c2VydmljZWFjY291bnQ6bnM6YWRvcHRlciJ9" * 9
ISSUED: Final[Mapping[str, str]] = {
    "service account's token": f"{_JWT}.MEUCIQDv" + "Zt4Qw9Lm" * 9,
    "signature of a service account's token": "MEUCIQDv" + "Zt4Qw9Lm" * 9,
    "token in a file": f"{_JWT}.AQpodT0ken" + "yB3nUk7R" * 9,
    "signature of a token in a file": "AQpodT0ken" + "yB3nUk7R" * 9,
    "IAM token of an exchange": "MIIETgYJKoZIhvcN" + "hW2cPf5X" * 60,
    "temporary access key": "HSTAG7XKZ3M5T9WBQLRS",
    "temporary secret key": "vT8sKq2ZrY4nWm6XcPbLhGdJfUeRtSaQo1iNuMyE",
    "temporary security token": "hQhjbi1ub3J0aC00" + "dE6vHs0J" * 50,
    "agency's access key": "HSTAPRV4ND8C6FJYUZ2M",
    "agency's secret key": "mB5xJw9RkE3hVq7TzNcLpYgUdSfAaKiOeHtWrXnZ",
    "agency's security token": "gAhjbi1zb3V0aC0x" + "pM1bVz8K" * 50,
}
_TRUST: Final = Trust("iam::acct:oidcProvider:cluster", "iam::acct:agency:adopter", 3600)
_PLACES: Final = "https://service.example"


class _Api(KubeApi):
    def __init__(self) -> None:
        """It knows one answer."""

    async def request(self, *_: object, **__: object) -> bytes:
        return json.dumps({"status": {"token": ISSUED["service account's token"]}}).encode()


def _keys(whose: str) -> dict[str, object]:
    names = {"access": "access key", "secret": "secret key", "securitytoken": "security token"}
    keys = {name: ISSUED[f"{whose} {what}"] for name, what in names.items()}
    return {"credential": {**keys, "expires_at": "2026-01-02T04:04:05Z"}}


def _gives(whose: str) -> Callable[[httpx.Request], httpx.Response]:
    headers = {"X-Subject-Token": ISSUED["IAM token of an exchange"]}
    return lambda _: httpx.Response(201, json=_keys(whose), headers=headers)


def _refuses(request: httpx.Request) -> httpx.Response:
    """Repeats all that it was sent."""
    sent = f"as it was said: {request.content.decode()} {dict(request.headers)}"
    return httpx.Response(403, json={"error_code": "IAM.0003", "error_msg": sent})


def _refuses_keys(request: httpx.Request) -> httpx.Response:
    """Gives an IAM token, and refuses what is asked for with it."""
    return _gives("temporary")(request) if "id-token" in request.url.path else _refuses(request)


def _via(answer: Callable[[httpx.Request], httpx.Response]) -> Via:
    return Via(httpx.AsyncClient(transport=httpx.MockTransport(answer)), lambda: _NOW, 5)


async def _token() -> str:
    return await ServiceAccounts(_Api()).token("ns", "adopter", "client")


def _with_file(via: Via) -> Callable[[], Awaitable[TimedGrant]]:
    async def fetch() -> TimedGrant:
        with tempfile.NamedTemporaryFile("w") as file:
            file.write(ISSUED["token in a file"])
            file.flush()
            environ = {URI_VARIABLE: f"{_PLACES}/v1/credentials", FILE_VARIABLE: file.name}
            return await PodIdentity(via, environ).fetch()

    return fetch


def _agency(via: Via, agency: AgencyRef) -> Callable[[], Awaitable[TimedGrant]]:
    names = ("access key", "secret key", "security token")
    return Agency(via, _PLACES, agency, AccessKey(*(ISSUED[f"temporary {name}"] for name in names))).fetch


_BY_URN: Final = AgencyRef(agency_urn="iam::acct:agency:adopter")
_BY_NAME: Final = AgencyRef(agency_name="adopter", domain_name="other")


async def exchange() -> None:
    """Get keys by each way."""
    gives, agencys = _via(_gives("temporary")), _via(_gives("agency's"))
    for fetch in (
        Federation(gives, _PLACES, "cluster", _token).fetch,
        AssumeWithOidc(gives, _PLACES, _TRUST, _token).fetch,
        _with_file(gives),
        _agency(agencys, _BY_URN),
        _agency(agencys, _BY_NAME),
    ):
        await fetch()


async def refusals() -> list[IdentityError]:
    """Be refused by each service that is asked."""
    refuses = _via(_refuses)
    found = []
    for fetch in (
        Federation(refuses, _PLACES, "cluster", _token).fetch,
        Federation(_via(_refuses_keys), _PLACES, "cluster", _token).fetch,
        AssumeWithOidc(refuses, _PLACES, _TRUST, _token).fetch,
        _with_file(refuses),
        _agency(refuses, _BY_URN),
        _agency(refuses, _BY_NAME),
    ):
        try:
            await fetch()
        except IdentityError as error:
            found.append(error)
    return found
