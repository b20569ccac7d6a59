"""Three clients (our requests to the API server, kopf's watch, the cloud) by every way out, with a real proxy process.

The targets are names of `.test`, which a proxy resolves, and 0.0.0.0 and ::, which lead to this machine and are no
loopback addresses: those never take a proxy.
"""

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol, Self

import pytest
import yaml
from aiohttp import web

from controlplane.ports import free_ports
from harness.certificates import Ca
from harness.forward_proxy import CLOSE, HANG, HTML, PLAIN, ForwardProxy
from nodepool_membership.api.names import GROUP, PLURAL, VERSION
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import Token
from nodepool_membership.cce.errors import CloudError, NotSentError
from nodepool_membership.cce.transport import make_http
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import UnansweredError
from nodepool_membership.net.proxies import proxies_from
from nodepool_membership.runtime.watch.watch import Watch
from scripted_cloud import CLUSTER, JOB, POOL, SERVERS

NAMES = ("127.0.0.1", "0.0.0.0", "::", "api.example.test", "localhost")  # noqa: S104 - what certificates are for
_GROUP = f"/apis/{GROUP}/{VERSION}"
_SERVED = {
    ("", "v1"): {"events": "Event", "namespaces": "Namespace"},
    ("apiextensions.k8s.io", "v1"): {"customresourcedefinitions": "CustomResourceDefinition"},
    (GROUP, VERSION): {PLURAL: "NodePoolMembership"},
}
"""What kopf wants to find, by group and version."""
_CLUSTERWIDE = ("Namespace", "CustomResourceDefinition")


class Server:
    """An API server and a cloud, as far as one request of each client goes, by TLS on every address of this host."""

    def __init__(self, ca: Ca) -> None:
        self._context = ca.server(NAMES).context()
        self.posts = 0
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), name="server")

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    async def _serve(self) -> None:
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        app = web.Application()
        app.router.add_get("/{of:apis?}", self._groups)
        app.router.add_get("/api/{version}", self._discovery)
        app.router.add_get("/apis/{group}/{version}", self._discovery)
        app.router.add_get(f"{_GROUP}/{PLURAL}", self._list)
        app.router.add_get("/api/v3/projects/p/jobs/{job}", self._job)
        app.router.add_post("/api/v3/{path:.*}", self._add)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await runner.setup()
        listening = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = listening.getsockname()[1]
        await web.SockSite(runner, listening, ssl_context=self._context).start()
        self._started.set()
        await self._end.wait()
        await runner.cleanup()

    async def _groups(self, request: web.Request) -> web.Response:
        if request.match_info["of"] == "api":
            return web.json_response({"versions": ["v1"]})
        versions = {
            group: {"groupVersion": f"{group}/{version}", "version": version} for group, version in _SERVED if group
        }
        groups = [{"name": name, "versions": [one], "preferredVersion": one} for name, one in versions.items()]
        return web.json_response({"groups": groups})

    async def _discovery(self, request: web.Request) -> web.Response:
        group, version = request.match_info.get("group", ""), request.match_info["version"]
        verbs = ["get", "list", "watch", "patch", "create"]
        served = [
            {"name": name, "singularName": "", "kind": kind, "namespaced": kind not in _CLUSTERWIDE, "verbs": verbs}
            for name, kind in _SERVED[group, version].items()
        ]
        return web.json_response({"groupVersion": f"{group}/{version}".lstrip("/"), "resources": served})

    async def _list(self, request: web.Request) -> web.StreamResponse:
        if "watch" not in request.query:
            return web.json_response({"metadata": {"resourceVersion": "1"}, "items": []})
        stream = web.StreamResponse(headers={"Content-Type": "application/json"})
        await stream.prepare(request)
        await self._end.wait()
        return stream

    async def _job(self, _: web.Request) -> web.Response:
        return web.json_response({"status": {"phase": "Running"}})

    async def _add(self, _: web.Request) -> web.Response:
        self.posts += 1
        return web.json_response({"jobid": JOB})


@dataclass(frozen=True)
class Place:
    """Where the server is, and who vouches for it."""

    server: Server
    ca: Ca
    directory: Path
    of_cluster: Mapping[str, str] = field(default_factory=dict)
    """What else the kubeconfig says of the cluster."""

    def kubeconfig(self, host: str, environment: Mapping[str, str]) -> Mapping[str, str]:
        """An environment with a login for the server by this name."""
        file = self.directory / "kubeconfig"
        cluster = {"server": f"https://{host}:{self.server.port}", "certificate-authority": str(self.ca.file)}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": {**cluster, **self.of_cluster}}],
            "users": [{"name": "u", "user": {"token": "token-of-the-login"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file.write_text(yaml.safe_dump(config))
        return {"KUBECONFIG": str(file), **environment}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("place")
    ca = Ca(directory, identifiers=False)
    with Server(ca) as server:
        yield Place(server, ca, directory)


@pytest.fixture(scope="module")
def running_proxy(place: Place) -> Iterator[ForwardProxy]:
    with ForwardProxy(place.directory, to=place.server.port) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: ForwardProxy) -> ForwardProxy:
    running_proxy.begin()
    return running_proxy


class ByClient(Protocol):
    """One request of a client to the server by this name; raises UnansweredError or CloudError."""

    async def __call__(self, place: Place, host: str, environment: Mapping[str, str]) -> None: ...


async def our_request(place: Place, host: str, environment: Mapping[str, str]) -> None:
    async with KubeApi.connect(environ=place.kubeconfig(host, environment)) as api:
        await api.request("test", "GET", _GROUP, timeout_seconds=2)


class _Served(KubeApi):
    """Asks nothing by itself: only kopf's requests are to be seen."""

    async def serves(self, group: str, version: str, plural: str) -> bool:
        del group, version, plural
        return True


@asynccontextmanager
async def _watching(place: Place, host: str, environment: Mapping[str, str]) -> AsyncIterator[Watch]:
    async with _Served.connect(environ=place.kubeconfig(host, environment)) as api:
        watch = Watch(api, lambda _: None)
        running = asyncio.create_task(watch.run())
        try:
            yield watch
        finally:
            watch.stop()
            await running


async def the_watch(place: Place, host: str, environment: Mapping[str, str]) -> None:
    said = _Said()
    logging.getLogger("kopf").addHandler(said)
    try:
        async with _watching(place, host, environment) as watch, asyncio.timeout(60):
            while watch.ready() is not None:
                await asyncio.sleep(0.01)
                if said.texts:
                    raise UnansweredError(said.texts[0])
    finally:
        logging.getLogger("kopf").removeHandler(said)


class _Said(logging.Handler):
    """What kopf says of a request that failed."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "kopf._core.reactor.running":
            self.texts.append(self.format(record))


@asynccontextmanager
async def _cloud(place: Place, host: str, environment: Mapping[str, str]) -> AsyncIterator[CloudClient]:
    endpoint = f"https://{host}:{place.server.port}"
    async with make_http(4, proxies_from(environment), place.ca.file) as http:
        yield CloudClient(http, endpoint, "p", Token("token"), now=lambda: datetime.now(UTC), timeout_seconds=4)


async def the_cloud(place: Place, host: str, environment: Mapping[str, str]) -> None:
    async with _cloud(place, host, environment) as cloud:
        await cloud.get_job(JOB)


CLIENTS = (our_request, the_watch, the_cloud)
every_client = pytest.mark.parametrize("client", CLIENTS, ids=[client.__name__ for client in CLIENTS])


def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every name of `.test` lead to this machine."""
    original = socket.getaddrinfo

    def resolve(host: str | bytes | None, *arguments: object, **named: object) -> object:
        name = host.decode() if isinstance(host, bytes) else host
        found = "127.0.0.1" if name is not None and name.endswith(".test") else host
        return original(found, *arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


@every_client
async def test_without_a_proxy(client: ByClient, place: Place) -> None:
    for host in ("127.0.0.1", "0.0.0.0", "[::]"):  # noqa: S104 - see above
        await client(place, host, {})


@every_client
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "api.example.test"])  # noqa: S104 - see above
async def test_through_the_proxy(client: ByClient, host: str, place: Place, proxy: ForwardProxy) -> None:
    await client(place, host, {"HTTPS_PROXY": proxy.url, "NO_PROXY": "10.0.0.0/8,.svc,fd00::/8"})
    assert set(proxy.requests) == {f"CONNECT {host}:{place.server.port}"}


@every_client
@pytest.mark.parametrize(
    ("host", "no_proxy"),
    [
        ("0.0.0.0", "0.0.0.0/8"),  # noqa: S104 - see above
        ("0.0.0.0", "10.0.0.0/8,0.0.0.0"),  # noqa: S104
        ("[::]", "10.0.0.0/8,::/120"),
        ("[::]", "[::]:PORT"),
        ("api.example.test", ".example.test"),
        ("api.example.test", "*.example.test"),
        ("api.example.test", "API.example.test:PORT"),
        ("api.example.test", "example.test"),
        ("api.example.test", "*"),
        ("127.0.0.1", ""),
        ("localhost", ""),
    ],
)
async def test_excluded(
    client: ByClient,
    host: str,
    no_proxy: str,
    place: Place,
    proxy: ForwardProxy,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    here(monkeypatch)
    excluded = no_proxy.replace("PORT", str(place.server.port))
    await client(place, host, {"https_proxy": proxy.url, "no_proxy": excluded})
    assert proxy.requests == []


@every_client
async def test_the_proxy_is_down(client: ByClient, place: Place) -> None:
    (port,) = free_ports(1)
    with pytest.raises((UnansweredError, NotSentError), match="connection refused"):
        await client(place, "api.example.test", {"HTTPS_PROXY": f"http://127.0.0.1:{port}"})


@every_client
@pytest.mark.parametrize("mode", ["403", "407", "502", "503", HTML, CLOSE, PLAIN])
async def test_the_proxy_refuses(client: ByClient, mode: str, place: Place, proxy: ForwardProxy) -> None:
    proxy.answer(mode)
    with pytest.raises((UnansweredError, NotSentError)) as raised:
        await client(place, "api.example.test", {"HTTPS_PROXY": proxy.url})
    text = str(raised.value)
    assert "secret-of-the-page" not in text
    if mode.isdecimal():
        assert mode in text
        assert "HTTPS_PROXY" in text


@every_client
@pytest.mark.parametrize("user", ["me:secret-word-9", "corp\\me:p@ss:w/rd-\u00e4\u4e2d", "me:"])
async def test_the_proxy_asks_for_a_password(
    client: ByClient, user: str, place: Place, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    name, _, password = user.partition(":")
    quoted = "".join(f"%{byte:02X}" for byte in name.encode()), "".join(f"%{byte:02X}" for byte in password.encode())
    with ForwardProxy(tmp_path, user=user, to=place.server.port) as proxy:
        given = proxy.url.replace("//", "//{}:{}@".format(*quoted))
        await client(place, "api.example.test", {"HTTPS_PROXY": given})
        with pytest.raises((UnansweredError, NotSentError), match="407") as raised:
            await client(place, "api.example.test", {"HTTPS_PROXY": proxy.url.replace("//", "//me:other-word-9@")})
    for word in filter(None, ("other-word-9", "bWU6b3RoZXItd29yZC05", password)):
        assert word not in str(raised.value)
        assert word not in caplog.text


@pytest.mark.parametrize("client", CLIENTS[:2], ids=[client.__name__ for client in CLIENTS[:2]])
async def test_a_proxy_of_the_kubeconfig_comes_first(client: ByClient, place: Place, proxy: ForwardProxy) -> None:
    environment = {"HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "*"}
    with_proxy = replace(place, of_cluster={"proxy-url": proxy.url})
    await client(with_proxy, "api.example.test", environment)
    assert set(proxy.requests) == {f"CONNECT api.example.test:{place.server.port}"}


@pytest.mark.parametrize("mode", ["503", "407", HTML, CLOSE, PLAIN, HANG])
async def test_a_call_that_a_proxy_keeps_was_not_sent_and_may_go_at_once(
    mode: str, place: Place, proxy: ForwardProxy
) -> None:
    before = place.server.posts
    proxy.answer(mode, times=1)
    async with _cloud(place, "api.example.test", {"HTTPS_PROXY": proxy.url}) as cloud:
        with pytest.raises(NotSentError):
            await cloud.add_nodes(CLUSTER, POOL, SERVERS[:1], signed_at=datetime.now(UTC))
        assert place.server.posts == before
        await cloud.add_nodes(CLUSTER, POOL, SERVERS[:1], signed_at=datetime.now(UTC))
    assert place.server.posts == before + 1


async def test_a_certificate_of_nobody_we_know_is_named_with_its_remedy(place: Place) -> None:
    endpoint = f"https://127.0.0.1:{place.server.port}"
    async with make_http(4) as http:
        cloud = CloudClient(http, endpoint, "p", Token("token"), now=lambda: datetime.now(UTC), timeout_seconds=4)
        with pytest.raises(CloudError, match=r"cannot be verified .*--ca-file"):
            await cloud.get_job(JOB)
    other = Ca(place.directory, "other")
    with pytest.raises(UnansweredError, match=r"cannot be verified .*ca\.crt of the service account"):
        await our_request(Place(place.server, other, place.directory), "127.0.0.1", {})
    with pytest.raises(UnansweredError, match=r"cannot be verified .*ca\.crt of the service account"):
        await the_watch(Place(place.server, other, place.directory), "127.0.0.1", {})
