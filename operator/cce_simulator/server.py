"""The simulator as an HTTP server: `Simulator`.

Not for: the cloud's rules (world, api), credentials (auth) or the control API's calls (control, where they are listed).

A call passes: fault rule picked, `delaySeconds`, an answer or drop "before", authentication, throttling, the API,
the ledger, an answer or drop "after", `answerDelaySeconds`, and out. Injected answers "before" cost no write of the
write limit. An unknown path or a trailing slash is 404 APIGW.0101.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import parse_qsl, unquote

from aiohttp import web

from cce_simulator.api import CceApi
from cce_simulator.auth import Authenticator, SignedRequest, claimed_name
from cce_simulator.config import SimulatorConfig
from cce_simulator.control import PREFIX, Control
from cce_simulator.errors import ApiError
from cce_simulator.faults import HTML_PAGE, FaultRule, Faults, Target
from cce_simulator.iam import Iam
from cce_simulator.ledger import Entry, Ledger, Summary
from cce_simulator.limits import CallLimit
from cce_simulator.routes import Call, Reply, Route, find_route, named_servers
from cce_simulator.sts import Sts
from cce_simulator.world import AddEffects, World

MAX_BODY = 12 * 1024 * 1024

_log = logging.getLogger("cce_simulator")


@dataclass(frozen=True, slots=True)
class Answered:
    """What the caller of a call is sent; `cut`: the connection closes after half of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool = False


class Simulator:
    """A running CCE API: `async with Simulator(config) as simulator: ... simulator.url`.

    `clock` returns seconds since 1970; `sleep` is awaited for injected delays. With both replaced, time is virtual.
    A simulator that was not entered listens nowhere and answers `call`.
    """

    def __init__(
        self,
        config: SimulatorConfig | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.world = World(config or SimulatorConfig(), clock)
        self.faults = Faults(self.config.faults)
        self.ledger = Ledger(keep_reads=self.config.ledger_reads == "entries")
        self._clock = clock
        self._sleep = sleep
        self._host, self._port = host, port
        self._authenticator = Authenticator(self.config, self._cloud_time)
        self._writes = CallLimit("minute", clock)
        self._reads = CallLimit("second", clock)
        self._api = CceApi(self.world)
        self._iam = Iam(lambda: self.config, self._authenticator, self._cloud_time)
        self._sts = Sts(lambda: self.config, self._authenticator, self._cloud_time)
        self._control = Control(self.world, self.ledger, self.faults, self.configure)
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=MAX_BODY)
        app.router.add_route("*", "/{tail:.*}", self._handle)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        self._port = runner.addresses[0][1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`; the port is known once the server runs."""
        return f"http://{self._host}:{self._port}"

    @property
    def config(self) -> SimulatorConfig:
        """The configuration in force."""
        return self.world.config

    def summary(self) -> Summary:
        """Sums over the ledger."""
        return self.ledger.summary()

    def configure(self, patch: dict[str, object]) -> None:
        """Change live configuration fields (JSON names). Raises ConfigError, and then nothing is changed."""
        self.world.configure(self.config.changed(patch))
        self._authenticator.configure(self.config)
        self.ledger.keep_reads = self.config.ledger_reads == "entries"

    def _cloud_time(self) -> float:
        return self._clock() + self.config.clock_skew_seconds

    # One call

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path, _, query = request.raw_path.partition("?")
        pairs = dict(parse_qsl(query, keep_blank_values=True))
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            body = None
        if path.startswith(PREFIX):
            status, document = self._control.handle(request.method, path, pairs, body or b"")
            return web.json_response(document, status=status)
        answered = await self.call(request.method, request.raw_path, request.headers, body)
        if answered is None:
            _close(request)
            return web.Response()
        if not answered.cut:
            return web.Response(status=answered.status, body=answered.body, headers=answered.headers)
        response = web.StreamResponse(status=answered.status, headers=answered.headers)
        response.content_length = len(answered.body)
        await response.prepare(request)
        await response.write(answered.body[: len(answered.body) // 2])
        _close(request, at_once=False)
        return response

    async def call(self, method: str, raw_path: str, headers: Mapping[str, str], body: bytes | None) -> Answered | None:
        """Answer one call of the CCE API, without a socket; None: the connection is closed without an answer.

        `raw_path` is what a request line has: percent-encoded, with the query. `body` None: larger than `MAX_BODY`.
        """
        path, _, text = raw_path.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        lower = {name.lower(): value for name, value in headers.items()}
        signed = SignedRequest(method, path, text, lower, body or b"")
        seq, arrived = self.ledger.next_seq(), self._clock()
        request_id = hashlib.sha256(f"{self.config.seed}/{seq}".encode()).hexdigest()[:32]
        found = find_route(signed.method, unquote(signed.path))
        route, params = ("unknown", {}) if found is None else (found[0].name, found[1])
        named = named_servers(signed.body) if route == "addNodes" else ()
        rule = self.faults.pick(
            Target(
                signed.method,
                route,
                params.get("cluster_id", ""),
                params.get("nodepool_id", ""),
                claimed_name(signed.headers),
                frozenset(server.lower() for server in named),
            )
        )
        if rule is not None and rule.delay_seconds:
            await self._sleep(rule.delay_seconds)
        if rule is not None and rule.when == "before" and (rule.answer is not None or rule.drop):
            reply, served = _injected(rule, request_id), None
        else:
            call = None if found is None else _call(found[0], params, query, signed, rule)
            served = reply = self._served(call, signed, request_id, too_large=body is None)
            if rule is not None and (rule.answer is not None or rule.drop):
                reply = _injected(rule, request_id)
        self.ledger.record(
            Entry(
                seq=seq,
                time=arrived,
                method=signed.method,
                path=raw_path,
                route=route,
                access_key=claimed_name(signed.headers),
                status=0 if reply is None else reply.status,
                error_code=None if reply is None else reply.error_code,
                request_id=request_id,
                response_bytes=0 if reply is None else len(reply.body),
                server_ids=named,
                accepted=served.accepted if served else (),
                doubled=served.doubled if served else (),
                removed=served.removed if served else (),
                job_id=served.job_id if served else None,
                fault=None if rule is None else rule.name,
            )
        )
        if rule is not None and rule.answer_delay_seconds:
            await self._sleep(rule.answer_delay_seconds)
        return None if reply is None else self._answered(reply, request_id, rule)

    def _served(self, call: Call | None, signed: SignedRequest, request_id: str, *, too_large: bool) -> Reply:
        if too_large:
            return self._refusal(ApiError(413, "APIGW.0201", "Request entity too large"), request_id)
        if call is None:
            missing = ApiError(404, "APIGW.0101", "The API does not exist or has not been published")
            return self._refusal(missing, request_id)
        try:
            reply = self._let_in(call, signed)
        except ApiError as error:
            return self._refusal(error, request_id)
        if reply.refusal is None:
            return reply
        told = self._refusal(reply.refusal, request_id)
        return replace(reply, status=told.status, body=told.body, error_code=told.error_code)

    def _let_in(self, call: Call, signed: SignedRequest) -> Reply:
        if call.route.action is None:
            answer = self._sts.handle(call.route.name, signed)
            return self._iam.handle(call.route.name, signed) if answer is None else answer
        caller = self._authenticator.identify(signed)
        if signed.method == "GET":
            self._reads.count(caller.name, self.config.reads_per_second)
        else:
            self._writes.count(caller.name, self.config.writes_per_minute)
        return self._api.handle(call, caller)

    def _refusal(self, error: ApiError, request_id: str) -> Reply:
        body = error.body(self.config.behaviour.error_body, request_id)
        return Reply(error.status, body, error_code=error.code)

    def _answered(self, reply: Reply, request_id: str, rule: FaultRule | None) -> Answered:
        skew = 0.0 if rule is None else rule.date_skew_seconds
        headers = {
            "Date": formatdate(self._cloud_time() + skew, usegmt=True),
            "Server": "api-gateway",
            "Cache-Control": "no-store",
            "X-Request-Id": request_id,
            "Content-Type": reply.content_type,
            **reply.headers,
        }
        return Answered(reply.status, headers, reply.body, cut=rule is not None and rule.cut_body)


def _close(request: web.Request, *, at_once: bool = True) -> None:
    """Close the connection; not at once: when what was written is on its way."""
    if request.transport is None:
        _log.debug("the caller of %s has gone already", request.path)
    elif at_once:
        request.transport.abort()
    else:
        request.transport.close()


def _call(
    route: Route, params: Mapping[str, str], query: Mapping[str, str], signed: SignedRequest, rule: FaultRule | None
) -> Call:
    call = Call(route, params, query, signed.headers, signed.body, AddEffects())
    if rule is None:
        return call
    return replace(
        call,
        effects=AddEffects(
            job_phase=rule.job_phase,
            job_never_ends=rule.job_never_ends,
            job_seconds=rule.job_seconds,
            node_phase=rule.node_phase,
            visible_after=rule.visible_after_seconds,
        ),
        hide_servers=frozenset(server.lower() for server in rule.hide_servers),
        omit_next_marker=rule.omit_next_marker,
    )


def _injected(rule: FaultRule, request_id: str) -> Reply | None:
    """The rule's answer; None: the connection is closed."""
    answer = rule.answer
    if answer is None:
        return None
    if answer.error_code is not None:
        error = ApiError(answer.status, answer.error_code, answer.message)
        body = error.body("full", request_id)
        return Reply(answer.status, body, headers=answer.headers, error_code=answer.error_code)
    if answer.html:
        page = HTML_PAGE.format(status=answer.status).encode()
        return Reply(answer.status, page, "text/html", answer.headers)
    return Reply(answer.status, (answer.body or "").encode(), headers=answer.headers)
