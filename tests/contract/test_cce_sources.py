"""The ways to keys on the wire, held against the official SDK's requests and its reading of answers; and their errors.

Not for: when keys are renewed (`unit/cce/test_cce_renewal.py`).
"""

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import httpx
import pytest
from huaweicloudsdkcore.auth.internal import FederalAccessor, IamHelper
from huaweicloudsdkcore.http.http_config import HttpConfig
from huaweicloudsdkcore.sdk_request import SdkRequest

from nodepool_membership import redaction
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import AgencyRef
from nodepool_membership.cce.credentials import AccessKey, Token
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.sources.agency import Agency
from nodepool_membership.cce.sources.exchange import TimedGrant, Via
from nodepool_membership.cce.sources.federation import SECONDS, Federation
from nodepool_membership.cce.sources.pod_identity import FILE_VARIABLE, URI_VARIABLE, PodIdentity
from nodepool_membership.cce.sources.sts import AssumeWithOidc, Trust
from nodepool_membership.cce.sources.wire import parse_time, read_temporary_key

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
IAM, STS = "https://iam.example.com", "https://sts.cn-north-4.myhuaweicloud.com"
JWT = "eyJhbGciOiJSUzI1NiJ9.the-service-accounts-token.signature"
KEYS = {"access": "HSTAEXAMPLE", "secret": "the-temporary-secret", "securitytoken": "the-security-token"}
URN = "iam::d78cbac186b744899480f25bd022f468:agency:adopter"
PROVIDER = "iam::d78cbac186b744899480f25bd022f468:oidcProvider:cce"
SUBJECT = {"X-Subject-Token": "the-iam-token-of-one-exchange"}
TRUST = Trust(PROVIDER, URN, 3600)


def an_answer(expires: str = "2026-01-02T04:04:05.123456Z", date: datetime | None = NOW) -> httpx.Response:
    headers = {"X-Subject-Token": "the-iam-token-of-one-exchange"}
    if date is not None:
        headers["Date"] = format_datetime(date, usegmt=True)
    return httpx.Response(201, json={"credential": {**KEYS, "expires_at": expires}}, headers=headers)


class Service:
    """Answers, and keeps what was asked."""

    def __init__(self, *answers: httpx.Response) -> None:
        self.requests: list[httpx.Request] = []
        self._answers = list(answers) or [an_answer()]
        http = httpx.AsyncClient(transport=httpx.MockTransport(self._handle), trust_env=False)
        self.observed: list[tuple[str, str]] = []
        self.via = Via(http, lambda: NOW, 5, lambda route, outcome, _: self.observed.append((route, outcome)))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]

    async def _token(self) -> str:
        return JWT

    async def federation(self) -> TimedGrant:
        way = Federation(self.via, IAM, "cce", self._token)
        return await way.fetch()

    async def sts(self) -> TimedGrant:
        return await AssumeWithOidc(self.via, STS, TRUST, self._token).fetch()

    async def agency(self, agency: AgencyRef, key: AccessKey | Token, url: str = IAM) -> TimedGrant:
        return await Agency(self.via, url, agency, key).fetch()


def same(ours: httpx.Request, theirs: SdkRequest) -> None:
    assert (ours.method, str(ours.url)) == (theirs.method, f"{theirs.schema}://{theirs.host}{theirs.resource_path}")
    assert json.loads(ours.content) == json.loads(theirs.body)
    for name, value in theirs.header_params.items():
        if name != "User-Agent":
            assert ours.headers[name] == value
    assert not {"authorization", "x-auth-token", "cookie"} & set(ours.headers)


async def test_federation_asks_as_the_sdk_does() -> None:
    service = Service()
    lease = await service.federation()
    assert (lease.grant.key.access_key, lease.seconds) == ("HSTAEXAMPLE", 3600.123456)
    config = HttpConfig.get_default_config()
    first = IamHelper.get_create_unscoped_token_by_id_token_request(config, IAM, "cce", JWT)
    token = "the-iam-token-of-one-exchange"
    second = IamHelper.get_create_temporary_access_key_by_token_request(config, IAM, token, SECONDS)
    same(service.requests[0], first)
    same(service.requests[1], second)
    assert len(service.requests) == 2
    assert SECONDS == FederalAccessor._DEFAULT_DURATION_SECONDS


async def test_sts_asks_as_the_sdk_does() -> None:
    service = Service()
    await service.sts()
    payload = {
        "provider_urn": PROVIDER,
        "agency_urn": URN,
        "agency_session_name": "nodepool-membership",
        "id_token": JWT,
        "duration_seconds": 3600,
    }
    (request,) = service.requests
    same(request, IamHelper.get_assume_agency_with_oidc_request(HttpConfig.get_default_config(), STS, payload))


async def test_an_agency_of_sts_is_signed_as_the_sdk_signs() -> None:
    service = Service()
    await service.agency(AgencyRef(agency_urn=URN), AccessKey("AKEXAMPLE", "SKEXAMPLE", "TOK"), STS)
    (request,) = service.requests
    assert str(request.url) == f"{STS}/v5/agencies/assume"
    assert json.loads(request.content)["duration_seconds"] == 3600
    assert request.headers["Authorization"] == (
        "SDK-HMAC-SHA256 Access=AKEXAMPLE, SignedHeaders=content-type;host;x-sdk-date;x-security-token,"
        " Signature=0ae5d0f92b3d6b784bd31cb811708124d25b77f61b103d7eedb6bdf7a2efa218"
    )


@pytest.mark.parametrize(
    ("domain", "sent"),
    [
        (AgencyRef(agency_name="a", domain_name="other"), "domain_name"),
        (AgencyRef(agency_name="a", domain_id="o"), "domain_id"),
    ],
)
async def test_an_agency_of_the_old_iam_names_the_account_that_owns_it(domain: AgencyRef, sent: str) -> None:
    service = Service()
    await service.agency(domain, AccessKey("AKEXAMPLE", "SKEXAMPLE"))
    (request,) = service.requests
    identity = json.loads(request.content)["auth"]["identity"]
    assert identity["methods"] == ["assume_role"]
    assert set(identity["assume_role"]) == {"agency_name", sent, "duration_seconds"}
    assert "X-Security-Token" not in request.headers


@pytest.mark.parametrize(("status", "times"), [(401, 2), (403, 2), (500, 1), (429, 1)])
async def test_keys_that_an_agency_is_refused_with_are_renewed_once(status: int, times: int) -> None:
    class Base:
        identity = fingerprint = "base"
        number = 1

        async def current(self) -> AccessKey:
            return AccessKey(f"KEY-{self.number}", "the-secret-key")

        async def renewed(self, refused: object) -> bool:
            self.number += 1
            return refused != await self.current()

    service = Service(httpx.Response(status, json={"error_code": "X.1", "error_msg": "no"}))
    way = Agency(service.via, IAM, AgencyRef(agency_urn=URN), Base())
    with pytest.raises(IdentityError, match=r"assuming the agency .*no"):
        await way.fetch()
    assert len(service.requests) == times


async def test_an_agency_is_not_assumed_with_an_iam_token() -> None:
    service = Service()
    with pytest.raises(IdentityError, match=r"spec\.assumeAgency needs an access key"):
        await service.agency(AgencyRef(agency_urn=URN), Token("an-iam-token"))
    assert service.requests == []


async def test_the_agent_is_asked_with_the_tokens_file_as_it_is_now(tmp_path: Path) -> None:
    file = tmp_path / "token"
    service = Service()
    environ = {URI_VARIABLE: "http://169.254.1.1/v1/credentials", FILE_VARIABLE: str(file)}
    way = PodIdentity(service.via, environ)
    for token in ("the-first-token", "the-second-token"):
        file.write_text(f"{token}\n")
        await way.fetch()
    assert [request.headers["Authorization"] for request in service.requests] == ["the-first-token", "the-second-token"]
    assert {(request.method, request.content) for request in service.requests} == {("POST", b"{}")}
    assert "the-second-token" not in redaction.redact("the-second-token")


@pytest.mark.parametrize("text", [None, "", " \n", "\x00\x01", "ä"])
async def test_a_token_file_that_holds_none_is_told(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "token"
    if text is not None:
        file.write_text(text)
    environ = {URI_VARIABLE: "http://169.254.1.1/v1/credentials", FILE_VARIABLE: str(file)}
    service = Service()
    with pytest.raises(IdentityError, match=f"the token file .* check {FILE_VARIABLE}") as caught:
        await PodIdentity(service.via, environ).fetch()
    assert caught.value.reason is Reason.CREDENTIALS_INVALID
    assert service.requests == []


async def test_a_pod_without_the_agents_variables_is_told_how_to_get_them() -> None:
    with pytest.raises(IdentityError, match=r'HC_CONTAINER_CREDENTIALS_FULL_URI and .*injection: "on"'):
        await PodIdentity(Service().via, {}).fetch()


async def test_an_agent_that_redirects_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("the-token")
    environ = {URI_VARIABLE: "http://169.254.1.1/v1/credentials", FILE_VARIABLE: str(tmp_path / "token")}
    service = Service(httpx.Response(302, headers={"Location": "http://evil.example"}))
    with pytest.raises(IdentityError, match="a redirect, which is not followed"):
        await PodIdentity(service.via, environ).fetch()
    assert len(service.requests) == 1


@pytest.mark.parametrize(
    ("status", "code", "reason", "says"),
    [
        (404, "IAM.0004", Reason.IDENTITY_REFUSED, "correct spec.identityRef.federation.identityProvider"),
        (401, "IAM.0001", Reason.IDENTITY_REFUSED, "signing keys (JWKS"),
        (403, "IAM.0081", Reason.IDENTITY_REFUSED, "access type programmatic"),
        (400, "IAM.0011", Reason.IDENTITY_REFUSED, "check spec.identityRef.federation"),
        (410, "IAM.0020", Reason.CLOUD_UNREACHABLE, "it is asked again"),
        (500, "IAM.0006", Reason.CLOUD_UNREACHABLE, "it is asked again"),
        (429, "IAM.0012", Reason.THROTTLED, "it is asked again later"),
    ],
)
async def test_what_iam_refuses_is_told_with_its_text_and_the_remedy(
    status: int, code: str, reason: Reason, says: str
) -> None:
    body = {"error_code": code, "error_msg": "the cloud's own words"}
    service = Service(httpx.Response(status, json=body, headers={"Retry-After": "7"}))
    with pytest.raises(IdentityError) as caught:
        await service.federation()
    text = str(caught.value)
    assert all(part in text for part in (IAM, str(status), code, "the cloud's own words", says))
    assert caught.value.reason is reason
    assert caught.value.retry_after == (7 if status == 429 else None)
    assert JWT not in text


@pytest.mark.parametrize(
    ("status", "code", "says"),
    [
        (403, "STS5.1001", "must allow sts:agencies:assumeWithOIDC"),
        (400, "STS5.2001", "correct spec.identityRef.audience"),
        (400, "STS5.1007", "spec.identityRef.endpoint"),
        (400, "STS5.9999", "check providerURN, agencyURN and durationSeconds"),
    ],
)
async def test_what_sts_refuses_is_told_with_the_remedy(status: int, code: str, says: str) -> None:
    service = Service(httpx.Response(status, json={"error_code": code, "error_msg": "no"}))
    with pytest.raises(IdentityError) as caught:
        await service.sts()
    assert says in str(caught.value)
    assert caught.value.reason is Reason.IDENTITY_REFUSED


async def test_keystones_errors_are_read_too() -> None:
    body = {"error": {"code": 401, "message": "The token is wrong.", "title": "Unauthorized"}}
    with pytest.raises(IdentityError, match=r"401 401 The token is wrong\."):
        await Service(httpx.Response(401, json=body)).federation()


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (
            httpx.Response(201, json={"credential": KEYS}, headers=SUBJECT),
            "expires_at: field required",
        ),
        (an_answer("soon"), "'soon' is no time"),
        (an_answer("2026-01-02T03:04:04Z"), "keys that ended already"),
        (httpx.Response(201, text="<html>", headers=SUBJECT), "the body"),
        (httpx.Response(201, json={"token": {}}), "without X-Subject-Token"),
        (httpx.Response(302, headers={"Location": "https://evil.example"}), "a redirect, which is not followed"),
    ],
)
async def test_an_answer_that_cannot_be_used_is_told(answer: httpx.Response, says: str) -> None:
    with pytest.raises(IdentityError) as caught:
        await Service(answer).federation()
    assert says in str(caught.value)
    assert caught.value.reason is Reason.CLOUD_UNREACHABLE
    assert all(value not in str(caught.value) for value in KEYS.values())


@pytest.mark.parametrize("minutes", [-10, 10])
async def test_the_life_of_keys_is_counted_by_the_clock_that_set_it(minutes: int) -> None:
    """Ours is off by ten minutes."""
    cloud = NOW + timedelta(minutes=minutes)
    expires = cloud + timedelta(seconds=900)
    lease = await Service(an_answer(f"{expires:%Y-%m-%dT%H:%M:%SZ}", cloud)).federation()
    assert lease.seconds == 900


@pytest.mark.parametrize("fraction", ["", ".1", ".084", ".575000", ".123456789"])
def test_every_form_of_time_is_read(fraction: str) -> None:
    found = parse_time(f"2026-08-10T07:15:09{fraction}Z")
    assert found.replace(microsecond=0) == datetime(2026, 8, 10, 7, 15, 9, tzinfo=UTC)
    assert found.microsecond == int((fraction[1:7] or "0").ljust(6, "0"))


@pytest.mark.parametrize("text", ["", "2026-08-10T07:15:09", "2026-13-10T07:15:09Z", "2026-08-10T07:15:09+02:00", "9"])
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no time like"):
        parse_time(text)


@pytest.mark.parametrize("wrapper", ["credential", "credentials"])
@pytest.mark.parametrize(
    "names",
    [
        ("access", "secret", "securitytoken", "expires_at"),
        ("accessKeyId", "secretAccessKey", "securityToken", "expiration"),
        ("access_key_id", "secret_access_key", "security_token", "expiration"),
    ],
)
def test_every_spelling_is_read_as_the_sdk_reads_it(wrapper: str, names: tuple[str, ...]) -> None:
    values = ("HSTAEXAMPLE", "the-temporary-secret", "the-security-token", "2026-08-10T07:15:09.084000Z")
    content = json.dumps({wrapper: dict(zip(names, values, strict=True))}).encode()
    ours, theirs = read_temporary_key(content), FederalAccessor._process_credential(content)
    assert (ours.key.access_key, ours.key.secret_key, ours.key.security_token, int(ours.expires.timestamp())) == (
        theirs.access,
        theirs.secret,
        theirs.security_token,
        theirs.expire_at,
    )
