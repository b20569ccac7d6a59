"""One connection to the API server: login, raw requests, bytes out, errors that say what the caller may do.

Not for: which object is read or written (`memberships`, `secrets`, `events`). Nothing here retries, and nothing logs
a request, an answer or a header.
"""

import json
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic
from typing import Final, Protocol
from urllib.parse import quote, urlencode

import aiohttp
from kubernetes.aio.client.api_client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME, InClusterConfigLoader
from kubernetes.aio.config.kube_config import load_kube_config

from nodepool_membership import __version__, redaction
from nodepool_membership.api.membership import Json
from nodepool_membership.kube.errors import GoneError, KubeError, UnansweredError, error_for
from nodepool_membership.kube.pages import Arriving, read_at_most
from nodepool_membership.kube.sessions import Login, cluster_context, open_session, why
from nodepool_membership.kube.sockets import Sockets
from nodepool_membership.net.proxies import Proxy, ProxyError, parse_proxy, proxies_from

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
METADATA_ONLY: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
METADATA_ONLY_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
JSON_PATCH: Final = "application/json-patch+json"
USER_AGENT: Final = f"nodepool-membership/{__version__}"
TIMEOUT_SECONDS: Final = 30.0

Observer = Callable[[str, str, float], None]
"""Told after every request: its kind, its outcome ("ok" or the error's name without "Error") and its seconds."""


CONNECTIONS: Final = 6
"""To the API server. Each holds about a quarter of a MiB of TLS buffers; requests take milliseconds."""


class NoClusterError(Exception):
    """There is no usable login for a cluster. The text names the remedy."""


class Response(Protocol):
    """An answer whose body may not have arrived."""

    status: int

    @property
    def response(self) -> Arriving: ...

    async def read(self) -> bytes: ...


class Client(Protocol):
    """What we use of the generated client, whose own annotations are partial."""

    async def call_api(
        self,
        method: str,
        url: str,
        header_params: dict[str, str],
        body: Json,
        post_params: None,
        _request_timeout: aiohttp.ClientTimeout,
    ) -> Response: ...

    async def close(self) -> None: ...


def path(prefix: str, *segments: str) -> str:
    """A request path; segments are quoted."""
    return "/".join([prefix, *(quote(segment, safe="") for segment in segments)])


class _Loader(Protocol):
    def load_and_set(self, client_configuration: Configuration) -> None: ...


_in_cluster: Callable[[str, str, bool, Mapping[str, str]], _Loader] = InClusterConfigLoader
_from_kubeconfig: Callable[[str, str | None, Configuration, bool], Awaitable[object]] = load_kube_config


async def _configure(service_account: Path, environ: Mapping[str, str], context: str | None) -> Configuration:
    """Find the cluster the way client-go does: $KUBECONFIG, the service account, then the default kubeconfig."""
    configuration = Configuration()
    kubeconfig = environ.get("KUBECONFIG")
    default = Path(environ.get("HOME", "/")) / ".kube" / "config"
    try:
        if not kubeconfig and not context and environ.get(SERVICE_HOST_ENV_NAME):
            token, ca = str(service_account / "token"), str(service_account / "ca.crt")
            _in_cluster(token, ca, True, environ).load_and_set(configuration)  # noqa: FBT003 - refreshed: the loader takes it by position only
        elif kubeconfig or default.is_file():
            await _from_kubeconfig(kubeconfig or str(default), context, configuration, False)  # noqa: FBT003 - refreshed: the loader takes it by position only
        else:
            raise NoClusterError("no cluster: set KUBECONFIG, or run in a pod with a service account")
    except (ConfigException, OSError, ValueError) as error:
        raise NoClusterError(f"no login for the cluster: {error}") from None
    if configuration.tls_server_name:
        raise NoClusterError(
            "tls-server-name in the kubeconfig is not supported: use a server name that is in the certificate"
        )
    return configuration


def _proxy(configuration: Configuration, environ: Mapping[str, str]) -> Proxy | None:
    """The kubeconfig's own proxy, else the environment's, as for kubectl."""
    try:
        if configuration.proxy:
            return parse_proxy("the kubeconfig's proxy-url", configuration.proxy)
        return proxies_from(environ).for_url(configuration.host)
    except ProxyError as error:
        raise NoClusterError(str(error)) from None


def _ignore(_kind: str, _outcome: str, _seconds: float) -> None:
    return None


async def _read(response: Response, max_bytes: int | None) -> bytes:
    try:
        return await response.read() if max_bytes is None else await read_at_most(response.response, max_bytes)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise UnansweredError(why(error)) from None


class KubeApi:
    """Requests to one API server. Use `KubeApi.connect()`."""

    def __init__(self, client: Client, login: Login, observer: Observer = _ignore) -> None:
        self._client = client
        self._login = login
        self._observer = observer

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        *,
        observer: Observer = _ignore,
        service_account: Path = SERVICE_ACCOUNT,
        environ: Mapping[str, str] = os.environ,
        context: str | None = None,
    ) -> "AsyncIterator[KubeApi]":
        """Log in with $KUBECONFIG, else the service account in `service_account`, else ~/.kube/config.

        `context` is one of the kubeconfig's; None: its current one.

        Raises:
            NoClusterError: none of them is there, or it cannot be used.
        """
        configuration = await _configure(service_account, environ, context)
        proxy = _proxy(configuration, environ)
        configuration.proxy = None
        try:
            generated = ApiClient(configuration)
            trust = cluster_context(configuration)
        except (OSError, ssl.SSLError) as error:
            raise NoClusterError(f"the cluster's certificates cannot be loaded: {error}") from None
        login = Login(
            server=configuration.host,
            ssl_context=trust,
            proxy=proxy,
            authorization=lambda: configuration.get_api_key_with_prefix("BearerToken"),
        )
        sockets = Sockets()
        generated.rest_client.pool_manager = open_session(login, sockets, limit=CONNECTIONS)
        client: Client = generated
        try:
            yield cls(client, login, observer)
        finally:
            await client.close()
            await sockets.end()

    @property
    def login(self) -> Login:
        return self._login

    async def request(  # noqa: PLR0913 - the parts of a request, by name
        self,
        kind: str,
        method: str,
        resource: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Json = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout_seconds: float = TIMEOUT_SECONDS,
        max_bytes: int | None = None,
    ) -> bytes:
        """Send one request and return the answer's body.

        Args:
            kind: what is read or written, for the metrics: status, finalizer, event, lease, membership, secret,
                token, review, discovery, namespace, definition.
            resource: the path, as made by `path`.
            max_bytes: of the answer's body; None: as many as there are.

        Raises:
            TooLargeError: the body has more.
            StaleError, GoneError, RejectedError, KubeForbiddenError, UnansweredError: see `kube.errors`.
        """
        started = monotonic()
        outcome = "Cancelled"
        try:
            response = await self._send(method, resource, query, body, content_type, accept, timeout_seconds)
            status, answer = response.status, await _read(response, max_bytes)
            if status >= 400:
                raise error_for(status, answer)
            if not answer.startswith(b"{"):
                raise UnansweredError(f"{status} without a JSON object, as a proxy answers that is not the API server")
            outcome = "ok"
        except KubeError as error:
            outcome = error.outcome()
            raise
        finally:
            self._observer(kind, outcome, monotonic() - started)
        return answer

    async def _send(  # noqa: PLR0913 - the parts of a request, by name
        self,
        method: str,
        resource: str,
        query: Mapping[str, str] | None,
        body: Json,
        content_type: str,
        accept: str,
        timeout_seconds: float,
    ) -> Response:
        headers = {
            "Accept": accept,
            "Content-Type": content_type,
            "User-Agent": USER_AGENT,
        }
        url = self._login.server + resource + (f"?{urlencode(query)}" if query else "")
        try:
            authorization = await self._login.authorization()
            if authorization:
                redaction.register_token(authorization.strip().rpartition(" ")[2])
                headers["Authorization"] = authorization.strip()
            timeout = aiohttp.ClientTimeout(total=timeout_seconds)
            return await self._client.call_api(method, url, headers, body, None, timeout)
        except (aiohttp.ClientError, TimeoutError, OSError, ConfigException) as error:
            raise UnansweredError(why(error)) from None

    async def serves(self, group: str, version: str, plural: str) -> bool:
        """Whether the API server knows the resource type now.

        Raises:
            KubeForbiddenError, UnansweredError, RejectedError: discovery itself failed.
        """
        try:
            answer = await self.request("discovery", "GET", path("/apis", group, version))
        except GoneError:
            return False
        listing = json.loads(answer)
        return any(resource.get("name") == plural for resource in listing.get("resources") or ())
