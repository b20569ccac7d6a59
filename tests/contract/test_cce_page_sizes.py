"""A deployment with a page size of its own, or none: a listing is still every node or nothing (rule P13).

Not for: paging as documented; test_cce_listing.
"""

import httpx
import pytest

from nodepool_membership.cce.client import MAX_PAGE_SIZE, PAGE_SIZE
from nodepool_membership.cce.errors import OutcomeUnknownError, UnavailableError
from nodepool_membership.cce.wire import MAX_PAGE_ITEMS
from scripted_cloud import CLUSTER, INTENT, POOL, SERVERS, Wire, client


def listing(count: int, page: int, *, heeds_marker: bool) -> Wire:
    """`count` nodes in pages of `page` whatever the request's limit says, without pageInfo."""

    def answer(request: httpx.Request) -> httpx.Response:
        marker = request.url.params.get("marker") if heeds_marker else None
        first = int(marker) + 1 if marker else 0
        numbers = range(first, min(first + page, count))
        items = [{"metadata": {"uid": f"{n:05}"}, "status": {"serverId": f"s{n}", "phase": "Active"}} for n in numbers]
        return httpx.Response(200, json={"kind": "List", "items": items})

    return Wire(answer)


@pytest.mark.parametrize("page", [PAGE_SIZE, 500, 1000, MAX_PAGE_SIZE])
@pytest.mark.parametrize("count", [999, 2000, 2001, 4500])
async def test_a_page_size_of_its_own_hides_no_node(count: int, page: int) -> None:
    """Nodes missed here would be servers that look free, and would be wiped."""
    table = await client(listing(count, page, heeds_marker=True)).list_nodes(CLUSTER)
    assert len(table) == count


async def test_the_apis_largest_page_over_and_over_is_not_everything() -> None:
    wire = listing(4500, MAX_PAGE_SIZE, heeds_marker=False)
    with pytest.raises(UnavailableError, match="does not come to an end"):
        await client(wire).list_nodes(CLUSTER)
    assert len(wire.seen) == 4


@pytest.mark.parametrize("count", [PAGE_SIZE + 1, MAX_PAGE_SIZE + 1, MAX_PAGE_ITEMS])
async def test_without_paging_all_is_taken_once(count: int) -> None:
    wire = listing(count, count, heeds_marker=False)
    assert len(await client(wire).list_nodes(CLUSTER)) == count
    assert len(wire.seen) == 2


@pytest.mark.parametrize("failure", [RuntimeError("a bug"), OSError("a socket"), UnicodeError("a name")])
async def test_whatever_is_raised_an_add_may_have_left(failure: Exception) -> None:
    """Rule P6: any other exception leaves the outcome unknown."""

    def fail(_: httpx.Request) -> httpx.Response:
        raise failure

    wire = Wire(fail)
    with pytest.raises(OutcomeUnknownError, match=type(failure).__name__):
        await client(wire).add_nodes(CLUSTER, POOL, SERVERS, signed_at=INTENT)
    assert len(wire.seen) == 1


async def test_a_read_that_ends_in_a_socket_error_is_unavailable() -> None:
    def fail(_: httpx.Request) -> httpx.Response:
        raise OSError("a socket")

    with pytest.raises(UnavailableError):
        await client(Wire(fail)).get_cluster(CLUSTER)


async def test_large_pages_that_always_name_a_next_one_are_not_everything() -> None:
    items = [{"metadata": {"uid": f"{n}"}, "status": {"serverId": f"s{n}"}} for n in range(PAGE_SIZE + 100)]
    wire = Wire(lambda _: httpx.Response(200, json={"items": items, "pageInfo": {"nextMarker": "again"}}))
    with pytest.raises(UnavailableError, match="does not come to an end"):
        await client(wire).list_nodes(CLUSTER)
    assert len(wire.seen) == 4
