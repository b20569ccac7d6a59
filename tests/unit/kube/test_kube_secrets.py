"""The memory for Secrets: short, bounded, and forgotten on demand. The API server is a stand-in that counts."""

import asyncio
import base64
import json
from contextlib import suppress

import pytest

from nodepool_membership.api.names import CREDENTIALS_KEYS, CREDENTIALS_MARK
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import GoneError, KubeError, KubeForbiddenError, RejectedError
from nodepool_membership.kube.secrets import MAX_VALUE_BYTES, Secrets, UnusableSecretError


class Counting(KubeApi):
    """Answers every read of a Secret from a dict."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | KubeError] = {}
        self.reads = 0

    async def request(self, kind: str, method: str, resource: str, **_: object) -> bytes:
        assert (kind, method) == ("secret", "GET")
        self.reads += 1
        answer = self.answers.get(resource, GoneError("404"))
        if isinstance(answer, KubeError):
            raise answer
        return answer


UNMARKED = (
    "Secret 'keys' is not marked for this use: if it holds the credentials, set the label cce.nodepools.dev/credentials"
    ' to "true" (kubectl label secret keys cce.nodepools.dev/credentials=true), or make it of type'
    " cce.nodepools.dev/credentials"
)
LABEL = {CREDENTIALS_MARK: "true"}
PATH = "/api/v1/namespaces/team/secrets/keys"


def secret(**values: str) -> bytes:
    return marked({k: base64.b64encode(v.encode()).decode() for k, v in values.items()})


def marked(data: object, kind: str = CREDENTIALS_MARK, **labels: str) -> bytes:
    """A Secret as the API server gives it."""
    return json.dumps({"type": kind, "metadata": {"name": "keys", "labels": labels}, "data": data}).encode()


@pytest.fixture
def api() -> Counting:
    return Counting()


async def test_read_once_for_many_and_again_when_old_or_asked(api: Counting) -> None:
    now = 0.0
    secrets = Secrets(api, ttl_seconds=15, clock=lambda: now)
    api.answers[PATH] = secret(accessKey="old")
    for _ in range(3):
        assert await secrets.read("team", "keys") == {"accessKey": b"old"}
    assert api.reads == 1
    api.answers[PATH] = secret(accessKey="new")
    assert await secrets.read("team", "keys", fresh=True) == {"accessKey": b"new"}
    assert await secrets.read("team", "keys") == {"accessKey": b"new"}
    assert api.reads == 2
    now = 15.0
    api.answers.clear()
    assert await secrets.read("team", "keys") is None
    assert await secrets.read("team", "keys") is None
    assert api.reads == 3


async def test_a_failed_read_is_not_remembered(api: Counting) -> None:
    secrets = Secrets(api)
    api.answers[PATH] = KubeForbiddenError("403")
    with pytest.raises(KubeForbiddenError):
        await secrets.read("team", "keys")
    api.answers[PATH] = secret(token="t")
    assert await secrets.read("team", "keys") == {"token": b"t"}


@pytest.mark.parametrize(
    "raw",
    [
        b"{",
        marked({"token": "not base64!"}),
        marked({"token": 7}),
        marked(["not base64!"]),
        b'["not base64!"]',
        b'{"type": "cce.nodepools.dev/credentials", "metadata": "not base64!", "data": "not base64!"}',
        b"<html>",
    ],
)
async def test_an_unreadable_answer_shows_nothing_of_it(api: Counting, raw: bytes) -> None:
    api.answers[PATH] = raw
    with pytest.raises(RejectedError) as caught:
        await Secrets(api).read("team", "keys")
    assert "base64" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_bounded(api: Counting) -> None:
    now = 0.0
    secrets = Secrets(api, ttl_seconds=15, clock=lambda: now)
    for number in range(1500):
        await secrets.read("team", str(number))
    assert len(secrets._remembered) == 1000
    now = 15.0
    await secrets.read("team", "another")
    assert list(secrets._remembered) == [("team", "another")]
    assert secrets._bytes == secrets._remembered["team", "another"].size


async def test_bounded_by_bytes(api: Counting) -> None:
    """250 Secrets of 1 MiB with a membership each took 350 MiB."""
    secrets = Secrets(api)
    for number in range(250):
        values = {**dict.fromkeys(CREDENTIALS_KEYS, "v" * MAX_VALUE_BYTES), "unknown": "u" * 800_000}
        api.answers[f"/api/v1/namespaces/team/secrets/{number}"] = secret(**values)
        found = await secrets.read("team", str(number))
        assert found is not None
        assert set(found) == set(CREDENTIALS_KEYS)
    assert secrets._bytes <= 4 << 20
    assert secrets._bytes == sum(entry.size for entry in secrets._remembered.values())
    for _ in range(3):
        assert await secrets.read("team", "249") is not None
    assert api.reads == 250


async def test_few_large_ones_are_in_flight_at_once(api: Counting) -> None:
    most = under_way = 0
    gate = asyncio.Event()

    async def slow(*_: object, **__: object) -> bytes:
        nonlocal most, under_way
        under_way += 1
        most = max(most, under_way)
        await gate.wait()
        under_way -= 1
        return secret(token="a-token-of-it")

    api.request = slow  # type: ignore[method-assign]
    secrets = Secrets(api)
    reads = [asyncio.create_task(secrets.read(f"team-{number % 3}", str(number))) for number in range(21)]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*reads)
    assert most == 2


async def test_only_the_known_keys_are_read(api: Counting) -> None:
    odd = {f"key-{number}": base64.b64encode(bytes(range(256))).decode() for number in range(30)}
    api.answers[PATH] = marked({**odd, "accessKey": "QUs=", "binary": "//79"})
    assert await Secrets(api).read("team", "keys") == {"accessKey": b"AK"}


async def test_a_secret_without_data_is_empty_not_absent(api: Counting) -> None:
    api.answers[PATH] = marked(None)
    assert await Secrets(api).read("team", "keys") == {}


@pytest.mark.parametrize(
    "raw",
    [
        marked({"accessKey": "QUs="}, "Opaque"),
        marked({"accessKey": "QUs="}, ""),
        marked({"accessKey": "QUs="}, "Opaque", **{CREDENTIALS_MARK: "yes"}),
        marked({"accessKey": "QUs="}, "Opaque", **{CREDENTIALS_MARK: "True"}),
        marked({"accessKey": "QUs="}, "Opaque", **{"cce.nodepools.dev/credential": "true"}),
        marked({"password": "QUs="}, "kubernetes.io/basic-auth"),
        marked({"token": "QUs="}, "kubernetes.io/service-account-token"),
        marked({"token": "A" * 900_000}, "helm.sh/release.v1"),
        b'{"kind": "Secret"}',
    ],
)
async def test_nothing_is_told_of_a_secret_without_the_mark(api: Counting, raw: bytes) -> None:
    """The right to edit memberships is not the right to learn what a Secret looks like."""
    secrets = Secrets(api)
    api.answers[PATH] = raw
    texts = []
    for _ in range(2):
        with pytest.raises(UnusableSecretError) as caught:
            await secrets.read("team", "keys")
        texts.append(str(caught.value))
    assert set(texts) == {UNMARKED}
    assert api.reads == 1, "it is remembered like any answer"


@pytest.mark.parametrize("raw", [marked({"accessKey": "QUs="}), marked({"accessKey": "QUs="}, "Opaque", **LABEL)])
async def test_either_mark_will_do(api: Counting, raw: bytes) -> None:
    api.answers[PATH] = raw
    assert await Secrets(api).read("team", "keys") == {"accessKey": b"AK"}


@pytest.mark.parametrize(
    "kind",
    ["kubernetes.io/service-account-token", "kubernetes.io/tls", "bootstrap.kubernetes.io/token", "x.kubernetes.io/y"],
)
async def test_a_secret_of_kubernetes_own_is_never_used(api: Counting, kind: str) -> None:
    """Also where somebody labelled it: a service account's token was sent to a cloud."""
    api.answers[PATH] = marked({"token": "QUs="}, kind, **LABEL)
    with pytest.raises(UnusableSecretError, match=f"of a type of Kubernetes' own .{kind}., which is never sent"):
        await Secrets(api).read("team", "keys")


async def test_a_value_that_can_be_no_credential_is_named(api: Counting) -> None:
    api.answers[PATH] = secret(accessKey="AK", secretKey="s" * (MAX_VALUE_BYTES + 3))
    with pytest.raises(
        UnusableSecretError, match=r"'keys': secretKey has more than 32 KiB.*as the console shows"
    ) as caught:
        await Secrets(api).read("team", "keys")
    assert "ssss" not in str(caught.value)
    api.answers[PATH] = secret(accessKey="AK", secretKey="s" * MAX_VALUE_BYTES)
    assert await Secrets(api).read("team", "keys", fresh=True) is not None


@pytest.mark.parametrize("first", [None, secret(token="an-iam-token"), marked({}, "Opaque")])
async def test_a_corrected_secret_is_read_again_in_time(api: Counting, first: bytes | None) -> None:
    now = 0.0
    secrets = Secrets(api, ttl_seconds=15, clock=lambda: now)
    if first is not None:
        api.answers[PATH] = first
    with suppress(UnusableSecretError):
        await secrets.read("team", "keys")
    api.answers[PATH] = secret(token="the-new-token")
    now = 15.0
    assert await secrets.read("team", "keys") == {"token": b"the-new-token"}
