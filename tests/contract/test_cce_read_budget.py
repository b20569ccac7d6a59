"""One read that is throttled stops all readers of its user, and no writer (rule P23).

Not for: how many reads there are in a second (`test_cce_reads`).
"""

from time import monotonic

import httpx
import pytest

from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.errors import PausedError, ThrottledError
from nodepool_membership.cce.reads import ReadBudget
from scripted_cloud import CLUSTER, ENDPOINT, INTENT, JOB, KEY, NOW, POOL, PROJECT, SERVERS, Wire, always

THROTTLED = {"error_code": "APIGW.0308", "error_msg": "The throttling threshold has been reached"}


async def test_a_throttled_read_stops_all_readers_and_no_writer() -> None:
    outcomes: list[tuple[str, str]] = []
    reads = ReadBudget(10, clock=monotonic)

    def client(wire: Wire) -> CloudClient:
        http = httpx.AsyncClient(transport=wire)

        def observe(route: str, outcome: str, _: float) -> None:
            outcomes.append((route, outcome))

        return CloudClient(
            http, ENDPOINT, PROJECT, KEY, now=lambda: NOW, timeout_seconds=5, reads=reads, observe=observe
        )

    with pytest.raises(ThrottledError):
        await client(always(429, THROTTLED)).get_job(JOB)
    wire = always(200, {"jobid": JOB})
    other = client(wire)
    with pytest.raises(PausedError, match="The throttling threshold has been reached"):
        await other.list_nodes(CLUSTER)
    assert wire.seen == []
    accepted = await other.add_nodes(CLUSTER, POOL, SERVERS, signed_at=INTENT)
    assert accepted.job_id == JOB
    assert outcomes == [("getJob", "Throttled"), ("listNodes", "Paused"), ("addNodes", "ok")]


async def test_who_has_no_read_budget_is_neither_bounded_nor_paused() -> None:
    wire = always(429, THROTTLED)
    alone = CloudClient(httpx.AsyncClient(transport=wire), ENDPOINT, PROJECT, KEY, now=lambda: NOW, timeout_seconds=5)
    for _ in range(2):
        with pytest.raises(ThrottledError) as told:
            await alone.get_job(JOB)
        assert (type(told.value), told.value.retry_after) == (ThrottledError, None)
    assert len(wire.seen) == 2
