"""A TCP proxy in front of the API server that can go silent: it takes connections and forwards nothing, closing none.

Not for: what is sent; it is TLS.
"""

import asyncio
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import yaml

_CHUNK = 65536
_START_SECONDS = 10.0


class Proxy:
    """Forwards 127.0.0.1:`port` to a port of the same host while it is entered; has a thread and a loop of its own."""

    def __init__(self, target: int) -> None:
        self.port = 0
        self._target = target
        self._gate = threading.Event()
        self._gate.set()
        self._connections: list[_Connection] = []
        self._forwarding: set[asyncio.Task[object]] = set()
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(_START_SECONDS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(_START_SECONDS)

    @property
    def opened(self) -> int:
        """How many connections there have been."""
        return len(self._connections)

    def stall(self) -> None:
        """Forward nothing any more: what is open stays open and dead for good, and so does what is opened meanwhile."""
        self._gate.clear()
        for connection in list(self._connections):
            connection.dead = True

    def resume(self) -> None:
        """Forward what is opened from here on."""
        self._gate.set()

    def cut(self) -> None:
        """Close what is dead, as a firewall does in the end. Until then its clients wait for a farewell of TLS."""
        for connection in list(self._connections):
            if connection.dead:
                self._loop.call_soon_threadsafe(connection.abort)

    def kubeconfig(self, original: Path, directory: Path) -> Path:
        """A copy of a kubeconfig that goes through the proxy."""
        config = yaml.safe_load(original.read_text())
        for cluster in config["clusters"]:
            cluster["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        path = directory / "through-proxy.kubeconfig"
        path.write_text(yaml.safe_dump(config))
        return path

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = int(server.sockets[0].getsockname()[1])
        self._started.set()
        await self._end.wait()
        server.close()
        for connection in self._connections:
            connection.abort()
        while self._forwarding:
            await asyncio.wait(self._forwarding)
        await server.wait_closed()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._forwarding.add(task)
        task.add_done_callback(self._forwarding.discard)
        client = _End(reader, writer)
        try:
            server = _End(*await asyncio.open_connection("127.0.0.1", self._target))
        except OSError:
            await client.close()
            return
        connection = _Connection(client, server, dead=not self._gate.is_set() or self._end.is_set())
        self._connections.append(connection)
        if self._end.is_set():
            connection.abort()
        await connection.forward()
        self._connections.remove(connection)


@dataclass(frozen=True)
class _End:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class _Connection:
    """One connection through the proxy; a dead one swallows what it is sent."""

    def __init__(self, client: _End, server: _End, *, dead: bool) -> None:
        self._client, self._server = client, server
        self.dead = dead

    async def forward(self) -> None:
        """Until the client closes it or, unless it is dead, the server does."""
        upwards = asyncio.create_task(self._pump(self._client, self._server))
        downwards = asyncio.create_task(self._pump(self._server, self._client))
        await asyncio.wait((upwards, downwards), return_when=asyncio.FIRST_COMPLETED)
        if self.dead:
            # Aborting ends this, too: the client's end is closed.
            await upwards
        self.abort()
        await asyncio.wait((upwards, downwards))
        await self._client.close()
        await self._server.close()

    async def _pump(self, source: _End, sink: _End) -> None:
        with suppress(OSError):
            while data := await source.reader.read(_CHUNK):
                if not self.dead:
                    sink.writer.write(data)
                    await sink.writer.drain()

    def abort(self) -> None:
        for end in (self._client, self._server):
            end.writer.transport.abort()
