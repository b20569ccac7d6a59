"""The simulator's IAM, STS and agent: the official SDK and the operator's sources get keys there, and nobody else.

Not for: the sources' requests one by one (`test_cce_sources`).
"""

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import pytest
from huaweicloudsdkcore.auth.credentials import BasicCredentials
from huaweicloudsdkcore.auth.internal import Credential, FederalAccessor, OidcStsAccessor, PodIdentityAccessor
from huaweicloudsdkcore.exceptions.exception_handler import DefaultExceptionHandler
from huaweicloudsdkcore.http.http_client import HttpClient
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.http.http_handler import HttpHandler
from huaweicloudsdksts.v1 import AssumeAgencyReqBody, AssumeAgencyRequest, StsClient

from cce_simulator import Behaviour
from cce_simulator.config import (
    CLUSTER_ID,
    PROJECT_ID,
    AccessKeyConfig,
    AgencyConfig,
    AgentConfig,
    IdentityProviderConfig,
    MappingConfig,
    TrustConfig,
)
from jwts import ISSUER, EcKey, RsaKey, token
from nodepool_membership.api.spec import AgencyRef
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Source
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.agency import Agency
from nodepool_membership.cce.sources.exchange import TimedGrant, Via
from nodepool_membership.cce.sources.federation import Federation
from nodepool_membership.cce.sources.pod_identity import FILE_VARIABLE, URI_VARIABLE, PodIdentity
from nodepool_membership.cce.sources.sts import AssumeWithOidc, Trust
from simulator_calls import Cloud, config

SUBJECT: Final = "system:serviceaccount:team:adopter"
PROVIDER_URN: Final = "iam::acct:oidcProvider:my-cluster"
KEYS: Final[dict[str, RsaKey | EcKey]] = {"RSA": RsaKey(), "EC": EcKey()}
SECRET: Final = AccessKeyConfig(access_key="A-KEY-OF-A-SECRET-00", secret_key="the-secret-key-of-it")
OTHER_PROJECT: Final = "f" * 32


class World:
    """A cloud that trusts a cluster; `key` signs its tokens."""

    def __init__(self, cloud: Cloud, http: httpx.AsyncClient, key: RsaKey | EcKey, file: Path) -> None:
        self.cloud = cloud
        self.key = key
        self.file = file
        self.http = http
        self.via = Via(http, self.now, 5)
        self.subject, self.audience, self.issuer, self.kid = SUBJECT, "client", ISSUER, "the-key"
        self.lives = 600.0
        self.federated_by = "my-cluster"
        self.trust = Trust(PROVIDER_URN, agency("adopter").urn, 3600)

    @property
    def url(self) -> str:
        return self.cloud.simulator.url

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.cloud.clock.now, UTC)

    async def token(self) -> str:
        expires = self.cloud.clock.now + self.lives
        return token(self.key, self.subject, self.audience, expires, issuer=self.issuer, kid=self.kid)

    async def federation(self) -> TimedGrant:
        way = Federation(self.via, self.url, self.federated_by, self.token)
        return await way.fetch()

    async def sts(self) -> TimedGrant:
        return await AssumeWithOidc(self.via, self.url, self.trust, self.token).fetch()

    async def agent(self) -> TimedGrant:
        environ = {URI_VARIABLE: f"{self.url}/v1/credentials", FILE_VARIABLE: str(self.file)}
        return await PodIdentity(self.via, environ).fetch()

    async def agency(self, wanted: AgencyRef, base: Source) -> TimedGrant:
        return await Agency(self.via, self.url, wanted, base).fetch()

    async def phase(self, key: AccessKey, project_id: str = PROJECT_ID) -> str:
        """A call of CCE with these keys."""
        client = CloudClient(self.http, self.url, project_id, key, now=self.now, timeout_seconds=5)
        return (await client.get_cluster(CLUSTER_ID)).phase

    async def refusal(self, way: Callable[[], object]) -> str:
        with pytest.raises(IdentityError) as caught:
            await way()  # type: ignore[misc]
        return str(caught.value)


def agency(name: str, **fields: object) -> AgencyConfig:
    return AgencyConfig.model_validate({"name": name, **fields})


@pytest.fixture(params=KEYS)
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    key = KEYS[request.param]
    (tmp_path / "token").write_text("the-token-of-the-pod\n")
    provider = IdentityProviderConfig(
        name="my-cluster",
        urn=PROVIDER_URN,
        issuer=ISSUER,
        client_ids=("client",),
        keys=(key.public(),),
        mappings=(MappingConfig(subject=SUBJECT),),
    )
    trust = TrustConfig(provider_urn=PROVIDER_URN, subject=SUBJECT, audience="client")
    agencies = (
        agency("adopter", trusts=(trust,)),
        agency("chained", callers=(SECRET.access_key, agency("adopter").urn, f"my-cluster/{SUBJECT}")),
        agency("elsewhere", callers=(SECRET.access_key,), project_id=OTHER_PROJECT, external_id="shared-word"),
    )
    more = {"identity_providers": (provider,), "agencies": agencies, "access_keys": (SECRET,)}
    agent = AgentConfig(token_file=str(tmp_path / "token"), agency="adopter")
    async with (
        Cloud.running(config(**more, agent=agent)) as cloud,
        httpx.AsyncClient(trust_env=False) as http,
    ):
        yield World(cloud, http, key, tmp_path / "token")


async def test_every_way_of_the_operator_gives_keys_that_cce_takes(world: World) -> None:
    for way in (world.federation, world.sts, world.agent):
        lease = await way()
        assert lease.seconds == pytest.approx(21600 if way == world.federation else 3600, abs=1)
        assert await world.phase(lease.grant.key) == "Available"


async def test_the_official_sdk_gets_keys_by_every_way(world: World, tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text(await world.token())
    http = HttpClient(
        HttpConfig.get_default_config(), HttpHandler(), DefaultExceptionHandler(), logging.getLogger("sdk")
    )

    def credentials() -> list[Credential]:
        federal = FederalAccessor().get_credential(
            iam_endpoint=world.url, http_client=http, idp_id="my-cluster", id_token_file=str(tmp_path / "jwt")
        )
        oidc = OidcStsAccessor(PROVIDER_URN, agency("adopter").urn, (tmp_path / "jwt").read_text(), "session")
        agent = PodIdentityAccessor(f"{world.url}/v1/credentials", str(world.file))
        return [federal, oidc.get_credential(sts_endpoint=world.url, http_client=http), agent.get_credential()]

    for found in await asyncio.to_thread(credentials):
        assert found.expire_at > world.cloud.clock.now
        assert await world.phase(AccessKey(found.access, found.secret, found.security_token)) == "Available"


async def test_the_official_sdk_assumes_an_agency(world: World) -> None:
    # The SDK signs with the machine's clock.
    world.cloud.clock.now = datetime.now(UTC).timestamp()
    credentials = BasicCredentials(SECRET.access_key, SECRET.secret_key, PROJECT_ID)
    client = StsClient.new_builder().with_credentials(credentials).with_endpoints([world.url]).build()
    body = AssumeAgencyReqBody(agency_urn=agency("chained").urn, agency_session_name="session", duration_seconds=900)
    found = (await asyncio.to_thread(client.assume_agency, AssumeAgencyRequest(body=body))).credentials
    key = AccessKey(found.access_key_id, found.secret_access_key, found.security_token)
    assert await world.phase(key) == "Available"


@pytest.mark.parametrize("by_urn", [True, False], ids=["STS", "IAM"])
async def test_an_agency_on_top_of_each_way(world: World, by_urn: bool) -> None:
    chained = agency("chained")
    wanted = AgencyRef(agency_urn=chained.urn) if by_urn else AgencyRef(agency_name="chained", domain_name="acct")
    bases = [(await way()).grant.key for way in (world.federation, world.sts, world.agent)]
    for base in (AccessKey(SECRET.access_key, SECRET.secret_key), *bases):
        lease = await world.agency(wanted, base)
        assert await world.phase(lease.grant.key) == "Available"


async def test_an_agency_of_another_account_has_that_ones_project(world: World) -> None:
    base = AccessKey(SECRET.access_key, SECRET.secret_key)
    urn = agency("elsewhere").urn
    assert "STS5.1001" in await world.refusal(lambda: world.agency(AgencyRef(agency_urn=urn), base))
    lease = await world.agency(AgencyRef(agency_urn=urn, external_id="shared-word"), base)
    with pytest.raises(Exception, match="403"):
        await world.phase(lease.grant.key)
    with pytest.raises(Exception, match="404"):
        await world.phase(lease.grant.key, OTHER_PROJECT)


async def test_who_may_not_assume_an_agency_is_told(world: World) -> None:
    base = (await world.sts()).grant.key
    elsewhere = AgencyRef(agency_name="elsewhere", domain_name="acct")
    assert "403 IAM.0002" in await world.refusal(lambda: world.agency(elsewhere, base))
    assert "404 IAM.0004" in await world.refusal(
        lambda: world.agency(AgencyRef(agency_name="chained", domain_id="other"), base)
    )


@pytest.mark.parametrize(
    ("change", "federation", "sts"),
    [
        ({"subject": "system:serviceaccount:other:adopter"}, "403 IAM.0003", "403 STS5.1001"),
        ({"audience": "other"}, "401 IAM.0001", "400 STS5.2001"),
        ({"issuer": "https://other"}, "401 IAM.0001", "400 STS5.2000"),
        ({"lives": -1.0}, "it has expired", "it has expired"),
        ({"kid": "other"}, "no key of the provider signed it", "no key of the provider signed it"),
        ({"key": RsaKey()}, "no key of the provider signed it", "no key of the provider signed it"),
        ({"key": EcKey()}, "no key of the provider signed it", "no key of the provider signed it"),
        (
            {"federated_by": "nobody", "trust": Trust("iam::acct:oidcProvider:nobody", agency("adopter").urn, 3600)},
            "404 IAM.0004",
            "404 STS5.1003",
        ),
    ],
)
async def test_a_token_that_is_not_trusted_gives_no_keys(
    world: World, change: dict[str, object], federation: str, sts: str
) -> None:
    for name, value in change.items():
        setattr(world, name, value)
    assert federation in await world.refusal(world.federation)
    assert sts in await world.refusal(world.sts)


@pytest.mark.parametrize("text", ["", "a.b", "a.b.c", "e30.e30.e30"])
async def test_what_is_no_token_is_refused(world: World, text: str) -> None:
    async def token() -> str:
        return text

    world.token = token  # type: ignore[method-assign]
    assert "401 IAM.0001" in await world.refusal(world.federation)
    assert "400 STS5.2000" in await world.refusal(world.sts)


async def test_the_agent_wants_what_is_in_the_file_now(world: World) -> None:
    headers = {"Authorization": "the-token-of-the-pod"}
    world.file.write_text("another-token")
    answer = await world.http.post(f"{world.url}/v1/credentials", json={}, headers=headers)
    assert answer.status_code == 401
    world.file.unlink()
    answer = await world.http.post(f"{world.url}/v1/credentials", json={}, headers={"Authorization": ""})
    assert answer.status_code == 401


@pytest.mark.parametrize(("digits", "form"), [(0, r"\d\dZ"), (3, r"\d\d\.\d{3}Z"), (6, r"\d\d\.\d{6}Z")])
async def test_switches_for_how_long_keys_live_and_how_it_is_written(world: World, digits: int, form: str) -> None:
    behaviour = Behaviour.from_json({"expiryDigits": digits, "sessionSeconds": 20})
    world.cloud.simulator.configure({"behaviour": behaviour.to_json()})
    for way in (world.federation, world.sts, world.agent):
        assert (await way()).seconds == pytest.approx(20, abs=1)
    answer = await world.http.post(
        f"{world.url}/v1/credentials", json={}, headers={"Authorization": "the-token-of-the-pod"}
    )
    assert re.fullmatch(form, answer.json()["credentials"]["expiration"][17:])
