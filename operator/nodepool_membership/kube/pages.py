"""Lists of metadata in pages that adapt to their bytes, of which no more is kept than is needed.

Not for: what is listed. Metadata of one object takes up to 1.5 MB where nobody bounds it (labels, finalizers, managed
fields), and several times as much in memory while it is read: sixty such objects would not fit.
"""

from collections.abc import AsyncIterator
from typing import Final, Protocol

from nodepool_membership.kube.errors import TooLargeError

MAX_PAGE_BYTES: Final = 4 << 20
"""Of a page of more than one object. A single object is at most 1.5 MiB (etcd's bound on a request)."""
_PIECE: Final = 64 << 10
_FIRST: Final = 10
"""Objects of the first page. The API server has made a page whole before it turns out to be too large."""


class Content(Protocol):
    """The bytes of an answer as they arrive, of which aiohttp's own types have more."""

    def iter_chunked(self, n: int) -> AsyncIterator[bytes]: ...


class Arriving(Protocol):
    """An answer whose body may not have arrived."""

    @property
    def content(self) -> Content: ...

    def close(self) -> None: ...


class PageSize:
    """How many objects the next page is asked for: fewer after one that was too large, more after small ones."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.limit = min(most, _FIRST)

    @property
    def max_bytes(self) -> int | None:
        """What a page of this size may have; None: a single object is taken as it is."""
        return MAX_PAGE_BYTES if self.limit > 1 else None

    def answered(self, size: int) -> None:
        """A page of so many bytes was read."""
        if size < MAX_PAGE_BYTES // 4:
            self.limit = min(self._most, 4 * self.limit)

    def too_large(self) -> None:
        """A page had more than it may have; it is to be asked for again."""
        self.limit = max(1, self.limit // 4)


async def read_at_most(response: Arriving, max_bytes: int | None) -> bytes:
    """The body of an answer.

    Raises:
        TooLargeError: it has more than `max_bytes`; the connection is closed.
    """
    body = bytearray()
    async for piece in response.content.iter_chunked(_PIECE):
        body += piece
        if max_bytes is not None and len(body) > max_bytes:
            response.close()
            raise TooLargeError(f"an answer of more than {max_bytes >> 20} MiB")
    return bytes(body)
