"""From spec.identityRef to a source: which are one, where keys are asked for, and what is told when there is no token.

Not for: the exchange itself (`contract/test_cce_sources.py`), or renewal (`test_cce_renewal.py`).
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType

import httpx
import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import AgencyRef, FederationRef, IdentityMethod, IdentityRef, NodePoolRef, STSRef
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.endpoints import origin_of
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.services import PUBLIC_ONLY, ServiceBook, Services, public_services
from nodepool_membership.cce.sources.exchange import Via
from nodepool_membership.cce.sources.pod_identity import FILE_VARIABLE, URI_VARIABLE
from nodepool_membership.cce.sources.renewal import IDLE_SECONDS, Renewing
from nodepool_membership.kube.errors import GoneError, KubeError, KubeForbiddenError, RejectedError, UnansweredError
from nodepool_membership.runtime.cloud.error_mapping import TroubleError
from nodepool_membership.runtime.cloud.identities import MOST, SPARE_SECONDS, Identities, Own
from nodepool_membership.runtime.ops.options import POD_IDENTITY, OidcFile

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
CCE = "https://cce.cn-north-4.myhuaweicloud.com"
URN = "iam::acct:agency:adopter"
FEDERATION = IdentityRef("adopter", "client", IdentityMethod.FEDERATION, federation=FederationRef("cce"))
STS = IdentityRef("adopter", "client", IdentityMethod.STS, sts=STSRef("iam::acct:oidcProvider:cce", URN))
POOL = NodePoolRef("0" * 32, "11111111-2222-3333-4444-555555555555", "pool", region="cn-north-4")
OPERATOR = IdentityRef(operator=True)
NOBODY = Own()
FORBIDDEN = (
    '403 Forbidden: serviceaccounts "adopter" is forbidden: User "system:serviceaccount:ops:npmem" cannot create'
    ' resource "serviceaccounts/token" in API group "" in the namespace "team"'
)


class Process:
    """One that has just started; the cloud answers with keys."""

    def __init__(self, services: ServiceBook = PUBLIC_ONLY, allowed: tuple[str, ...] = (), own: Own = NOBODY) -> None:
        self.now = 0.0
        self.asked: list[str] = []
        self.bodies: list[bytes] = []
        self.tokens: list[tuple[str, str, str]] = []
        self.error: KubeError | None = None
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._answer))
        self.identities = Identities(
            Via(http, lambda: NOW, 5),
            self,
            services,
            frozenset(origin_of(endpoint) for endpoint in allowed),
            own,
            monotonic=lambda: self.now,
            random=lambda: 0.0,
        )

    def of(self, namespace: str, identity: IdentityRef, cce: str = CCE) -> Renewing:
        return self.identities.of(namespace, POOL, identity, cce)

    def on_top(self, agency: AgencyRef, identity: IdentityRef = FEDERATION, cce: str = CCE) -> Renewing:
        return self.identities.agency("team", self.of("team", identity, cce), agency, identity, cce)

    async def token(self, namespace: str, name: str, audience: str) -> str:
        self.tokens.append((namespace, name, audience))
        if self.error is not None:
            raise self.error
        return f"token-{len(self.tokens)}"

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.bodies.append(request.content)
        self.asked.append(f"{request.url.scheme}://{request.url.netloc.decode()}")
        keys = {"access": "ACCESS", "secret": "the-secret-key", "securitytoken": "the-security-token"}
        body = {"credential": {**keys, "expires_at": "2026-01-02T04:04:05.000000Z"}}
        return httpx.Response(201, json=body, headers={"X-Subject-Token": "the-subject-token"})

    async def refusal(self, error: KubeError) -> IdentityError:
        """What is told when the API server says this."""
        self.error = error
        with pytest.raises(IdentityError) as caught:
            await self.of("team", FEDERATION).current()
        return caught.value


async def test_memberships_that_ask_for_the_same_share_one_source() -> None:
    process = Process()
    one, other = (process.of("team", replace(FEDERATION)) for _ in range(2))
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
    process = Process()
    first, second = process.of("team", FEDERATION), process.of(namespace, identity)
    assert first.fingerprint != second.fingerprint
    assert (first.identity == second.identity) is is_same_user


def test_the_writes_of_an_agency_are_counted_together_however_long_its_keys_live() -> None:
    process = Process()
    longer = replace(STS, sts=replace(STS.sts, duration_seconds=7200))  # type: ignore[type-var]
    sources = [process.of(space, way) for space in ("team", "other") for way in (STS, longer)]
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
    await process.of("team", identity, cce).current()
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
        process.of("team", identity, cce)
    assert caught.value.trouble.reason is Reason.ENDPOINT_NOT_ALLOWED
    assert says in caught.value.trouble.message
    assert not process.tokens
    assert not process.asked


async def test_without_the_right_to_make_tokens_the_commands_that_grant_it_are_told() -> None:
    error = await Process().refusal(KubeForbiddenError(FORBIDDEN))
    assert error.reason is Reason.IDENTITY_REFUSED
    assert (
        "kubectl -n team create role npmem-token-adopter --verb=create --resource=serviceaccounts/token"
        " --resource-name=adopter && kubectl -n team create rolebinding npmem-token-adopter --role=npmem-token-adopter"
        " --serviceaccount=ops:npmem"
    ) in str(error)


async def test_an_operator_that_the_api_server_does_not_name_is_asked_for() -> None:
    assert "--serviceaccount=OPERATOR-NAMESPACE:" in str(
        await Process().refusal(KubeForbiddenError("403 Forbidden: no"))
    )


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
    first = process.of("team", FEDERATION)
    process.now = IDLE_SECONDS
    process.of("other", FEDERATION)
    assert process.of("team", FEDERATION) is not first


async def test_a_namespace_has_no_more_identities_than_are_left_for_others() -> None:
    """Each asks IAM, which counts requests by the address of the operator."""
    process = Process()

    def ask(number: int) -> None:
        process.of("team", replace(FEDERATION, audience=f"client-{number}"))

    for number in range(MOST):
        ask(number)
    with pytest.raises(TroubleError, match=f"'team' ask for more than {MOST} different") as caught:
        ask(MOST)
    assert caught.value.trouble.reason is Reason.IDENTITY_REFUSED
    with pytest.raises(TroubleError, match="let them share some"):
        process.identities.agency("team", AccessKey("AK", "the-secret-key"), BY_URN, None, CCE)
    # Those that are there go on, and so do others.
    ask(0)
    process.of("other", FEDERATION)
    # What was edited away makes room.
    process.now = SPARE_SECONDS
    for number in range(1, MOST):
        await process.of("team", replace(FEDERATION, audience=f"client-{number}")).current()
    ask(MOST)
    with pytest.raises(TroubleError):
        ask(0)


GRANT = ("team", POOL.project_id, POOL.cluster_id)
BY_FILE = OidcFile(Path("/nowhere/token"), "cce")


@pytest.mark.parametrize(
    ("own", "says"),
    [
        (NOBODY, "start it with --operator-identity,"),
        (Own(POD_IDENTITY), "--operator-identity-for=NAMESPACE/PROJECT/CLUSTER"),
        (Own(POD_IDENTITY, frozenset({("other", *GRANT[1:])})), "may not be used from this namespace"),
        (Own(BY_FILE, frozenset({("team", "f" * 32, GRANT[2])})), "may not be used from this namespace"),
        (Own(BY_FILE, frozenset({(*GRANT[:2], "other")})), "may not be used from this namespace"),
    ],
)
def test_the_operators_identity_is_used_only_where_the_administrator_says(own: Own, says: str) -> None:
    with pytest.raises(TroubleError) as caught:
        Process(own=own).of("team", OPERATOR)
    assert caught.value.trouble.reason is Reason.IDENTITY_REFUSED
    assert says in caught.value.trouble.message


async def test_the_operators_token_is_read_from_its_file_at_each_exchange(tmp_path: Path) -> None:
    file = tmp_path / "token"
    own = Own(OidcFile(file, "cce"), frozenset({GRANT}))
    process = Process(own=own)
    source = process.of("team", OPERATOR)
    with pytest.raises(IdentityError, match="the file of --operator-identity") as caught:
        await source.current()
    assert caught.value.reason is Reason.CREDENTIALS_INVALID
    process.now = 10.0
    for number, text in enumerate(("the-first-token", "the-second-token"), start=1):
        file.write_text(text)
        await source.renewed(await source.current())
        assert json.loads(process.bodies[-2])["auth"]["id_token"]["id"] == text, number
    assert not process.tokens


async def test_an_operators_token_may_go_to_sts(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-operators-token")
    own = Own(OidcFile(tmp_path / "token", "iam::a:oidcProvider:p", URN), frozenset({GRANT}))
    process = Process(own=own)
    source = process.of("team", OPERATOR)
    await source.current()
    assert json.loads(process.bodies[0])["provider_urn"] == "iam::a:oidcProvider:p"
    # Whoever assumes an agency, its writes are counted together.
    assert source.identity == process.of("team", STS).identity
    assert source.fingerprint != process.of("team", STS).fingerprint


async def test_pod_identity_asks_the_agent_and_no_proxy(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-pods-token")
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(500, json={"message": "no"})

    environ = {URI_VARIABLE: "http://169.254.1.1/v1/credentials", FILE_VARIABLE: str(tmp_path / "token")}
    agent = Via(httpx.AsyncClient(transport=httpx.MockTransport(answer)), lambda: NOW, 5)
    process = Process(own=Own(POD_IDENTITY, frozenset({GRANT}), agent, environ))
    with pytest.raises(IdentityError, match=r"the pod identity agent: 500 no; it is asked again"):
        await process.of("team", OPERATOR).current()
    assert [str(request.url) for request in asked] == [environ[URI_VARIABLE]]
    assert not process.asked


BY_URN = AgencyRef(agency_urn=URN)
BY_NAME = AgencyRef(agency_name="adopter", domain_name="other")


@pytest.mark.parametrize(
    ("agency", "identity", "asked"),
    [
        (BY_URN, FEDERATION, "https://sts.cn-north-4.myhuaweicloud.com"),
        (BY_NAME, FEDERATION, "https://iam.cn-north-4.myhuaweicloud.com"),
        (BY_NAME, STS, "https://iam.cn-north-4.myhuaweicloud.com"),
        (BY_URN, replace(STS, endpoint="https://sts.tr-west-1.myhuaweicloud.com"), None),
    ],
)
async def test_an_agency_is_assumed_with_the_keys_of_the_identity(
    agency: AgencyRef, identity: IdentityRef, asked: str | None
) -> None:
    process = Process()
    await process.on_top(agency, identity).current()
    assert process.asked[-1] == (asked or identity.endpoint)


def test_an_agency_is_one_source_for_all_who_assume_it_with_the_same() -> None:
    process = Process()
    one, other = process.on_top(BY_URN), process.on_top(BY_URN)
    assert one is other
    assert one.identity == process.on_top(BY_URN, STS).identity != process.on_top(BY_NAME).identity
    assert one.fingerprint != process.on_top(BY_URN, STS).fingerprint
    secret = process.identities.agency("team", AccessKey("AK", "the-secret-key"), BY_URN, None, CCE)
    changed = process.identities.agency("team", AccessKey("AK", "the-secret-key-2"), BY_URN, None, CCE)
    assert len({source.fingerprint for source in (one, secret, changed)}) == 3
