"""The connections to the cloud: proxies, certificates, time-outs, and bodies unpacked and read with a bound.

Not for: what is asked or answered (`client`, `wire`).
"""

import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from http.cookiejar import CookieJar, DefaultCookiePolicy
from pathlib import Path
from typing import Final

import httpcore
import httpx

from nodepool_membership.net.proxies import DIRECT, Proxies, Proxy
from nodepool_membership.net.trust import cloud_context

MAX_ANSWER_BYTES: Final = 8 << 20
"""Of an answer, unpacked. A page of 2,000 nodes of 3 KB each is 6 MB."""
FEW_VALUES: Final = 20_000
"""In the JSON of one thing; a long one has some hundreds."""
_CONNECTIONS: Final = 20
"""To one service of one cloud."""
_LIMITS: Final = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
_GZIP: Final = 16 + zlib.MAX_WBITS
_PIECE: Final = 64 << 10
_PACKED: Final = frozenset({b"content-encoding", b"content-length"})

Trace = Callable[[str, dict[str, object]], Awaitable[None]]
"""httpcore's extension `trace`: told of every step of a request."""


def make_http(timeout_seconds: float, proxies: Proxies = DIRECT, ca_file: Path | None = None) -> httpx.AsyncClient:
    """The connections of the process to the cloud, to be closed.

    Raises:
        CaFileError: `ca_file` cannot be used.
    """
    return httpx.AsyncClient(
        transport=_Ways(proxies, ca_file),
        trust_env=False,
        # Shorter for making a connection than for the call as a whole: then a call that was not sent is known as such.
        timeout=httpx.Timeout(timeout_seconds, connect=timeout_seconds / 4, pool=timeout_seconds / 4),
        # The gateway's load balancer sets a cookie; it would travel from one membership's calls to another's.
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
        headers={"Accept-Encoding": "gzip"},
    )


class _Ways(httpx.AsyncBaseTransport):
    """Sends each request directly or through its proxy, and unpacks the answers."""

    def __init__(self, proxies: Proxies, ca_file: Path | None) -> None:
        self._proxies = proxies
        self._context = cloud_context(ca_file)
        self._ways: dict[tuple[Proxy | None, str, str, int | None], httpx.AsyncHTTPTransport] = {}
        """By proxy, scheme, host and port, of which there are no more than are allowed: a slow one fills its own."""

    def _way(self, proxy: Proxy | None, url: httpx.URL) -> httpx.AsyncHTTPTransport:
        key = (proxy, url.scheme, url.host, url.port)
        if key not in self._ways:
            self._ways[key] = self._by(proxy)
        return self._ways[key]

    def _by(self, proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
        if proxy is None:
            return httpx.AsyncHTTPTransport(verify=self._context, limits=_LIMITS, trust_env=False)
        auth = (proxy.username, proxy.password) if proxy.username or proxy.password else None
        way = httpx.Proxy(proxy.url, auth=auth, ssl_context=self._context if proxy.url.startswith("https") else None)
        return httpx.AsyncHTTPTransport(verify=self._context, limits=_LIMITS, trust_env=False, proxy=way)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        proxy = self._proxies.for_url(str(request.url))
        way = self._way(proxy, request.url)
        if proxy is not None and ":" in request.url.host:
            request.extensions["trace"] = _bracketed(request.extensions.get("trace"))
        return await _plain(await way.handle_async_request(request))

    async def aclose(self) -> None:
        for way in self._ways.values():
            await way.aclose()


def is_connect(info: dict[str, object]) -> bool:
    """Whether a trace tells of the request to a proxy for a tunnel, not of the one that is to go through it."""
    request = info.get("request")
    return isinstance(request, httpcore.Request) and request.method == b"CONNECT"


def _bracketed(inner: Trace | None) -> Trace:
    """Mend what httpcore 1.0 asks a proxy for: `CONNECT fd00::1:443`, where an address needs brackets."""

    async def trace(event: str, info: dict[str, object]) -> None:
        if inner is not None:
            await inner(event, info)
        request = info.get("request")
        if isinstance(request, httpcore.Request) and is_connect(info) and event.endswith(".started"):
            host, _, port = request.url.target.rpartition(b":")
            target = b"[%b]:%b" % (host.strip(b"[]"), port)
            request.url.target = target
            request.headers = [(name, target if name == b"Host" else value) for name, value in request.headers]

    return trace


class _Unpacked(httpx.AsyncByteStream):
    """A gzip body in pieces of at most 64 KiB, however much is packed into how little."""

    def __init__(self, packed: httpx.AsyncByteStream) -> None:
        self._packed = packed

    async def __aiter__(self) -> AsyncIterator[bytes]:
        unpack = zlib.decompressobj(_GZIP)
        async for chunk in self._packed:
            rest = chunk
            while rest:
                try:
                    piece = unpack.decompress(rest, _PIECE)
                except zlib.error:
                    raise httpx.ReadError("an answer whose gzip cannot be unpacked") from None
                if unpack.unused_data:
                    raise httpx.ReadError("an answer with something behind its gzip")
                rest = unpack.unconsumed_tail
                yield piece
        if not unpack.eof:
            raise httpx.ReadError("an answer whose gzip is cut off")

    async def aclose(self) -> None:
        await self._packed.aclose()


async def _plain(answer: httpx.Response) -> httpx.Response:
    """The answer unpacked, if it is packed in the one way that we ask for."""
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding in {"", "identity"}:
        return answer
    if encoding != "gzip" or not isinstance(answer.stream, httpx.AsyncByteStream):
        await answer.aclose()
        raise httpx.ReadError(f"an answer in the content encoding {encoding[:40]!a}: gzip or none is asked for")
    headers = [(name, value) for name, value in answer.headers.raw if name.lower() not in _PACKED]
    return httpx.Response(
        answer.status_code, headers=headers, stream=_Unpacked(answer.stream), extensions=answer.extensions
    )


def values_in(content: bytes) -> int:
    """How many values a JSON text has at most: how long reading it takes, and what it takes of memory, goes by them."""
    # An array or object counts, too: a million nested ones need no comma.
    return sum(map(content.count, (b",", b"[", b"{")))


async def read_bounded(answer: httpx.Response) -> bytes:
    """The body, of at most `MAX_ANSWER_BYTES`.

    Raises:
        httpx.ReadError: it is larger.
    """
    content = bytearray()
    async for chunk in answer.aiter_bytes():
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise httpx.ReadError(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
    return bytes(content)
