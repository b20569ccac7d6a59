"""From spec.identityRef to a source: which are one, where keys are asked for, and what is told when there is no token.

Not for: the exchange itself (`contract/test_cce_sources.py`), or renewal (`test_cce_renewal.py`).
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from types import MappingProxyType

import httpx
import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import FederationRef, IdentityMethod, IdentityRef, STSRef
from nodepool_membership.cce.endpoints import origin_of
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.services import PUBLIC_ONLY, ServiceBook, Services, public_services
from nodepool_membership.cce.sources.renewal import IDLE_SECONDS
from nodepool_membership.kube.errors import ForbiddenError, GoneError, KubeError, RejectedError, UnansweredError
from nodepool_membership.runtime.identities import Identities
from nodepool_membership.runtime.troubles import TroubleError

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CCE = "https://cce.cn-north-4.myhuaweicloud.com"
URN = "iam::acct:agency:adopter"
FEDERATION = IdentityRef("adopter", "client", IdentityMethod.FEDERATION, federation=FederationRef("cce"))
STS = IdentityRef("adopter", "client", IdentityMethod.STS, sts=STSRef("iam::acct:oidcProvider:cce", URN))
FORBIDDEN = (
    '403 Forbidden: serviceaccounts "adopter" is forbidden: User "system:serviceaccount:ops:npmem" cannot create'
    ' resource "serviceaccounts/token" in API group "" in the namespace "team"'
)


class Process:
    """One that has just started; the cloud answers with keys."""

    def __init__(self, services: ServiceBook = PUBLIC_ONLY, allowed: tuple[str, ...] = ()) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.tokens: list[tuple[str, str, str]] = []
        self.error: KubeError | None = None
        self.identities = Identities(
            httpx.AsyncClient(transport=httpx.MockTransport(self._answer)),
            self,
            services,
            frozenset(origin_of(endpoint) for endpoint in allowed),
            now=lambda: NOW,
            monotonic=lambda: self.now,
            random=lambda: 0.0,
            timeout_seconds=5,
        )

    async def token(self, namespace: str, name: str, audience: str) -> str:
        self.tokens.append((namespace, name, audience))
        if self.error is not None:
            raise self.error
        return f"token-{len(self.tokens)}"

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(f"{request.url.scheme}://{request.url.netloc.decode()}")
        keys = {"access": "ACCESS", "secret": "the-secret-key", "securitytoken": "the-security-token"}
        body = {"credential": {**keys, "expires_at": "2026-01-02T04:04:05.000000Z"}}
        return httpx.Response(201, json=body, headers={"X-Subject-Token": "the-subject-token"})

    async def refusal(self, error: KubeError) -> IdentityError:
        """What is told when the API server says this."""
        self.error = error
        with pytest.raises(IdentityError) as caught:
            await self.identities.of("team", FEDERATION, CCE).current()
        return caught.value


async def test_memberships_that_ask_for_the_same_share_one_source() -> None:
    process = Process()
    one, other = (process.identities.of("team", replace(FEDERATION), CCE) for _ in range(2))
    assert one is other
    await one.current()
    await other.current()
    assert process.tokens == [("team", "adopter", "client")]


OTHERS: Mapping[str, tuple[str, IdentityRef, bool]] = {
    "another namespace": ("other", FEDERATION, False),
    "another service account": ("team", replace(FEDERATION, service_account_name="b"), False),
    "another provider": ("team", replace(FEDERATION, federation=FederationRef("b")), False),
    "another audience": ("team", replace(FEDERATION, audience="b"), True),
    "another region's IAM": ("team", replace(FEDERATION, endpoint="https://iam.eu-west-0.myhuaweicloud.com"), False),
}


@pytest.mark.parametrize("name", OTHERS)
def test_who_asks_for_something_else_has_listings_and_lockout_of_its_own(name: str) -> None:
    """And a write budget, if the cloud takes it for somebody else."""
    namespace, identity, is_same_user = OTHERS[name]
    identities = Process().identities
    first, second = identities.of("team", FEDERATION, CCE), identities.of(namespace, identity, CCE)
    assert first.fingerprint != second.fingerprint
    assert (first.identity == second.identity) is is_same_user


def test_the_writes_of_an_agency_are_counted_together_however_long_its_keys_live() -> None:
    identities = Process().identities
    longer = replace(STS, sts=replace(STS.sts, duration_seconds=7200))  # type: ignore[type-var]
    sources = [identities.of(space, way, CCE) for space in ("team", "other") for way in (STS, longer)]
    assert len({source.identity for source in sources}) == 1
    assert len({source.fingerprint for source in sources}) == 4


BOOK = ServiceBook(
    MappingProxyType({origin_of("http://cce.local"): Services("http://cce.local", iam="http://iam.local")})
)


@pytest.mark.parametrize(
    ("cce", "identity", "allowed", "asked"),
    [
        (CCE, FEDERATION, (), "https://iam.cn-north-4.myhuaweicloud.com"),
        (CCE, STS, (), "https://sts.cn-north-4.myhuaweicloud.com"),
        ("http://cce.local", FEDERATION, (), "http://iam.local"),
        (CCE, replace(FEDERATION, endpoint="http://iam.local/"), (), "http://iam.local"),
        (CCE, replace(FEDERATION, endpoint="http://iam:8900"), ("http://iam:8900",), "http://iam:8900"),
        ("https://cce.eu-west-0.myhuaweicloud.com", replace(STS, endpoint=public_services("tr-west-1").sts), (), None),
    ],
)
async def test_keys_are_asked_for_beside_cce_or_where_the_spec_says(
    cce: str, identity: IdentityRef, allowed: tuple[str, ...], asked: str | None
) -> None:
    process = Process(BOOK, allowed)
    await process.identities.of("team", identity, cce).current()
    assert set(process.asked) == {asked or public_services("tr-west-1").sts}


@pytest.mark.parametrize(
    ("cce", "identity", "says"),
    [
        (CCE, replace(FEDERATION, endpoint="https://evil.example"), "--allow-endpoint=https://evil.example:443"),
        (CCE, replace(FEDERATION, endpoint="http://iam.cn-north-4.myhuaweicloud.com"), "is not allowed"),
        (CCE, replace(FEDERATION, endpoint="https://iam.example/v3"), "write scheme and host only"),
        ("https://cce.eu-west-0.myhuaweicloud.com", STS, "no address of STS is known"),
        ("http://cce.local:1", FEDERATION, "no address of IAM is known beside the CCE endpoint http://cce.local:1"),
    ],
)
def test_a_token_is_sent_to_no_other_address(cce: str, identity: IdentityRef, says: str) -> None:
    process = Process(BOOK)
    with pytest.raises(TroubleError, match=r"spec\.identityRef\.endpoint") as caught:
        process.identities.of("team", identity, cce)
    assert caught.value.trouble.reason is Reason.ENDPOINT_NOT_ALLOWED
    assert says in caught.value.trouble.message
    assert not process.tokens
    assert not process.asked


async def test_without_the_right_to_make_tokens_the_commands_that_grant_it_are_told() -> None:
    error = await Process().refusal(ForbiddenError(FORBIDDEN))
    assert error.reason is Reason.IDENTITY_REFUSED
    assert (
        "kubectl -n team create role npmem-token-adopter --verb=create --resource=serviceaccounts/token"
        " --resource-name=adopter && kubectl -n team create rolebinding npmem-token-adopter --role=npmem-token-adopter"
        " --serviceaccount=ops:npmem"
    ) in str(error)


async def test_an_operator_that_the_api_server_does_not_name_is_asked_for() -> None:
    assert "--serviceaccount=OPERATOR-NAMESPACE:" in str(await Process().refusal(ForbiddenError("403 Forbidden: no")))


@pytest.mark.parametrize(
    ("error", "reason", "says"),
    [
        (GoneError("404"), Reason.IDENTITY_REFUSED, "service account 'adopter' does not exist in namespace 'team'"),
        (RejectedError("422: bad"), Reason.IDENTITY_REFUSED, "audience 'client': 422: bad; correct spec.identityRef"),
        (UnansweredError("time-out"), Reason.CLOUD_UNREACHABLE, "time-out; it is asked again"),
    ],
)
async def test_why_there_is_no_token_is_told(error: KubeError, reason: Reason, says: str) -> None:
    process = Process()
    told = await process.refusal(error)
    assert told.reason is reason
    assert says in str(told)
    assert process.asked == []


async def test_a_source_that_nobody_used_for_an_hour_is_forgotten() -> None:
    process = Process()
    first = process.identities.of("team", FEDERATION, CCE)
    process.now = IDLE_SECONDS
    process.identities.of("other", FEDERATION, CCE)
    assert process.identities.of("team", FEDERATION, CCE) is not first
