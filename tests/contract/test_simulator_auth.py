"""Credentials: signatures, tokens, the key lock, permissions, and the keys IAM issues.

Not for: the official client, which is in test_simulator_official_sdk.
"""

from collections.abc import Generator
from dataclasses import replace
from datetime import UTC, datetime
from urllib.parse import urlsplit

import httpx
import pytest

from cce_simulator.auth import SignedRequest, canonical_request, signature
from cce_simulator.config import ACCESS_KEY, PROJECT_ID
from simulator_calls import ADD, CLUSTER, NODES, PROJECT, TOKEN, Clock, Cloud, config, servers

SECRET = config().access_keys[0].secret_key
(A,) = servers(1)
VECTOR_HOST = "cce.cn-north-4.myhuaweicloud.com"
VECTOR_CLUSTER = "/api/v3/projects/0123456789abcdef0123456789abcdef/clusters/11111111-2222-3333-4444-555555555555"
VECTOR_HEADERS = {
    "content-type": "application/json",
    "host": VECTOR_HOST,
    "x-project-id": "0123456789abcdef0123456789abcdef",
    "x-sdk-date": "20260102T030405Z",
}
VECTOR_ADD = SignedRequest(
    "POST",
    f"{VECTOR_CLUSTER}/nodepools/66666666-7777-8888-9999-000000000000/nodes/add",
    "",
    VECTOR_HEADERS,
    b'{"apiVersion": "v3", "kind": "List", "nodeList": [{"serverID": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"}]}',
)
VECTOR_LIST = SignedRequest(
    "GET", f"{VECTOR_CLUSTER}/nodes", "marker=m%2F1%20x&limit=2", VECTOR_HEADERS | {"x-security-token": "TOK"}, b""
)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (VECTOR_ADD, "b3f156456d57be712bfa9ad502c57cfa449d52ace9e951678d0af107a655a9d3"),
        (VECTOR_LIST, "c23ba242d8775e51f1dc7f36e247cc1be042da53a8d3e195aa79acbd431abdae"),
    ],
)
def test_signatures_of_the_official_signer_are_reproduced(request_: SignedRequest, expected: str) -> None:
    canonical = canonical_request(request_, sorted(request_.headers))
    assert signature("SKEXAMPLE", "20260102T030405Z", canonical) == expected


def test_a_precomputed_body_hash_is_taken_as_it_is() -> None:
    hashed = replace(VECTOR_ADD, headers=VECTOR_HEADERS | {"x-sdk-content-sha256": "UNSIGNED-PAYLOAD"})
    assert canonical_request(hashed, ["host"]).endswith("\nUNSIGNED-PAYLOAD")


class Signer(httpx.Auth):
    """Signs as `key` at the time the clock shows, plus `skew` seconds."""

    def __init__(self, clock: Clock, key: str = ACCESS_KEY, secret: str = SECRET, skew: float = 0) -> None:
        self.clock, self.key, self.secret, self.skew = clock, key, secret, skew
        self.extra: dict[str, str] = {}

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        moment = datetime.fromtimestamp(self.clock.now + self.skew, UTC)
        request.headers.pop("x-auth-token", None)
        request.headers["x-sdk-date"] = f"{moment:%Y%m%dT%H%M%SZ}"
        request.headers.update(self.extra)
        names = ["host", "x-sdk-date", *self.extra]
        url = urlsplit(str(request.url))
        signed = SignedRequest(request.method, url.path, url.query, dict(request.headers), request.content)
        value = signature(self.secret, request.headers["x-sdk-date"], canonical_request(signed, sorted(names)))
        request.headers["authorization"] = (
            f"SDK-HMAC-SHA256 Access={self.key}, SignedHeaders={';'.join(sorted(names))}, Signature={value}"
        )
        yield request


async def refused(cloud: Cloud, auth: Signer) -> str:
    answer = await cloud.http.get(CLUSTER, auth=auth)
    assert (answer.status_code, answer.json()["error_code"]) == (401, "APIGW.0301")
    text = answer.json()["error_msg"]
    assert isinstance(text, str)
    assert text.startswith("Incorrect IAM authentication information: ")
    return text.removeprefix("Incorrect IAM authentication information: ")


@pytest.mark.parametrize(("skew", "valid"), [(-899, True), (899, True), (-901, False), (901, False)])
async def test_a_signature_is_accepted_for_fifteen_minutes(skew: float, valid: bool) -> None:
    async with Cloud.running() as cloud:
        signer = Signer(cloud.clock, skew=skew)
        if valid:
            assert (await cloud.http.get(CLUSTER, auth=signer)).status_code == 200
        else:
            assert (await refused(cloud, signer)).startswith("signature expired")


async def test_the_clouds_clock_decides() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.configure({"clockSkewSeconds": 1000})
        assert (await refused(cloud, Signer(cloud.clock))).startswith("signature expired")


async def test_an_altered_body_does_not_match_its_signature() -> None:
    async with Cloud.running() as cloud:

        async def tamper(request: httpx.Request) -> None:
            request.stream = httpx.ByteStream(b'{"apiVersion": "v4"}')
            request.headers["content-length"] = "20"

        async with httpx.AsyncClient(
            base_url=cloud.simulator.url, event_hooks={"request": [tamper]}, trust_env=False
        ) as http:
            answer = await http.post(ADD, json={}, auth=Signer(cloud.clock))
        assert "verify aksk signature fail" in answer.json()["error_msg"]


async def test_a_mismatch_echoes_the_canonical_request() -> None:
    async with Cloud.running() as cloud:
        text = await refused(cloud, Signer(cloud.clock, secret="wrong"))
        host = cloud.simulator.url.removeprefix("http://")
        assert text.startswith(f"verify aksk signature fail, canonicalRequest:GET|{CLUSTER}/||host:{host}|x-sdk-date:")
        assert text.endswith("||host;x-sdk-date|e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


async def test_an_unknown_key_is_named() -> None:
    async with Cloud.running() as cloud:
        assert await refused(cloud, Signer(cloud.clock, key="NOBODY")) == (
            "Get secretKey failed,ak:NOBODY,err:ak not exist"
        )


async def test_a_key_is_locked_for_five_minutes_after_more_than_five_failures_in_a_row() -> None:
    async with Cloud.running() as cloud:
        good, bad = Signer(cloud.clock), Signer(cloud.clock, secret="wrong")
        for _ in range(5):
            await refused(cloud, bad)
        assert (await cloud.http.get(CLUSTER, auth=good)).status_code == 200
        for _ in range(6):
            assert "verify aksk signature fail" in await refused(cloud, bad)
        assert await refused(cloud, good) == "AK access failed to reach the limit,forbidden"
        cloud.clock.tick(299)
        assert await refused(cloud, good) == "AK access failed to reach the limit,forbidden"
        cloud.clock.tick(1)
        assert (await cloud.http.get(CLUSTER, auth=good)).status_code == 200


@pytest.mark.parametrize("sent", [{}, {"x-security-token": "other"}, {"x-security-token": "T"}])
async def test_a_temporary_key_needs_its_token_until_it_expires(sent: dict[str, str]) -> None:
    key = {"accessKey": "TEMP", "secretKey": "s", "securityToken": "T", "expiresAt": 1_767_323_045.0 + 60}
    async with Cloud.running(config(access_keys=[key])) as cloud:
        signer = Signer(cloud.clock, key="TEMP", secret="s")
        signer.extra = sent
        if sent.get("x-security-token") == "T":
            assert (await cloud.http.get(CLUSTER, auth=signer)).status_code == 200
            cloud.clock.tick(60)
        assert await refused(cloud, signer) == "decrypt token fail"


async def test_a_malformed_or_absent_authorization_is_refused() -> None:
    async with Cloud.running() as cloud, httpx.AsyncClient(base_url=cloud.simulator.url, trust_env=False) as nobody:
        assert "x-auth-token not found" in (await nobody.get(CLUSTER)).json()["error_msg"]
        malformed = await nobody.get(CLUSTER, headers={"Authorization": "SDK-HMAC-SHA256 nonsense"})
        assert "malformed" in malformed.json()["error_msg"]


async def test_tokens_expire_and_unknown_ones_are_not_decrypted() -> None:
    tokens = [{"value": TOKEN, "expiresAt": 1_767_323_045.0 + 60}]
    async with Cloud.running(config(tokens=tokens)) as cloud:
        assert (await cloud.http.get(CLUSTER)).status_code == 200
        cloud.clock.tick(60)
        assert (await cloud.http.get(CLUSTER)).json()["error_code"] == "APIGW.0307"
        unknown = await cloud.http.get(CLUSTER, headers={"X-Auth-Token": "other"})
        assert unknown.json()["error_msg"].endswith("decrypt token fail")


async def test_keys_and_tokens_are_exchanged_while_running() -> None:
    async with Cloud.running() as cloud:
        cloud.simulator.configure({"tokens": [{"value": "new"}]})
        assert (await cloud.http.get(CLUSTER)).status_code == 401
        assert (await cloud.http.get(CLUSTER, headers={"X-Auth-Token": "new"})).status_code == 200


async def test_another_project_or_a_contradicting_header_is_forbidden() -> None:
    async with Cloud.running() as cloud:
        foreign = await cloud.http.get(CLUSTER.replace(PROJECT_ID, "f" * 32))
        contradicting = await cloud.http.get(CLUSTER, headers={"X-Project-Id": "f" * 32})
        agreeing = await cloud.http.get(CLUSTER, headers={"X-Project-Id": PROJECT_ID})
        assert [foreign.status_code, contradicting.status_code, agreeing.status_code] == [403, 403, 200]
        assert foreign.json()["errorCode"] == "CCE.01403001"


async def test_an_action_is_denied() -> None:
    async with Cloud.running(config(tokens=[{"value": TOKEN, "deny": ["cce:node:add"]}])) as cloud:
        answer = await cloud.add([A])
        assert (answer.status_code, answer.json()["message"]) == (
            403,
            "Policy doesn't allow cce:node:add to be performed.",
        )
        assert (await cloud.http.get(NODES)).status_code == 200


def password_of(user: str) -> dict[str, object]:
    given = {"name": user, "password": "p", "domain": {"name": "acct"}}
    return {"auth": {"identity": {"methods": ["password"], "password": {"user": given}}}}


async def test_iam_gives_a_token_for_a_password_and_a_key_for_the_token() -> None:
    users = [{"name": "u", "password": "p", "domain": "acct"}]
    async with Cloud.running(config(users=users)) as cloud:
        wrong = await cloud.http.post("/v3/auth/tokens", json=password_of("nobody"))
        assert (wrong.status_code, wrong.json()["error"]["code"]) == (401, 401)
        granted = await cloud.http.post("/v3/auth/tokens", json=password_of("u"))
        token = granted.headers["X-Subject-Token"]
        assert (granted.status_code, granted.json()["token"]["expires_at"]) == (201, "2026-01-03T03:04:05.000000Z")
        assert (await cloud.http.get(CLUSTER, headers={"X-Auth-Token": token})).status_code == 200

        body = {"auth": {"identity": {"methods": ["token"], "token": {"duration_seconds": 900}}}}
        issued = await cloud.http.post("/v3.0/OS-CREDENTIAL/securitytokens", json=body, headers={"X-Auth-Token": token})
        key = issued.json()["credential"]
        assert (issued.status_code, key["expires_at"]) == (201, "2026-01-02T03:19:05.000000Z")
        signer = Signer(cloud.clock, key=key["access"], secret=key["secret"])
        signer.extra = {"x-security-token": key["securitytoken"]}
        assert (await cloud.http.get(CLUSTER, auth=signer)).status_code == 200
        cloud.clock.tick(900)
        assert await refused(cloud, signer) == "decrypt token fail"


@pytest.mark.parametrize("seconds", [899, 86_401, "900"])
async def test_a_temporary_key_lives_900_to_86400_seconds(seconds: object) -> None:
    body = {"auth": {"identity": {"methods": ["token"], "token": {"duration_seconds": seconds}}}}
    async with Cloud.running() as cloud:
        answer = await cloud.http.post("/v3.0/OS-CREDENTIAL/securitytokens", json=body)
        assert answer.status_code == 400
        other = {"auth": {"identity": {"methods": ["totp"]}}}
        assert (await cloud.http.post("/v3.0/OS-CREDENTIAL/securitytokens", json=other)).status_code == 400


async def test_a_job_is_shown_to_its_own_project_only() -> None:
    tokens = [{"value": TOKEN}, {"value": "other", "projectID": "f" * 32}]
    async with Cloud.running(config(tokens=tokens)) as cloud:
        job = await cloud.added([A])
        path = f"{PROJECT}/jobs/{job}".replace(PROJECT_ID, "f" * 32)
        assert (await cloud.http.get(path, headers={"X-Auth-Token": "other"})).status_code == 404
