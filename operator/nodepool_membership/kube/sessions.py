"""HTTP sessions to the API server, for our own requests and for the watch: proxy, certificates, and why one failed.

Not for: requests (`api`, `runtime.watch.watch`).
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import aiohttp
from kubernetes.aio.client.configuration import Configuration

from nodepool_membership.kube.sockets import Sockets
from nodepool_membership.net.causes import explain
from nodepool_membership.net.proxies import Proxy
from nodepool_membership.net.trust import FollowingContext, client_context

_PROXY_REMEDY: Final = (
    "check HTTPS_PROXY or the kubeconfig's proxy-url, or exclude the API server with NO_PROXY (in a pod by the address"
    " in KUBERNETES_SERVICE_HOST)"
)


_AUTHORIZATION: Final = "Proxy-Authorization"


@dataclass(frozen=True, slots=True)
class Login:
    """What an HTTP client needs to reach the API server under the operator's identity."""

    server: str
    ssl_context: ssl.SSLContext
    proxy: Proxy | None
    authorization: Callable[[], Awaitable[str | None]]
    """The current value of the Authorization header: the service account's token is read again every minute."""


def cluster_context(configuration: Configuration) -> ssl.SSLContext:
    """For the API server: the CA and the client certificate of the login, which may be renewed in their files.

    Raises:
        OSError, ssl.SSLError: they cannot be loaded.
    """

    def make() -> ssl.SSLContext:
        context = client_context(configuration.ssl_ca_cert, configuration.ca_cert_data)
        if configuration.cert_file:
            context.load_cert_chain(configuration.cert_file, configuration.key_file)
        if not configuration.verify_ssl:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context

    files = (configuration.ssl_ca_cert, configuration.cert_file, configuration.key_file)
    return FollowingContext(make, [Path(file) for file in files if file])


def open_session(
    login: Login,
    sockets: Sockets,
    *,
    limit: int = 100,
    middlewares: Sequence[aiohttp.ClientMiddlewareType] = (),
    response_class: type[aiohttp.ClientResponse] = aiohttp.ClientResponse,
) -> aiohttp.ClientSession:
    """A session of at most `limit` connections, to be closed before `sockets` is ended."""
    proxy = login.proxy

    async def log_in_at_the_proxy(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        if proxy is not None and (proxy.username or proxy.password):
            value = aiohttp.encode_basic_auth(proxy.username, proxy.password)
            if request.is_ssl():
                request.update_proxy(request.proxy, None, {**(request.proxy_headers or {}), _AUTHORIZATION: value})
            else:
                request.headers[_AUTHORIZATION] = value
        return await handler(request)

    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=limit, ssl=login.ssl_context, socket_factory=sockets.make),
        middlewares=(*middlewares, log_in_at_the_proxy),
        # Unpacking a large object costs both sides more than sending it does.
        headers={"Accept-Encoding": "identity"},
        response_class=response_class,
        proxy=None if proxy is None else proxy.url,
        # The environment is read in one place, `net.proxies`.
        trust_env=False,
    )


def why(error: BaseException) -> str:
    """Why there was no answer, in words. The library's own texts may hold a URL or a header, and are not used."""
    cause = explain(error, "cluster")
    match error:
        case aiohttp.ClientHttpProxyError():
            return f"the proxy answers {error.status} to CONNECT: {_PROXY_REMEDY}"
        case aiohttp.ClientProxyConnectionError():
            return f"the proxy cannot be reached ({cause or type(error).__name__}): {_PROXY_REMEDY}"
        case aiohttp.ClientResponseError():
            return f"what answers does not speak HTTP: check the server's address; {_PROXY_REMEDY}"
        case asyncio.TimeoutError():
            return "no answer in time"
        case _:
            return f"{type(error).__name__}: {cause}" if cause else type(error).__name__
