"""What the API server says of a token: asked once a minute, one token at a time.

Not for: the endpoint (`test_runtime_health`).
"""

import asyncio
import json

import pytest

from nodepool_membership import redaction
from nodepool_membership.api.membership import Json
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import KubeForbiddenError, RejectedError
from nodepool_membership.kube.reviews import KEPT_SECONDS, MAX_TOKEN, Reviews, TokenAccess

USER = {"username": "system:serviceaccount:monitoring:prometheus", "uid": "u", "groups": ["g"], "extra": {"k": ["v"]}}


class Server(KubeApi):
    """Knows the token "known", and who of its users may."""

    def __init__(self) -> None:
        self.may = True
        self.asked: list[Json] = []
        self.under_way = self.most = 0
        self.now = 0.0
        self.answer: bytes | None = None

    async def request(self, kind: str, method: str, resource: str, *, body: Json = None, **_: object) -> bytes:
        assert (kind, method) == ("review", "POST")
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await asyncio.sleep(0)
        self.under_way -= 1
        assert isinstance(body, dict)
        spec = body["spec"]
        assert isinstance(spec, dict)
        self.asked.append(spec)
        if self.answer is not None:
            return self.answer
        if resource.endswith("/tokenreviews"):
            known = spec["token"] == "known"
            return json.dumps({"status": {"authenticated": known, **({"user": USER} if known else {})}}).encode()
        return json.dumps({"status": {"allowed": self.may}}).encode()


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def reviews(server: Server) -> Reviews:
    return Reviews(server, "/metrics", clock=lambda: server.now)


async def test_a_known_token_is_held_against_the_path(server: Server, reviews: Reviews) -> None:
    assert await reviews.access("known") is TokenAccess.ALLOWED
    assert server.asked[1:] == [
        {
            "user": USER["username"],
            "uid": "u",
            "groups": ["g"],
            "extra": {"k": ["v"]},
            "nonResourceAttributes": {"path": "/metrics", "verb": "get"},
        }
    ]


async def test_who_may_not_is_told_from_who_is_nobody(server: Server, reviews: Reviews) -> None:
    server.may = False
    assert await reviews.access("known") is TokenAccess.FORBIDDEN
    assert await reviews.access("forged") is TokenAccess.UNKNOWN


@pytest.mark.parametrize("token", ["", "x" * (MAX_TOKEN + 1), "half \udcff", "words of a status"])
async def test_what_is_no_token_asks_nobody(server: Server, reviews: Reviews, token: str) -> None:
    assert await reviews.access(token) is TokenAccess.UNKNOWN
    assert server.asked == []


@pytest.mark.usefixtures("own_redactor")
async def test_words_shown_as_a_token_are_missing_in_no_text_of_a_tenant(server: Server, reviews: Reviews) -> None:
    """Whoever reaches the port may show what he likes; a token that is good is one that somebody else issued."""
    said = "450 servers joined of 450"
    assert await reviews.access("servers+joined") is TokenAccess.UNKNOWN
    with redaction.done_for("cce-system"):
        assert redaction.redact(said) == said
    with redaction.done_for("/metrics"):
        assert redaction.redact(said) != said
    assert redaction.redact(said) != said
    assert len(server.asked) == 1


async def test_one_token_is_reviewed_at_a_time_and_its_answer_kept(server: Server, reviews: Reviews) -> None:
    tokens = ["known", *(f"forged-{number}" for number in range(5))] * 4
    found = await asyncio.gather(*map(reviews.access, tokens))
    assert found == [TokenAccess.ALLOWED, *[TokenAccess.UNKNOWN] * 5] * 4
    assert (server.most, len(server.asked)) == (1, 7)
    server.may, server.now = False, KEPT_SECONDS - 1
    assert await reviews.access("known") is TokenAccess.ALLOWED
    server.now = KEPT_SECONDS
    assert await reviews.access("known") is TokenAccess.FORBIDDEN


async def test_only_so_many_answers_are_kept(reviews: Reviews) -> None:
    for number in range(300):
        await reviews.access(f"forged-{number}")
    assert len(reviews._kept) == 100


@pytest.mark.parametrize("answer", [b"", b"[]", b"{}", b'{"status": []}', b"<html>"])
async def test_an_answer_that_cannot_be_read_lets_nobody_in(server: Server, reviews: Reviews, answer: bytes) -> None:
    server.answer = answer
    with pytest.raises(RejectedError):
        await reviews.access("known")


async def test_without_the_right_to_ask_nobody_is_let_in(reviews: Reviews, monkeypatch: pytest.MonkeyPatch) -> None:
    async def refuses(*_: object, **__: object) -> bytes:
        raise KubeForbiddenError("cannot create resource tokenreviews")

    monkeypatch.setattr(Server, "request", refuses)
    with pytest.raises(KubeForbiddenError):
        await reviews.access("known")
