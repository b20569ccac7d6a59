"""Keys that end between two calls, or during one: renewed before they are blamed; a call that changes is not repeated.

Not for: the lockout's counting as such (`unit/cce/test_cce_lockout.py`), or renewal in time
(`unit/cce/test_cce_renewal.py`).
"""

from collections.abc import Callable
from datetime import UTC, datetime

import httpx
import pytest

from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Credentials
from nodepool_membership.cce.errors import EndedKeyError, IdentityError, NotSentError, UnauthenticatedError
from nodepool_membership.cce.lockout import WRONG_IN_A_ROW, Lockout

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENDED = {"error_code": "APIGW.0301", "error_msg": "Incorrect IAM authentication information: decrypt token fail"}
CLUSTER = {"status": {"phase": "Available"}}


class Keys:
    """A source whose keys have a number; `good` says which the cloud takes."""

    identity = fingerprint = "source"

    def __init__(self, good: Callable[[int], bool]) -> None:
        self.number = 1
        self.good = good
        self.renewable = True
        self.error: IdentityError | None = None
        self.seen: list[tuple[str, str]] = []
        self.dates: list[str] = []

    async def current(self) -> Credentials:
        if self.error is not None:
            raise self.error
        return AccessKey(f"KEY-{self.number}", "secret-key", "security-token")

    async def renewed(self, refused: Credentials) -> bool:
        assert refused == await self.current()
        self.number += self.renewable
        return self.renewable

    def handle(self, request: httpx.Request) -> httpx.Response:
        number = int(request.headers["Authorization"].partition("Access=KEY-")[2].partition(",")[0])
        self.seen.append((request.method, f"KEY-{number}"))
        self.dates.append(request.headers["X-Sdk-Date"])
        if not self.good(number):
            return httpx.Response(401, json=ENDED)
        return httpx.Response(200, json={"jobid": "job"} if request.method == "POST" else CLUSTER)

    def client(self) -> CloudClient:
        http = httpx.AsyncClient(transport=httpx.MockTransport(self.handle))
        lockout = Lockout(clock=lambda: 0.0)
        return CloudClient(http, "https://cce", "project", self, now=lambda: NOW, timeout_seconds=5, lockout=lockout)


async def test_a_read_with_ended_keys_is_made_again_with_new_ones() -> None:
    keys = Keys(lambda number: number > 1)
    client = keys.client()
    for _ in range(2):
        await client.get_cluster("c")
    assert keys.seen == [("GET", "KEY-1"), ("GET", "KEY-2"), ("GET", "KEY-2")]


async def test_an_add_with_ended_keys_is_refused_for_certain_not_repeated_and_not_counted() -> None:
    keys = Keys(lambda number: number > WRONG_IN_A_ROW + 1)
    client = keys.client()
    for _ in range(WRONG_IN_A_ROW + 1):
        with pytest.raises(EndedKeyError):
            await client.add_nodes("c", "p", ["s"], signed_at=NOW)
    # The next one has keys that are good, and carries the stored time (rule P5).
    assert (await client.add_nodes("c", "p", ["s"], signed_at=NOW)).job_id == "job"
    assert [method for method, _ in keys.seen] == ["POST"] * (WRONG_IN_A_ROW + 2)
    assert set(keys.dates) == {"20260102T030405Z"}


async def test_new_keys_that_are_refused_too_count_towards_the_lockout() -> None:
    keys = Keys(lambda _: False)
    client = keys.client()
    for _ in range(WRONG_IN_A_ROW):
        with pytest.raises(UnauthenticatedError):
            await client.get_cluster("c")
    assert len(keys.seen) == 2 * WRONG_IN_A_ROW
    with pytest.raises(UnauthenticatedError, match="not called again"):
        await client.get_cluster("c")
    assert len(keys.seen) == 2 * WRONG_IN_A_ROW


async def test_keys_that_cannot_be_renewed_are_blamed_at_once() -> None:
    keys = Keys(lambda _: False)
    keys.renewable = False
    with pytest.raises(UnauthenticatedError):
        await keys.client().get_cluster("c")
    assert len(keys.seen) == 1


async def test_without_keys_nothing_is_sent_and_it_is_known() -> None:
    keys = Keys(lambda _: True)
    keys.error = IdentityError("IAM says no")
    with pytest.raises(NotSentError, match="IAM says no"):
        await keys.client().add_nodes("c", "p", ["s"], signed_at=NOW)
    assert keys.seen == []
