"""A forward proxy as a process of its own, as companies have them: CONNECT, plain http, passwords, and refusals.

Not for: reading what goes through it. It prints one line a request: what was asked for, and what was answered.
"""

import argparse
import asyncio
import base64
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from harness.programs import Program, wait_for

TUNNEL: Final = "tunnel"
HTML: Final = "html"
CLOSE: Final = "close"
HANG: Final = "hang"
PLAIN: Final = "plain"
"""Says 200 and then speaks on by itself, in plain text, as a login page does."""

_CHUNK: Final = 65536
_ESTABLISHED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
_PAGE: Final = b"<html><body>Please log in: secret-of-the-page</body></html>\r\n\r\n"


class ForwardProxy(Program):
    """Listens on a port of 127.0.0.1. With `to`, whatever is asked for is reached at this port of 127.0.0.1."""

    def __init__(self, workdir: Path, *, user: str = "", to: int | None = None, name: str = "proxy") -> None:
        self._seen = 0
        self._mode = workdir / f"{name}.mode"
        self.answer(TUNNEL)
        command = [sys.executable, "-m", "harness.forward_proxy", str(self._mode), f"--user={user}"]
        if to is not None:
            command.append(f"--to={to}")
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        super().__init__(command, workdir / f"{name}.log", environment)
        try:
            self.port = wait_for("the proxy listens", self._listening)
        except BaseException:
            self.kill()
            raise
        self.url = f"http://127.0.0.1:{self.port}"

    def answer(self, mode: str, times: int = -1) -> None:
        """Answer what comes from now on in this way: a status such as "503", or one of the words above.

        After `times` requests (below 0: never) it tunnels again.
        """
        fresh = self._mode.with_suffix(".fresh")
        fresh.write_text(f"{mode} {times}")
        fresh.rename(self._mode)

    def begin(self) -> None:
        """Tunnel, and forget the requests so far."""
        self.answer(TUNNEL)
        self._seen = len(self._asked())

    @property
    def requests(self) -> list[str]:
        """Method and target of every request since `begin`, in order."""
        return self._asked()[self._seen :]

    def _asked(self) -> list[str]:
        return [" ".join(line.split()[1:3]) for line in self.output().splitlines() if line.startswith("asked ")]

    def _listening(self) -> int | None:
        self.check()
        words = self.output().split()
        return int(words[2]) if words[:2] == ["listening", "on"] else None


class _Proxy:
    def __init__(self, mode: Path, user: str, to: int | None) -> None:
        self._file = mode
        self._wanted = f"Basic {base64.b64encode(user.encode()).decode()}" if user else ""
        self._to = to
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self) -> None:
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        print("listening on", server.sockets[0].getsockname()[1], flush=True)
        async with server:
            await server.serve_forever()

    def _mode(self) -> str:
        mode, times = self._file.read_text().split()
        if int(times) == 0:
            return TUNNEL
        if int(times) > 0:
            self._file.write_text(f"{mode} {int(times) - 1}")
        return mode

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._serve_one(reader, writer)
        writer.close()

    async def _serve_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        method, target, _ = first.split(" ")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        mode = self._mode()
        if self._wanted and headers.get("proxy-authorization") != self._wanted:
            mode = "407"
        print("asked", method, target, "answered", mode, flush=True)
        if mode == HANG:
            await reader.read()
        elif mode == HTML:
            writer.write(_PAGE)
        elif mode.isdecimal():
            writer.write(f"HTTP/1.1 {mode} No\r\nContent-Length: {len(_PAGE)}\r\n\r\n".encode() + _PAGE)
        elif mode == PLAIN:
            writer.write(_ESTABLISHED)
            await reader.read(1)
            writer.write(_PAGE)
        elif mode == TUNNEL:
            await self._pass_on(method, target, head, reader, writer)
        await writer.drain()

    async def _pass_on(
        self, method: str, target: str, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        url = urlsplit(f"//{target}" if method == "CONNECT" else target)
        port = self._to or url.port or 80
        there, onwards = await asyncio.open_connection("127.0.0.1" if self._to else url.hostname, port)
        if method == "CONNECT":
            writer.write(_ESTABLISHED)
        else:
            onwards.write(head.replace(target.encode(), target.partition(url.netloc)[2].encode(), 1))
        ways = (asyncio.create_task(_pump(reader, onwards)), asyncio.create_task(_pump(there, writer)))
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        onwards.close()
        writer.close()
        await asyncio.wait(ways)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("mode", type=Path)
    parser.add_argument("--user", default="")
    parser.add_argument("--to", type=int)
    given = parser.parse_args()
    asyncio.run(_Proxy(given.mode, given.user, given.to).serve())
