"""A way to the API server for one operator only, which can keep an answer back or be cut.

Not for: a broken API server; `ControlPlane` stops the real one, for everybody.
"""

import asyncio
import ssl
import threading
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import aiohttp
import yaml
from aiohttp import web

from controlplane import ControlPlane
from harness.programs import wait_for

Wanted = Callable[[str, str, bytes], bool]
"""Of a request's method, path and body."""

_NOT_PASSED_ON: Final = frozenset({"host", "connection", "content-length", "transfer-encoding", "accept-encoding"})
_LARGEST: Final = 4 << 20


def is_intent(method: str, path: str, body: bytes) -> bool:
    """Whether the request stores the intent of a call."""
    return method == "PATCH" and path.endswith("/status") and b'"Submitting"' in body


def is_finalizer(method: str, path: str, _body: bytes) -> bool:
    """Whether the request puts the finalizer on a membership, which comes right before its first intent."""
    return method == "PATCH" and path.rpartition("/")[0].endswith("/nodepoolmemberships")


class Gateway:
    """A context manager; `kubeconfig` leads through it with the token of another one."""

    def __init__(self, control_plane: ControlPlane, login: Path, workdir: Path) -> None:
        self._control_plane = control_plane
        self._login = login
        self.kubeconfig = workdir / "through-the-gateway.kubeconfig"
        self._wanted: Wanted = lambda *_: False
        self._held = threading.Event()
        self._cut = False
        self._address: Future[str] = Future()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="gateway")

    def __enter__(self) -> Self:
        self._thread.start()
        config = yaml.safe_load(self._login.read_text())
        config["clusters"][0]["cluster"] = {"server": self._address.result(30)}
        self.kubeconfig.write_text(yaml.safe_dump(config))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join()

    def hold(self, wanted: Wanted) -> None:
        """From now on, do requests of this kind, and keep their answers back until `let_go`."""
        self._wanted = wanted

    def until_held(self) -> None:
        """Wait until an answer is kept back."""
        wait_for("an answer is kept back", lambda: self._held.is_set() or None)

    def let_go(self) -> None:
        """Pass on what was kept back."""
        self._wanted = lambda *_: False
        self._loop.call_soon_threadsafe(self._let_go.set)

    def cut(self) -> None:
        """Close the connection of every request from now on."""
        self._cut = True

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended, self._let_go = asyncio.Event(), asyncio.Event()
        context = ssl.create_default_context(cafile=self._control_plane.ca_file)
        timeout = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=context), timeout=timeout) as self._session:
            app = web.Application(client_max_size=_LARGEST)
            app.router.add_route("*", "/{path:.*}", self._pass_on)
            runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
            await runner.setup()
            try:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                self._address.set_result("http://127.0.0.1:{1}".format(*runner.addresses[0]))
                await self._ended.wait()
            finally:
                await runner.cleanup()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        if self._cut and request.transport is not None:
            request.transport.abort()
            return web.Response()
        body = await request.read()
        headers = {k: v for k, v in request.headers.items() if k.lower() not in _NOT_PASSED_ON}
        url = self._control_plane.url + request.path_qs
        async with self._session.request(request.method, url, headers=headers, data=body or None) as answer:
            response = web.StreamResponse(
                status=answer.status, headers={"Content-Type": answer.headers["Content-Type"]}
            )
            if self._wanted(request.method, request.path, body):
                self._held.set()
                await self._let_go.wait()
            await response.prepare(request)
            async for chunk in answer.content.iter_any():
                await response.write(chunk)
        return response
