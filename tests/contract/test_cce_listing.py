"""A listing is every node of the cluster or nothing, whatever way a deployment pages.

Not for: what one node document means (test_cce_wire), or who shares a listing (test_cce_listings).
"""

import json
from dataclasses import dataclass, field

import httpx
import pytest

from nodepool_membership.cce import client as client_module
from nodepool_membership.cce.client import MAX_NODES, MAX_PAGES, PAGE_SIZE
from nodepool_membership.cce.errors import UnavailableError
from nodepool_membership.cce.wire import MAX_PAGE_ITEMS
from scripted_cloud import CLUSTER, HTML, NOW, Wire, always, client


def node(number: int) -> dict[str, object]:
    return {"metadata": {"uid": f"uid-{number:05}"}, "status": {"serverId": f"server-{number:05}", "phase": "Active"}}


@dataclass
class Fleet:
    """A node list of `count` nodes behind paging as the cloud does it, or as older deployments do not."""

    count: int
    page_info: bool = True
    next_marker: bool = True
    heeds_marker: bool = True
    heeds_limit: bool = True
    fail_on: int | None = None
    requests: list[dict[str, str]] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        query = dict(request.url.params)
        self.requests.append(query)
        if len(self.requests) == self.fail_on:
            return httpx.Response(502, content=HTML)
        marker = query.get("marker", "") if self.heeds_marker else ""
        first = int(marker.removeprefix("uid-")) + 1 if marker else 0
        last = first + int(query["limit"]) if self.heeds_limit else self.count
        items = [node(number) for number in range(first, min(last, self.count))]
        document: dict[str, object] = {"kind": "List", "apiVersion": "v3", "items": items}
        if self.page_info:
            info: dict[str, object] = {"currentCount": len(items)}
            if self.next_marker and last < self.count:
                info["nextMarker"] = f"uid-{last - 1:05}"
            document["pageInfo"] = info
        return httpx.Response(200, content=json.dumps(document))


SIZES = [0, 1, PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2 * PAGE_SIZE, 3 * PAGE_SIZE + 7]


@pytest.mark.parametrize("page_info", [True, False])
@pytest.mark.parametrize("next_marker", [True, False])
@pytest.mark.parametrize("count", SIZES)
async def test_a_listing_is_complete_with_and_without_page_info(
    count: int, *, page_info: bool, next_marker: bool
) -> None:
    """Rule P13: a full page without a marker is followed up."""
    fleet = Fleet(count, page_info=page_info, next_marker=next_marker)
    table = await client(Wire(fleet)).list_nodes(CLUSTER)
    assert len(table) == count
    assert all(f"server-{number:05}" in table for number in range(count))
    assert table.begun == NOW
    assert "marker" not in fleet.requests[0]
    assert {request["limit"] for request in fleet.requests} == {str(PAGE_SIZE)}
    assert len(fleet.requests) <= count // PAGE_SIZE + 1


@pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 1999])
async def test_an_older_deployment_that_ignores_the_marker_is_listed_in_one_page(count: int) -> None:
    fleet = Fleet(count, page_info=False, heeds_marker=False)
    assert len(await client(Wire(fleet)).list_nodes(CLUSTER)) == count
    assert len(fleet.requests) <= 3


@pytest.mark.parametrize("count", [2000, 2001, 5000])
async def test_more_nodes_than_a_page_without_paging_are_no_listing(count: int) -> None:
    fleet = Fleet(count, page_info=False, heeds_marker=False)
    with pytest.raises(UnavailableError, match="does not come to an end"):
        await client(Wire(fleet)).list_nodes(CLUSTER)
    assert len(fleet.requests) <= 4


@pytest.mark.parametrize("count", [PAGE_SIZE - 1, PAGE_SIZE, PAGE_SIZE + 1, 2001, MAX_PAGE_ITEMS])
async def test_a_deployment_that_ignores_limit_and_marker_sends_all_at_once(count: int) -> None:
    fleet = Fleet(count, page_info=False, heeds_marker=False, heeds_limit=False)
    assert len(await client(Wire(fleet)).list_nodes(CLUSTER)) == count


async def test_a_page_of_more_than_twice_what_is_ever_asked_for_is_no_listing() -> None:
    fleet = Fleet(MAX_PAGE_ITEMS + 1, page_info=False, heeds_marker=False, heeds_limit=False)
    with pytest.raises(UnavailableError, match="at most 4000 items"):
        await client(Wire(fleet)).list_nodes(CLUSTER)


@pytest.mark.parametrize("failing", [1, 2, 3])
async def test_a_page_that_fails_leaves_nothing_of_the_listing(failing: int) -> None:
    fleet = Fleet(3 * PAGE_SIZE - 1, fail_on=failing)
    with pytest.raises(UnavailableError):
        await client(Wire(fleet)).list_nodes(CLUSTER)
    assert len(fleet.requests) == failing


UNREADABLE = [
    "",
    "[]",
    "{}",
    HTML,
    '{"kind": "List"}',
    '{"items": {}}',
    '{"items": [null]}',
    '{"items": [',
    '{"items": [{"status": {"serverId": 7}}]}',
]


@pytest.mark.parametrize("body", UNREADABLE)
async def test_what_is_not_a_list_of_nodes_proves_no_absence(body: str) -> None:
    with pytest.raises(UnavailableError, match="cannot be read"):
        await client(always(200, body)).list_nodes(CLUSTER)


async def test_an_empty_list_may_be_written_as_null() -> None:
    """Go writes an empty slice that was never made as null."""
    assert len(await client(always(200, '{"kind": "List", "items": null}')).list_nodes(CLUSTER)) == 0


async def test_a_listing_that_never_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = 0

    def endless(_: httpx.Request) -> httpx.Response:
        nonlocal pages
        pages += 1
        return httpx.Response(200, json={"items": [], "pageInfo": {"nextMarker": f"m{pages}"}})

    monkeypatch.setattr(client_module, "MAX_PAGES", 20)
    with pytest.raises(UnavailableError, match="does not come to an end"):
        await client(Wire(endless)).list_nodes(CLUSTER)
    assert pages == 40
    assert MAX_PAGES * PAGE_SIZE >= 10_000 * 10


async def test_a_listing_of_too_many_nodes_is_given_up() -> None:
    """What an endpoint sends must not fill the memory: 1,000 pages of 4,000 nodes would be 800 MB."""
    assert len(await client(Wire(Fleet(MAX_NODES))).list_nodes(CLUSTER)) == MAX_NODES
    with pytest.raises(UnavailableError, match="more than 20000 nodes"):
        await client(Wire(Fleet(MAX_NODES + 1))).list_nodes(CLUSTER)


async def test_markers_that_go_round_in_a_circle_end_the_listing() -> None:
    following = {"": "a", "a": "b", "b": "c", "c": "a"}

    def turn(request: httpx.Request) -> httpx.Response:
        marker = following[request.url.params.get("marker", "")]
        return httpx.Response(200, json={"items": [node(1)], "pageInfo": {"nextMarker": marker}})

    wire = Wire(turn)
    with pytest.raises(UnavailableError, match="does not come to an end"):
        await client(wire).list_nodes(CLUSTER)
    assert len(wire.seen) == 2 * 4


async def test_full_pages_of_nodes_without_uid_end_the_listing() -> None:
    items: list[dict[str, object]] = [{"status": {"serverId": "s"}}] * PAGE_SIZE
    wire = always(200, {"items": items})
    assert "s" in await client(wire).list_nodes(CLUSTER)
    assert len(wire.seen) <= 3
