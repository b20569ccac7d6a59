"""A call on its way to the cloud: in one step, or, where keys end and are renewed, as the operator's own code makes it.

Not for: what it does to servers (`physics`), or what its answer means (`core.decision.record`). Where keys end, time
may pass between the begin of a call and its leaving: for a renewal, or for a connection. All from the sender to the
signature is the operator's; the source of keys and the gateway are of this small world.
"""

import asyncio
import atexit
import json
import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

import httpx

from explore import physics
from explore.answers import refused_with, said
from explore.objects import EPOCH, moment, server_of
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation
from nodepool_membership.cce.budget import Budgets
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey, Credentials
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.snapshots import SnapshotKey
from nodepool_membership.core.decision.record import Answer, NotSent, too_late
from nodepool_membership.core.program import effects as fx
from nodepool_membership.runtime.cloud.clouds import Access
from nodepool_membership.runtime.reconcile.send import Sender

T = TypeVar("T")
Steps: TypeAlias = Mapping[type, Callable[[Any], Generator[Any, Any, Any]]]

LIFE: Final = 60
"""Seconds for which temporary keys are good: as long as a call may wait after its intent."""
MOST: Final = 60
"""Seconds after its intent in which a call may leave (rule P5)."""
KEY_FATES: Final = ("ended", "no keys")
"""The gateway does not know the keys any more, or nobody gives any."""

LOOP: Final = asyncio.new_event_loop()
atexit.register(LOOP.close)


class Moment(NamedTuple):
    """When something happens: by the cloud's clock, and by that of the process as far as it is off."""

    now: int
    skew: int
    leads: bool
    """The process has the lease."""


@dataclass(frozen=True, slots=True)
class Begin(fx.CloudEffect[Moment]):
    """A call begins: it is looked whether it may be made, and keys are asked for."""

    intent: Batch


@dataclass(frozen=True, slots=True)
class Leave(fx.CloudEffect[Answer]):
    """The same call goes on: its keys are there, and it leaves."""

    membership: Membership
    intent: Batch
    begun: Moment


class Came(NamedTuple):
    """What came of a call."""

    cloud: physics.Cloud
    answer: Answer
    keys_until: int = 0
    wrongs: tuple[str, ...] = ()


def in_two(call: fx.Call) -> Generator[Any, Any, Answer]:
    """A call as two effects."""
    begun = yield Begin(call.intent)
    answer: Answer = yield Leave(call.membership, call.intent, begun)
    return answer


def in_steps(program: Generator[Any, Any, T], steps: Steps) -> Generator[Any, Any, T]:
    """The same program, in which some effects are several."""
    answer: Any = None
    error: Exception | None = None
    while True:
        try:
            effect = program.send(answer) if error is None else program.throw(error)
        except StopIteration as end:
            ended: T = end.value
            return ended
        answer, error = None, None
        try:
            step = steps.get(type(effect))
            answer = (yield effect) if step is None else (yield from step(effect))
        except fx.StoreError as thrown:
            error = thrown


def made(cloud: physics.Cloud, call: fx.Call | Leave, fate: str, at: Moment, keys_until: int) -> Came:
    """Make a call; `keys_until` is how long temporary keys at hand are good."""
    if isinstance(call, Leave):
        return _with_keys(cloud, call, fate, at, keys_until)
    return _at_once(cloud, call.intent, fate, at)


def _at_once(cloud: physics.Cloud, intent: Batch, fate: str, at: Moment) -> Came:
    """Make a call with keys that do not end."""
    if intent.submit_time is None or (why := too_late(intent.submit_time, moment(at.now + at.skew))) is not None:
        return Came(cloud, NotSent(why or "the intent has no time", Reason.PROGRESSING))
    if not at.leads:
        return Came(cloud, NotSent("the operator lost its lease before the call was sent", Reason.PROGRESSING))
    cloud, told = _met(cloud, intent, fate, at.now, int((intent.submit_time - EPOCH).total_seconds()))
    return Came(cloud, said(told, intent))


def _met(
    cloud: physics.Cloud, intent: Batch, fate: str, now: int, signed: int, until: int = physics.NEVER
) -> tuple[physics.Cloud, physics.Answer]:
    servers = tuple(server_of(i) for i in intent.server_ids)
    if intent.operation is Operation.ADD:
        return physics.add(cloud, servers, now, signed, fate or "joins", until)
    return physics.remove(cloud, servers, tuple(intent.node_ids), now, signed, fate or "goes", until)


def _with_keys(cloud: physics.Cloud, call: Leave, fate: str, at: Moment, keys_until: int) -> Came:
    """Make a call that began before, with the keys that it found then, or with new ones."""
    way = _Way(cloud, call.intent, fate, call.begun, at, keys_until)
    pool = call.membership.spec.node_pool
    sender = Sender(now=way.now, monotonic=lambda: float(way.at.now), may_call=lambda: way.at.leads)

    async def sent() -> Answer:
        async with httpx.AsyncClient(transport=way, trust_env=False) as http:
            client = CloudClient(http, "https://cce", pool.project_id, way, now=way.now, timeout_seconds=60)
            key = SnapshotKey("https://cce", pool.project_id, pool.cluster_id, way.fingerprint)
            budgets = Budgets(600, random=lambda: 0.0, clock=lambda: 0.0)
            return await sender.call(call.membership, call.intent, Access(client, key, way, budgets))

    with silence():
        answer = LOOP.run_until_complete(sent())
    return Came(way.cloud, answer, way.keys_until, tuple(way.wrongs))


class _Way(httpx.AsyncBaseTransport):
    """What one call finds on its way: a source of keys (`credentials.Source`), then the gateway."""

    identity = fingerprint = "a source"

    def __init__(
        self, cloud: physics.Cloud, intent: Batch, fate: str, begun: Moment, leaves: Moment, keys_until: int
    ) -> None:
        self.cloud = cloud
        self.keys_until = keys_until
        self.at = begun
        self.wrongs: list[str] = []
        self._intent = intent
        self._fate = fate
        self._leaves = leaves
        self._times = 0

    def now(self) -> datetime:
        """By the clock of the process."""
        return moment(self.at.now + self.at.skew)

    async def current(self) -> AccessKey:
        """Keys that are good at the begin of the call, or new ones: time passes before it leaves in either case."""
        good = self.keys_until > self.at.now
        self.at = self._leaves
        if not good:
            self._renew()
        return self._key()

    async def renewed(self, _refused: Credentials) -> bool:
        self._renew()
        return True

    def _renew(self) -> None:
        if self._fate == "no keys":
            raise IdentityError("IAM is away", reason=Reason.CLOUD_UNREACHABLE)
        self.keys_until = self.at.now + LIFE

    def _key(self) -> AccessKey:
        return AccessKey(f"KEY-{self.keys_until}", "secret-key", "security-token")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        trace = request.extensions["trace"]
        await trace("connection.connect_tcp.started", {})
        if self._fate == "unsent":
            raise httpx.ConnectError("no connection was made")
        await trace("http11.send_request_headers.started", {})
        signed = datetime.strptime(request.headers["X-Sdk-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        self._left(signed)
        now, seconds = self.at.now, int((signed - EPOCH).total_seconds())
        if abs(now - seconds) > physics.SIGNATURE:
            return _unauthenticated("signature expired")
        known = f"Access=KEY-{self.keys_until}," in request.headers["Authorization"] and now < self.keys_until
        if not known or (self._fate == "ended" and self._times == 1):
            return _unauthenticated("decrypt token fail")
        fate = "" if self._fate in KEY_FATES else self._fate
        self.cloud, told = _met(self.cloud, self._intent, fate, now, seconds, self.keys_until)
        return _response(told, self._intent)

    def _left(self, signed: datetime) -> None:
        """Tell what is wrong with a request whose bytes leave now."""
        self._times += 1
        stored = self._intent.submit_time
        if self._times > 1:
            self.wrongs.append("a call is sent twice")
        if signed != stored:
            self.wrongs.append("a call is signed with another time than its intent's")
        if stored is None or abs((self.now() - stored).total_seconds()) > MOST:
            self.wrongs.append(f"a call leaves more than {MOST} s after its intent")
        if not self.at.leads:
            self.wrongs.append("a call leaves although another process has the lease")


def _unauthenticated(text: str) -> httpx.Response:
    message = f"Incorrect IAM authentication information: {text}"
    return httpx.Response(401, json={"error_code": "APIGW.0301", "error_msg": message})


def _response(told: physics.Answer, intent: Batch) -> httpx.Response:
    match told.kind:
        case "accepted":
            return httpx.Response(200, json={"jobid": told.job})
        case "unknown":
            return httpx.Response(504, text="the gateway has no patience")
    status, code, text = refused_with(told, intent)
    return httpx.Response(status, content=json.dumps({"errorCode": code, "errorMessage": text}).encode())


@contextmanager
def silence() -> Iterator[None]:
    """What is logged of so many calls is read by nobody."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)
