"""Pages of metadata that adapt to their bytes, and of which no more is kept than is needed.

Not for: what a real API server sends (`tests/cluster/test_watch.py`).
"""

from collections.abc import AsyncIterator

import pytest

from nodepool_membership.kube.errors import TooLargeError
from nodepool_membership.kube.pages import MAX_PAGE_BYTES, PageSize, read_at_most
from nodepool_membership.runtime.watch.change_filter import needed_of


class Arrives:
    """An answer of so many bytes."""

    def __init__(self, size: int) -> None:
        self.left = size
        self.closed = False

    @property
    def content(self) -> "Arrives":
        return self

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        while self.left > 0:
            piece = min(self.left, n)
            self.left -= piece
            yield b"x" * piece

    def close(self) -> None:
        self.closed = True


def asked_for(objects: list[int], most: int) -> tuple[list[int], int]:
    """The page sizes with which objects of so many bytes each are read, and the most bytes that were read at once."""
    pages, sizes, largest, at = PageSize(most), list[int](), 0, 0
    while at < len(objects):
        assert len(sizes) < 10 * len(objects) + 10
        sizes.append(pages.limit)
        weight = sum(objects[at : at + pages.limit])
        if pages.max_bytes is not None and weight > pages.max_bytes:
            pages.too_large()
            continue
        largest = max(largest, weight)
        at += pages.limit
        pages.answered(weight)
    return sizes, largest


def test_small_objects_are_asked_for_in_full_pages_soon() -> None:
    assert asked_for([2_000] * 500, 200) == ([10, 40, 160, 200, 200], 400_000)


def test_of_large_objects_the_api_server_makes_no_page_in_vain() -> None:
    assert asked_for([300_000] * 60, 200)[0] == [10] * 6


def test_large_objects_are_asked_for_in_few_and_none_is_left_out() -> None:
    sizes, largest = asked_for([1_500_000] * 60, 200)
    assert largest <= MAX_PAGE_BYTES
    assert len(sizes) < 70


def test_small_ones_before_and_after_large_ones() -> None:
    sizes, largest = asked_for([2_000] * 300 + [1_500_000] * 20 + [2_000] * 300, 200)
    assert largest <= MAX_PAGE_BYTES
    assert sizes[-1] >= 100


def test_an_object_alone_is_taken_however_large_it_is() -> None:
    assert asked_for([9_000_000] * 3, 8)[1] == 9_000_000


async def test_no_more_is_read_than_is_taken() -> None:
    small = Arrives(1000)
    assert await read_at_most(small, 1000) == b"x" * 1000
    assert not small.closed
    large = Arrives(1 << 30)
    with pytest.raises(TooLargeError, match="4 MiB"):
        await read_at_most(large, MAX_PAGE_BYTES)
    assert large.closed
    assert (1 << 30) - large.left < MAX_PAGE_BYTES + (128 << 10)


def test_of_metadata_only_what_wakes_is_kept() -> None:
    metadata = {
        "name": "a",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "1",
        "generation": 2,
        "labels": {"large": "x"},
        "finalizers": ["x"],
        "managedFields": [{}],
        "annotations": {"large": "x", "reconcile.fluxcd.io/requestedAt": "now"},
    }
    assert needed_of(metadata) == {
        "name": "a",
        "namespace": "ns",
        "uid": "u",
        "resourceVersion": "1",
        "generation": 2,
        "annotations": {"reconcile.fluxcd.io/requestedAt": "now"},
    }
