"""Brings the operator to the position where it is to be killed, and makes calls go wrong on their way.

Not for: killing it (`kills`), or saying where it was killed (`kills_positions`): that is read from facts afterwards.

Between the write of an intent and its call lies a millisecond, which random kills never hit. So an add call is held on
the wire before it arrives (intent), by the simulator before it decides (sent) or after it (accepted), and the write
of its answer on the wire before the API server has it, or after (record).
"""

import asyncio
import re
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from random import Random
from typing import Final

import httpx

from cce_simulator.faults import FaultRule
from cce_simulator.routes import named_servers
from chaos.kills_fleet import dice
from chaos.kills_wire import WireCall

MAX_CUTS: Final = 2
"""Calls of one server that are cut, lest a good server uses up its attempts."""
LONGEST_HOLD: Final = 2.0
LATEST_VISIBLE: Final = 8.0
"""Seconds; both together are less than `kills.SETTLE_SECONDS`, and longer than a new process takes to its first call:
one that did not wait would be found out."""
LOST: Final = "lost-answer"
"""Name of the fault of calls whose answer the operator does not get."""
_LATE: Final = 0.4
_LOST: Final = 0.15
_PAGE: Final = {"status": 504, "html": True}
_WAYS_TO_LOSE: Final[tuple[dict[str, object], ...]] = (
    {"when": "after", "drop": True},
    {"when": "after", "answer": _PAGE},
    {"when": "before", "answer": _PAGE},
)
_SUBMITTING: Final = b'"Submitting"'
_STATUS: Final = re.compile(r"/nodepoolmemberships/([^/?]+)/status(?:\?|$)")


class Position(StrEnum):
    """Where an add call was when the operator died."""

    INTENT = "intent"
    """Stored, and the call never arrived."""
    SENT = "sent"
    """With the cloud, which had not decided."""
    ACCEPTED = "accepted"
    """Decided, and the operator did not have the answer."""
    RECORD = "record"
    """The operator had the answer, and did not know it stored."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What one kill is to hit; `position` None: whatever there is. Times in seconds."""

    position: Position | None
    hold: float
    visible: float
    """SENT, ACCEPTED: from the cloud's decision until the nodes show."""
    pause: float
    """From the position to the kill."""
    stored: bool
    """RECORD: whether the API server has the write when the operator dies."""


def plans(seed: int, kills: int) -> list[Plan]:
    """A fifth of the kills for each position, the others at any time, in an order of the seed's."""
    random = dice(seed, "plans")
    positions: list[Position | None] = [p for p in Position for _ in range(kills // 5)]
    positions += [None] * (kills - len(positions))
    random.shuffle(positions)
    return [_plan(random, position) for position in positions]


def _plan(random: Random, position: Position | None) -> Plan:
    hold = random.uniform(LONGEST_HOLD / 2, LONGEST_HOLD)
    pause = random.uniform(0, 2.0) if position is None else random.uniform(0, LONGEST_HOLD / 4)
    visible = random.uniform(0.8 * LATEST_VISIBLE, LATEST_VISIBLE)
    return Plan(position, hold, visible, pause, random.choice((True, False)))


class Steering:
    """The gates of both proxies, and what they know. Gates run in the wire's thread, the rest in the caller's."""

    def __init__(self, seed: int, simulator_url: str, owners: Mapping[str, str]) -> None:
        self._seed = seed
        self._faults = f"{simulator_url}/_sim/faults"
        self._owners = owners
        self._armed: Plan | None = None
        self._held: Plan | None = None
        self._recording: str | None = None
        self._cuts: Counter[str] = Counter()
        self._calls: Counter[str] = Counter()
        self._under_way: dict[str, tuple[str, ...]] = {}
        self._calm = False
        self._hold_intent = False
        self._release: Callable[[], object] | None = None
        self.reached = threading.Event()
        """Set when the call that the plan is for is where the plan wants it."""
        self.taken: tuple[str, ...] = ()
        """The servers that this call names."""
        self.called: set[str] = set()
        """Servers that any call has named."""

    def arm(self, plan: Plan) -> None:
        """The next add call that may be cut is taken to the plan's position."""
        self.reached.clear()
        self._held, self._recording = None, None
        self.taken = ()
        self._armed = None if plan.position is None else plan

    def hold_intent(self) -> None:
        """The operator is not told that its next intent is stored until `release`: it will call when it is."""
        self.reached.clear()
        self._hold_intent = True

    def release(self) -> None:
        """Tell it. Nothing happens if none is held."""
        self._hold_intent = False
        if self._release is not None:
            self._release()
            self._release = None

    def calm(self) -> None:
        """From now on nothing is held and nothing goes wrong."""
        self._armed, self._held, self._recording, self._calm = None, None, None, True

    def under_way(self) -> dict[str, tuple[str, ...]]:
        """Per membership the servers of a call whose answer went to the operator, and whose record's answer did not.

        To be asked once, when the operator is dead.
        """
        found, self._under_way = self._under_way, {}
        return found

    async def before_add(self, servers: tuple[str, ...]) -> None:
        self.called.update(servers)
        self._calls[servers[0]] += 1
        may_cut = not self._calm and all(self._cuts[server] < MAX_CUTS for server in servers)
        plan = self._take(servers) if may_cut else None
        position = None if plan is None else plan.position
        if position is Position.INTENT:
            self._cuts.update(servers)
            self.reached.set()
            await _for_ever()
        fields = {} if self._calm else self._deviation(servers, may_be_lost=may_cut and plan is None)
        if plan is not None and position is Position.SENT:
            fields |= {"delaySeconds": plan.hold, "visibleAfterSeconds": plan.visible}
        elif plan is not None and position is Position.ACCEPTED:
            fields |= {"answerDelaySeconds": plan.hold, "visibleAfterSeconds": plan.visible}
        if plan is not None or "name" in fields:
            self._cuts.update(servers)
        if fields:
            rule = FaultRule.from_json(
                {"name": "held", "route": "addNodes", "serverID": servers[0], "times": 1} | fields
            )
            async with httpx.AsyncClient(trust_env=False) as http:
                (await http.post(self._faults, json=rule.to_json())).raise_for_status()
        if position in {Position.SENT, Position.ACCEPTED}:
            self.reached.set()

    async def after_add(self, servers: tuple[str, ...]) -> None:
        owner = self._owners[servers[0]]
        self._under_way[owner] = servers
        if self._held is not None and servers == self.taken:
            self._recording = owner

    async def before_write(self, name: str) -> None:
        """A write of this membership's status: after an answered call it is the record, the key is held until then."""
        if name == self._recording and self._held is not None and not self._held.stored:
            self.reached.set()
            await _for_ever()

    async def after_write(self, name: str, body: bytes) -> None:
        if self._hold_intent and _SUBMITTING in body:
            released = asyncio.Event()
            self._hold_intent = False
            self._release = partial(asyncio.get_running_loop().call_soon_threadsafe, released.set)
            self.reached.set()
            await released.wait()
        if name == self._recording:
            self.reached.set()
            await _for_ever()
        self._under_way.pop(name, None)

    def _take(self, servers: tuple[str, ...]) -> Plan | None:
        plan, self._armed = self._armed, None
        if plan is not None:
            self.taken = servers
            self._held = plan if plan.position is Position.RECORD else None
        return plan

    def _deviation(self, servers: tuple[str, ...], *, may_be_lost: bool) -> dict[str, object]:
        """What goes wrong with this call beside the plan, as fields of a FaultRule; the same for the same call."""
        random = dice(self._seed, servers[0], self._calls[servers[0]])
        late = random.uniform(0, LATEST_VISIBLE) if random.random() < _LATE else None
        found: dict[str, object] = {} if late is None else {"visibleAfterSeconds": late}
        way = random.random()
        if not may_be_lost or way >= _LOST:
            return found
        lost = _WAYS_TO_LOSE[int(way / _LOST * len(_WAYS_TO_LOSE))]
        return {**found, **lost, "name": LOST}


class CloudGate:
    """Between operator and cloud."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    async def before(self, call: WireCall) -> None:
        if servers := _added(call):
            await self._steering.before_add(servers)

    async def after(self, call: WireCall, status: int) -> None:  # noqa: ARG002 - any answer is one
        if servers := _added(call):
            await self._steering.after_add(servers)


class ApiGate:
    """Between operator and API server."""

    def __init__(self, steering: Steering) -> None:
        self._steering = steering

    async def before(self, call: WireCall) -> None:
        if name := _written(call):
            await self._steering.before_write(name)

    async def after(self, call: WireCall, status: int) -> None:
        if (name := _written(call)) and httpx.codes.is_success(status):
            await self._steering.after_write(name, call.body)


def _added(call: WireCall) -> tuple[str, ...]:
    return named_servers(call.body) if call.path.endswith("/nodes/add") else ()


def _written(call: WireCall) -> str | None:
    """The membership whose status the call writes."""
    found = _STATUS.search(call.path)
    return found[1] if found is not None and call.method == "PATCH" else None


async def _for_ever() -> None:
    await asyncio.Event().wait()
