"""The memory for Secrets: short, bounded, and forgotten on demand. The API server is a stand-in that counts."""

import base64
import json

import pytest

from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import ForbiddenError, GoneError, KubeError, RejectedError
from nodepool_membership.kube.secrets import Secrets


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


PATH = "/api/v1/namespaces/team/secrets/keys"


def secret(**values: str) -> bytes:
    return json.dumps({"data": {k: base64.b64encode(v.encode()).decode() for k, v in values.items()}}).encode()


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
    api.answers[PATH] = ForbiddenError("403")
    with pytest.raises(ForbiddenError):
        await secrets.read("team", "keys")
    api.answers[PATH] = secret(token="t")
    assert await secrets.read("team", "keys") == {"token": b"t"}


@pytest.mark.parametrize("raw", [b"{", b'{"data": {"k": "not base64!"}}', b"<html>"])
async def test_an_unreadable_answer_shows_nothing_of_it(api: Counting, raw: bytes) -> None:
    api.answers[PATH] = raw
    with pytest.raises(RejectedError) as caught:
        await Secrets(api).read("team", "keys")
    assert "base64" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


async def test_bounded(api: Counting) -> None:
    secrets = Secrets(api)
    for number in range(1500):
        await secrets.read("team", str(number))
    assert len(secrets._remembered) == 1000


async def test_a_secret_without_data_is_empty_not_absent(api: Counting) -> None:
    api.answers[PATH] = b'{"kind": "Secret"}'
    assert await Secrets(api).read("team", "keys") == {}
