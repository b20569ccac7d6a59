"""All memberships in pages: the next is made while one is worked, and nothing is left behind. The API server is a
stand-in; a real one is asked in `tests/cluster/test_kube_writes.py`.
"""

import asyncio
import json
import ssl
from collections.abc import AsyncGenerator

import pytest

from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import UnansweredError
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.sessions import Login, open_session
from nodepool_membership.kube.sockets import Sockets

A = "00000001-1111-4222-8333-444444444444"
POOL = {"region": "cn-north-4", "projectID": "ab" * 16, "clusterID": A, "nodePoolID": A}


def item(name: str) -> dict[str, object]:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": "1", "generation": 1}
    spec = {"nodePool": POOL, "credentialsRef": {"name": "cce-credentials"}, "serverIDs": [A]}
    return {"metadata": {**metadata, "creationTimestamp": "2026-01-02T03:04:05Z"}, "spec": spec}


class Paged(KubeApi):
    """Pages of one object each; `broken`: there is said to be one more, which does not come."""

    def __init__(self, *names: str, broken: bool = False) -> None:
        self.names, self.broken, self.asked = names, broken, 0

    async def request(self, *_: object, **__: object) -> bytes:
        self.asked += 1
        if self.asked > len(self.names):
            raise UnansweredError("the API server is away")
        more = "more" if self.broken or self.asked < len(self.names) else ""
        page = {"metadata": {"continue": more}, "items": [item(self.names[self.asked - 1])]}
        return json.dumps(page).encode()


async def test_the_next_page_is_asked_for_while_one_is_worked() -> None:
    api = Paged("a", "b", "c")
    seen = []
    async for found in Memberships(api).all([]):
        await asyncio.sleep(0)
        seen.append((found.metadata.name, api.asked))
    assert seen == [("a", 2), ("b", 3), ("c", 3)]


async def test_a_page_that_does_not_come_is_told_after_those_before_it_were_worked() -> None:
    seen = []

    async def work() -> None:
        async for found in Memberships(Paged("a", "b", broken=True)).all([]):
            await asyncio.sleep(0)
            seen.append(found.metadata.name)

    with pytest.raises(UnansweredError):
        await work()
    assert seen == ["a", "b"]


async def test_nothing_is_asked_for_any_more_once_nobody_wants_more() -> None:
    api = Paged("a", "b", "c")
    pages = Memberships(api).all([])
    assert (await anext(pages)).metadata.name == "a"
    assert isinstance(pages, AsyncGenerator)
    await pages.aclose()
    await asyncio.sleep(0)
    assert (api.asked, len(asyncio.all_tasks())) == (1, 1)


async def test_the_api_server_packs_nothing_that_both_sides_would_pay_for() -> None:
    async def nobody() -> None:
        return None

    sockets = Sockets()
    login = Login("https://127.0.0.1", ssl.create_default_context(), None, nobody)
    async with open_session(login, sockets) as session:
        assert session.headers["Accept-Encoding"] == "identity"
    await sockets.end()
