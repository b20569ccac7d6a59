"""Where processes touch the world: every request to the cloud and to the API server is one numbered effect.

Not for: what the world answers. A `Hit` makes the process die, be told to stop, or lose an answer at one effect.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, TypeVar

import aiohttp
import httpx

from cce_simulator import Simulator
from cce_simulator.routes import find_route
from chaos.boundaries_api import TOKEN, Answer, MemoryApi, target_of
from nodepool_membership.api.membership import Json

T = TypeVar("T")

CALLS: Final = frozenset({"cloud addNodes", "cloud removeNodes"})
"""That change something."""
LATENCY_SECONDS: Final = 0.05
"""To the world, and again back: other tasks run meanwhile."""


class Crash(SystemExit):
    """The process is killed. asyncio raises it out of the loop at once, and `except Exception` does not catch it."""


class Side(StrEnum):
    """Whether the effect happened."""

    BEFORE = "before"
    AFTER = "after"


class Fate(StrEnum):
    """What happens at an effect."""

    CRASH = "crash"
    STOP = "stop"
    """SIGTERM: looks, calls and records under way are waited for."""
    CANCEL = "cancel"
    """SIGTERM, and the patience has run out: all that is under way is cancelled where it stands."""
    LOST = "lost answer"
    NOT_SENT = "no connection"


@dataclass(frozen=True, slots=True)
class Effect:
    """`number` counts over all processes of a run."""

    number: int
    what: str
    writes: bool
    cloud: bool

    @property
    def is_event(self) -> bool:
        """Whether an Event is written: never read by the operator, and nothing waits for it."""
        return self.what.endswith(" events")


@dataclass(frozen=True, slots=True)
class Hit:
    """One thing that goes wrong."""

    effect: Effect
    side: Side
    fate: Fate

    def __str__(self) -> str:
        return f"{self.fate} {self.side} effect {self.effect.number} ({self.effect.what})"


@dataclass
class Effects:
    """The effects of a run, made by one process after another."""

    hits: dict[int, Hit]
    done: list[Effect] = field(default_factory=list)
    process: int = 0
    """The number of the process that lives: what another one still tries is denied."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    patient: bool = True
    """Whether a process that is told to stop waits for what is under way."""
    struck: set[int] = field(default_factory=set)
    """The numbers of the effects that were hit."""
    astray: dict[int, Effect] = field(default_factory=dict)
    """What was done in place of the effect that was to be hit. Not an error where it is seen: the clients of the
    operator would take one for a lost answer, and recover."""

    @staticmethod
    def of(hits: Iterable[Hit]) -> "Effects":
        return Effects({hit.effect.number: hit for hit in hits})

    def begin(self) -> int:
        """A process starts; its number."""
        self.process += 1
        self.stopping = asyncio.Event()
        return self.process

    def end(self) -> None:
        """The process is no more."""
        self.process += 1

    async def make(
        self,
        process: int,
        what: str,
        act: Callable[[], Awaitable[T]],
        *,
        writes: bool,
        lost: Exception,
        unsent: Exception | None,
    ) -> T:
        """Have an effect, unless it is hit. `unsent` is for the cloud only.

        Raises:
            Crash: the process dies here, or is dead.
        """
        self._check(process)
        effect = Effect(len(self.done), what, writes, cloud=unsent is not None)
        self.done.append(effect)
        hit = self.hits.get(effect.number)
        if hit is not None and hit.effect != effect:
            self.astray[effect.number] = effect
            hit = None
        await asyncio.sleep(LATENCY_SECONDS)
        self._check(process)
        self._strike(hit, Side.BEFORE, lost, unsent)
        try:
            answer = await act()
        except Exception:
            # An answer that the scenario loses has an AFTER as well: the cloud may have accepted what was asked.
            self._strike(hit, Side.AFTER, lost, unsent)
            raise
        self._strike(hit, Side.AFTER, lost, unsent)
        await asyncio.sleep(LATENCY_SECONDS)
        self._check(process)
        return answer

    def missed(self) -> list[str]:
        """The hits that did not strike, and why: who survived these survived nothing."""
        missed = [hit for number, hit in self.hits.items() if number not in self.struck]
        return [f"did not strike: {hit}; {self._instead(hit)}" for hit in missed]

    def _instead(self, hit: Hit) -> str:
        number = hit.effect.number
        if number in self.astray:
            return f"a run that was repeated went another way: {self.astray[number]}"
        return f"of {len(self.done)} effects" if number >= len(self.done) else "the effect was given up before"

    def _check(self, process: int) -> None:
        if process != self.process:
            raise Crash

    def _strike(self, hit: Hit | None, side: Side, lost: Exception, unsent: Exception | None) -> None:
        if hit is None or hit.side is not side:
            return
        self.struck.add(hit.effect.number)
        match hit.fate:
            case Fate.CRASH:
                self.end()
                raise Crash
            case Fate.STOP | Fate.CANCEL:
                self.patient = hit.fate is Fate.STOP
                self.stopping.set()
            case Fate.LOST:
                raise lost
            case Fate.NOT_SENT:
                raise unsent or lost


class CloudWire(httpx.AsyncBaseTransport):
    """The way of one process to the simulator, without a socket."""

    def __init__(self, effects: Effects, process: int, simulator: Simulator) -> None:
        self._effects = effects
        self._process = process
        self._simulator = simulator

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        path = request.url.raw_path.decode()
        found = find_route(request.method, request.url.path)
        what = f"cloud {'unknown' if found is None else found[0].name}"

        trace = request.extensions.get("trace")

        async def act() -> httpx.Response:
            if trace is not None:
                # As httpcore tells it: the bytes leave now, if they still may.
                await trace("http11.send_request_headers.started", {})
            answered = await self._simulator.call(request.method, path, request.headers, body)
            if answered is None or answered.cut:
                raise httpx.RemoteProtocolError("the connection was closed")
            return httpx.Response(answered.status, headers=answered.headers, content=answered.body)

        return await self._effects.make(
            self._process,
            what,
            act,
            # That somebody asked for keys is remembered by nobody.
            writes=what in CALLS,
            lost=httpx.ReadTimeout("no answer"),
            unsent=httpx.ConnectError("no connection"),
        )


class KubeWire:
    """The way of one process to the API server: a client for `KubeApi`."""

    def __init__(self, effects: Effects, process: int, api: MemoryApi) -> None:
        self._effects = effects
        self._process = process
        self._api = api

    async def call_api(
        self,
        method: str,
        url: str,
        header_params: dict[str, str],
        body: Json,
        post_params: None,
        _request_timeout: aiohttp.ClientTimeout,
    ) -> Answer:
        target = target_of(url.partition("?")[0])
        verb = "LIST" if method == "GET" and target.name is None else method
        what = " ".join(filter(None, ("kube", verb, target.plural, target.subresource)))

        async def act() -> Answer:
            return await self._api.call_api(method, url, header_params, body, post_params, _request_timeout)

        return await self._effects.make(
            self._process,
            what,
            act,
            writes=method != "GET" and target.subresource != TOKEN,
            lost=TimeoutError(),
            unsent=None,
        )

    async def close(self) -> None:
        """Nothing is open."""
