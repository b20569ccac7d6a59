"""The connections of one HTTP client, ended with it: also those whose request was given up and that nobody answers.

Not for: pooling or limiting them (aiohttp). A request that is cancelled leaves a TLS connection that waits for the
peer's farewell; where the event loop ends before it comes, the connection stays open.
"""

import asyncio
import socket
from contextlib import suppress
from typing import Final
from weakref import WeakSet

import aiohttp

_SECONDS: Final = 1.0


class Sockets:
    """`make` is aiohttp's `socket_factory`; `end` comes after the session is closed, in the same event loop."""

    def __init__(self) -> None:
        self._made: WeakSet[socket.socket] = WeakSet()

    def make(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """A socket for a connection to this address."""
        family, kind, protocol, _, _ = address
        made = socket.socket(family, kind, protocol)
        self._made.add(made)
        return made

    async def end(self) -> None:
        """Have every transport find its connection closed, and wait until it has let go of it."""
        for connection in self._open():
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        with suppress(TimeoutError):
            async with asyncio.timeout(_SECONDS):
                while self._open():  # noqa: ASYNC110 - transports tell nobody
                    await asyncio.sleep(0)

    def _open(self) -> list[socket.socket]:
        return [made for made in self._made if made.fileno() >= 0]
