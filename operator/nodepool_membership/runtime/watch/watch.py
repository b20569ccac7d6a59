"""The watch: kopf lists and watches memberships, as metadata only, and says which ones changed.

Not for: reading or writing an object. kopf writes nothing here: no annotation, no finalizer, no Event.

kopf runs in a thread with an event loop of its own. When it ends, for whatever reason, it cancels every task of its
loop that it did not know at its start, and it takes SIGTERM where it runs in the main thread: neither may reach a
worker that has a call to the cloud under way.
"""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from time import monotonic
from typing import Final, Literal
from urllib.parse import urlsplit

import aiohttp
import kopf

from nodepool_membership.api.names import GROUP, PLURAL, VERSION
from nodepool_membership.kube.api import USER_AGENT, KubeApi, path
from nodepool_membership.kube.errors import KubeError, TooLargeError, UnansweredError
from nodepool_membership.kube.pages import PageSize, read_at_most
from nodepool_membership.kube.sessions import Login, open_session, why
from nodepool_membership.kube.sockets import Sockets
from nodepool_membership.runtime.scheduling.queue import Key
from nodepool_membership.runtime.watch.change_filter import ChangeFilter, fingerprint_of, needed_of
from nodepool_membership.runtime.watch.streams import INACTIVITY_SECONDS, SERVER_TIMEOUT_SECONDS, Streams

_logger = logging.getLogger(__name__)

OnKey = Callable[[Key], None]

_EVERYWHERE: Final = path("/apis", GROUP, VERSION, PLURAL)
_DOUBT_SECONDS: Final = 30.0
_REFUSED_SECONDS: Final = 5.0
"""kopf logs in anew and asks again at once, for ever: without a pause, 300 times a second."""
_DISCOVERY_SECONDS: Final = 2.0
_REMIND_SECONDS: Final = 60.0
_RESTART_SECONDS: Final = 5.0
_STOP_SECONDS: Final = 2.0
_PAGE: Final = 200


class Endless:
    """Backoffs of kopf's requests in seconds: it exits when they end."""

    def __iter__(self) -> Iterator[float]:
        yield from (1, 1, 2, 3, 5, 8)
        while True:
            yield 10


class _MetadataResponse(aiohttp.ClientResponse):
    """A page of metadata, bounded in bytes; of each object only what a mark is made of is kept."""

    async def fits(self, pages: PageSize) -> bool:
        """Read the page, unless it has more bytes than it may have."""
        try:
            self._body = await read_at_most(self, pages.max_bytes)
        except TooLargeError:
            pages.too_large()
            return False
        pages.answered(len(self._body))
        return True

    async def json(
        self,
        *,
        encoding: str | None = None,
        loads: aiohttp.typedefs.JSONDecoder = json.loads,
        content_type: str | None = "application/json",
    ) -> object:
        value = await super().json(encoding=encoding, loads=loads, content_type=content_type)
        if isinstance(value, dict) and "items" in value:
            # The API server writes an empty list of metadata as null, which kopf cannot iterate over.
            value["items"] = [{"metadata": needed_of(item["metadata"])} for item in value["items"] or []]
        return value


class Watch:
    """Calls `on_key` in the loop of `run` for every object that is there at the start, and for every change."""

    def __init__(
        self,
        api: KubeApi,
        on_key: OnKey,
        *,
        namespaces: Sequence[str] = (),
        inactivity_seconds: float = INACTIVITY_SECONDS,
        doubt_seconds: float = _DOUBT_SECONDS,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._api = api
        self._on_key = on_key
        self._namespaces = tuple(namespaces)
        self._inactivity = inactivity_seconds
        self._doubt_seconds = doubt_seconds
        self._clock = clock
        self._unserved: str | None = "watch: not started"
        self._streams = Streams(map(_stream_of, self._namespaces or (None,)), clock=clock)
        self._change_filter = ChangeFilter()
        self._stopping = asyncio.Event()

    def ready(self) -> str | None:
        """A readiness check: the resource type is served, and every stream is open (`streams`)."""
        return self._unserved or self._streams.ready()

    def alive(self) -> str | None:
        """A liveness check: nothing that a restart would cure (`streams`)."""
        return self._streams.alive()

    async def run(self) -> None:
        """Watch until `stop`. Waits, loudly, for the CRD; starts again where kopf gives up."""
        async with asyncio.TaskGroup() as group:
            doubting = group.create_task(self._doubt(), name="doubt")
            await self._keep_watching()
            doubting.cancel()

    async def _keep_watching(self) -> None:
        while not self._stopping.is_set():
            await self._wait_for_crd()
            if self._stopping.is_set():
                return
            error = await self._run_kopf()
            self._streams.ended()
            if not self._stopping.is_set():
                _logger.error("the watch ended and is started again: %s", error)
                await self._pause(_RESTART_SECONDS)

    def stop(self) -> None:
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return

    async def _wait_for_crd(self) -> None:
        """kopf would idle for ever if the resource type were not there when it starts."""
        reminded = -_REMIND_SECONDS
        while not self._stopping.is_set():
            try:
                if await self._api.serves(GROUP, VERSION, PLURAL):
                    self._unserved = None
                    return
                problem = f"{PLURAL}.{GROUP} is not served; apply crds/{PLURAL}.yaml"
                for key in self._change_filter.clear():
                    self._on_key(key)
            except KubeError as error:
                problem = f"the API server does not say what it serves: {type(error).__name__}: {error}"
            self._unserved = f"watch: {problem}"
            if self._clock() - reminded >= _REMIND_SECONDS:
                reminded = self._clock()
                _logger.warning("waiting for the resource type: %s", problem)
            await self._pause(_DISCOVERY_SECONDS)

    async def _doubt(self) -> None:
        """Find out whose fault it is when no answer reaches kopf."""
        while not self._stopping.is_set():
            await self._pause(self._doubt_seconds)
            answers = True
            if self._unserved is None and self._streams.silent():
                try:
                    answers = await self._api.serves(GROUP, VERSION, PLURAL)
                except UnansweredError:
                    answers = False
                except KubeError as error:
                    _logger.debug("an answer is an answer: %s", error)
            self._streams.api_answers(does=answers and self._unserved is None)

    async def _run_kopf(self) -> str:
        """Run kopf in its thread until `stop`, or until it ends by itself; says why it ended."""
        loop = asyncio.get_running_loop()
        ended: asyncio.Future[str] = loop.create_future()
        thread = _KopfThread(
            login=self._api.login,
            namespaces=self._namespaces,
            inactivity_seconds=self._inactivity,
            change_filter=self._change_filter,
            streams=self._streams,
            on_key=lambda key: _call(loop, lambda: self._on_key(key)),
            on_end=lambda reason: _call(loop, lambda: ended.set_result(reason)),
        )
        thread.start()
        stopping = asyncio.create_task(self._stopping.wait())
        try:
            both: set[asyncio.Future[str] | asyncio.Future[Literal[True]]] = {ended, stopping}
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            thread.stop()
            async with asyncio.timeout(_STOP_SECONDS):
                return await asyncio.shield(ended)
        except TimeoutError:
            return f"kopf did not end within {_STOP_SECONDS:.0f} s"
        finally:
            thread.stop()
            stopping.cancel()


def _stream_of(namespace: str | None) -> str:
    """The path of the lists and watches of a namespace, None for all."""
    return _EVERYWHERE if namespace is None else path("/apis", GROUP, VERSION, "namespaces", namespace, PLURAL)


async def _asked(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request. kopf logs what is raised whole, and gives up at what is not an error of the connection."""
    try:
        return await handler(request)
    except TimeoutError:
        raise
    except (aiohttp.ClientError, OSError) as error:
        raise aiohttp.ClientConnectionError(why(error)) from None


def _call(loop: asyncio.AbstractEventLoop, what: Callable[[], object]) -> None:
    """Run something in a loop of another thread; nothing if that loop has ended."""
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(what)


class _KopfThread:
    """One run of `kopf.operator` in a thread of its own."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        *,
        login: Login,
        namespaces: tuple[str, ...],
        inactivity_seconds: float,
        change_filter: ChangeFilter,
        streams: Streams,
        on_key: OnKey,
        on_end: Callable[[str], None],
    ) -> None:
        self._login = login
        self._namespaces = namespaces
        self._inactivity = inactivity_seconds
        self._change_filter = change_filter
        self._streams = streams
        self._names = {_stream_of(namespace): namespace for namespace in namespaces or (None,)}
        self._prefix = urlsplit(login.server).path.rstrip("/")
        self._on_key = on_key
        self._on_end = on_end
        self._sockets = Sockets()
        self._pages = PageSize(_PAGE)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop_flag: asyncio.Event | None = None
        self._stopped = False

    def start(self) -> None:
        threading.Thread(target=self._run, name="kopf", daemon=True).start()

    def stop(self) -> None:
        """From another thread; also before kopf has started."""
        self._stopped = True
        if self._loop is not None and self._stop_flag is not None:
            _call(self._loop, self._stop_flag.set)

    def _run(self) -> None:
        reason = "kopf ended"
        try:
            asyncio.run(self._operate())
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"[:500]
            _logger.debug("kopf failed", exc_info=True)
        finally:
            self._on_end(reason)

    async def _operate(self) -> None:
        self._stop_flag = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._stopped:
            return
        try:
            await kopf.operator(
                registry=self._registry(),
                settings=_settings(self._inactivity),
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop_flag,
            )
        finally:
            await self._sockets.end()

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()
        kopf.on.login(registry=registry)(self._log_in)
        kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)(self._on_event)
        return registry

    async def _log_in(self, **_: object) -> kopf.AiohttpSession:
        session = open_session(
            self._login, self._sockets, middlewares=(self._adjust,), response_class=_MetadataResponse
        )
        return kopf.AiohttpSession(server=self._login.server, aiohttp_session=session)

    async def _adjust(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Ask for metadata only, with the current token; the API server answers 406 to the wrong one of both kinds."""
        authorization = await self._login.authorization()
        if authorization:
            request.headers["Authorization"] = authorization.strip()
        request.headers["User-Agent"] = USER_AGENT
        stream = request.url.path.removeprefix(self._prefix)
        if stream not in self._names:
            return await _asked(request, handler)
        watch = "watch" in request.url.query
        kind = "PartialObjectMetadata" if watch else "PartialObjectMetadataList"
        request.headers["Accept"] = f"application/json;as={kind};g=meta.k8s.io;v=v1"
        if watch:
            for key in self._change_filter.end_list(self._names[stream]):
                self._on_key(key)
        elif "continue" not in request.url.query:
            self._change_filter.begin_list(self._names[stream])
        self._streams.asked(stream)
        response = await (_asked(request, handler) if watch else self._page(request, handler))
        self._streams.answered(stream, response.status, watch=watch)
        if response.status == 401:
            try:
                await asyncio.sleep(_REFUSED_SECONDS)
            except asyncio.CancelledError:
                response.close()
                raise
        return response

    async def _page(self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
        while True:
            request.url = request.url.update_query(limit=self._pages.limit)
            response = await _asked(request, handler)
            if response.status != 200 or not isinstance(response, _MetadataResponse):
                return response
            if await response.fits(self._pages):
                return response

    async def _on_event(
        self, *, event: kopf.RawEvent, body: kopf.Body, name: str, namespace: str | None, **_: object
    ) -> None:
        key = (namespace or "", name)
        if event["type"] == "DELETED":
            self._change_filter.gone(key)
        elif not self._change_filter.changed(key, fingerprint_of(body)):
            return
        self._on_key(key)


def _settings(inactivity_seconds: float) -> kopf.OperatorSettings:
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.process.ultimate_exiting_timeout = None
    # Storages over none: kopf's own keep a copy of the object in an annotation.
    settings.persistence.diffbase_storage = kopf.MultiDiffBaseStorage([])
    settings.persistence.progress_storage = kopf.MultiProgressStorage([])
    settings.watching.chunk_size = _PAGE
    settings.watching.reconnect_backoff = 2.0
    settings.watching.server_timeout = SERVER_TIMEOUT_SECONDS
    settings.watching.inactivity_timeout = inactivity_seconds
    # Each object of a list is held for so long after it was seen.
    settings.queueing.idle_timeout = 0.05
    settings.networking.connect_timeout = 10
    settings.networking.request_timeout = 60
    settings.networking.error_backoffs = Endless()
    return settings
