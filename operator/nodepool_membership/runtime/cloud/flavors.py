"""What flavors of a region let a server have, read at most once an hour for a source and project: they do not change.

Not for: reading them (`cce.servers`), or what a flavor must have (`core.preflight.rules`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from nodepool_membership.core.preflight.facts import Flavor

Flavors = Mapping[str, Flavor]
KEPT_SECONDS: Final = 3600.0
_MOST: Final = 16
"""Lists that are kept; one takes up to half a MiB."""


@dataclass(slots=True)
class _Kept:
    at: float | None = None
    flavors: Flavors = field(default_factory=dict)
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class FlavorLists:
    """By endpoint, project and source."""

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._kept: OrderedDict[tuple[str, str, str], _Kept] = OrderedDict()

    async def get(self, key: tuple[str, str, str], read: Callable[[], Awaitable[Flavors]]) -> Flavors:
        """The list of a key, read if need be. Raises what `read` raises."""
        kept = self._kept.setdefault(key, _Kept())
        self._kept.move_to_end(key)
        if len(self._kept) > _MOST:
            self._kept.popitem(last=False)
        async with kept.reading:
            if kept.at is None or self._clock() - kept.at >= KEPT_SECONDS:
                kept.flavors = await read()
                kept.at = self._clock()
        return kept.flavors
