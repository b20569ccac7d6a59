"""The short form of the kills, and what their report, their classification and their wire are worth.

Not for: the long form (`make chaos`).
"""

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import httpx
import pytest

from cce_simulator import Simulator
from chaos.kills import run
from chaos.kills_positions import Death, OpenCall, open_calls, positions
from chaos.kills_report import KillReport
from chaos.kills_steering import Position, plans
from chaos.kills_wire import Wire, WireCall
from harness import Object
from harness.certificates import Ca
from harness.programs import wait_for
from simulator_calls import ADD, TOKEN, config, servers

IDS: Final = tuple(servers(2))
GOOD: Final = KillReport(
    seed=7,
    kills=20,
    by_position=dict.fromkeys(Position, 4),
    elsewhere=4,
    freezes=0,
    api_restarts=1,
    memberships=3,
    servers=20,
    bad_servers=2,
    add_calls=30,
    accepted_adds=20,
    lost_answers=2,
    double_adds=0,
    repeated=(),
    lost=(),
    unreported=(),
    removals=0,
    unsettled={},
    seconds=60,
)


# Longer than the control plane, the kills and the wait for all to converge may take together: what runs out first has
# to be that wait, which tells in the report what did not converge.
@pytest.mark.timeout(900)
@pytest.mark.cluster
def test_killed_at_every_position_every_server_joins_once() -> None:
    report = run(seed=1, kills=20, say=print)
    print("\n".join(report.lines()))
    report.check()


def test_a_report_that_keeps_all_promises_passes() -> None:
    GOOD.check()
    assert "kills survived       20 (SEED=7, 60 s)" in GOOD.lines()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        (replace(GOOD, double_adds=1), "1 double adds"),
        (replace(GOOD, repeated=IDS), f"added more than once: {IDS[0]}"),
        (replace(GOOD, lost=IDS), f"lost, they did not join: {IDS[0]}, {IDS[1]}"),
        (replace(GOOD, unreported=IDS), "bad and not reported"),
        (replace(GOOD, removals=1), "1 removals that nobody asked for"),
        (replace(GOOD, unsettled={"m-1": "the finalizer is left"}), "m-1 did not converge: the finalizer is left"),
        (replace(GOOD, by_position={**GOOD.by_position, Position.INTENT: 1}), "only 1 kills hit position intent"),
    ],
)
def test_a_broken_promise_fails_the_report(broken: KillReport, says: str) -> None:
    with pytest.raises(AssertionError, match="SEED=7") as caught:
        broken.check()
    assert says in str(caught.value)


def add(seq: int, time: float, named: tuple[str, ...] = IDS) -> Object:
    return {"seq": seq, "time": time, "server_ids": list(named)}


CALL: Final = OpenCall("m", 1, IDS, submitted=100.0)
DEATH: Final = Death(102.0, (CALL,), frozenset(), {})


@pytest.mark.parametrize(
    ("death", "adds", "found"),
    [
        (DEATH, [], {Position.INTENT}),
        (DEATH, [add(1, 99.0), add(2, 102.5), add(3, 101.0, IDS[:1])], {Position.INTENT}),
        (DEATH, [add(1, 101.0)], {Position.SENT}),
        (replace(DEATH, decided=frozenset({1})), [add(1, 101.0)], {Position.ACCEPTED}),
        (replace(DEATH, decided=frozenset({1})), [add(1, 99.0), add(2, 101.0)], {Position.SENT}),
        (replace(DEATH, decided=frozenset({1}), records={"m": IDS}), [add(1, 101.0)], {Position.RECORD}),
        (replace(DEATH, open_calls=(), records={"m": IDS}), [add(1, 101.0)], {Position.RECORD}),
        (replace(DEATH, open_calls=()), [add(1, 101.0)], set()),
        (replace(DEATH, records={"other": IDS[:1]}), [], {Position.INTENT, Position.RECORD}),
    ],
)
def test_the_position_of_a_kill_follows_from_what_was_found(
    death: Death, adds: list[Object], found: set[Position]
) -> None:
    assert positions(death, adds) == found


def test_open_calls_are_the_intents_without_an_answer() -> None:
    job = {"batch": 3, "serverIDs": list(IDS), "submitTime": "1970-01-01T00:01:40Z"}
    phases = ("Submitting", "Running", "Queued", "Verifying")
    stored: Object = {"metadata": {"name": "m"}, "status": {"jobs": [{**job, "phase": phase} for phase in phases]}}
    assert open_calls([stored]) == [OpenCall("m", 3, IDS, 100.0)]


def test_plans_follow_from_the_seed_and_aim_at_every_position() -> None:
    assert plans(1, 200) == plans(1, 200) != plans(2, 200)
    aims = [plan.position for plan in plans(1, 200)]
    assert {position: aims.count(position) for position in {*Position, None}} == dict.fromkeys((*Position, None), 40)


class Gate:
    """Lets through, until told to hold; tells of what was held and given up."""

    def __init__(self, hold: str = "") -> None:
        self.hold = hold
        self.held: list[str] = []
        self.given_up: list[str] = []

    async def before(self, call: WireCall) -> None:  # noqa: ARG002 - Gate
        await self._pass("before")

    async def after(self, call: WireCall, status: int) -> None:  # noqa: ARG002 - Gate
        await self._pass("after")

    async def _pass(self, when: str) -> None:
        if when != self.hold:
            return
        self.held.append(when)
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up.append(when)


@pytest.fixture
async def cloud() -> AsyncIterator[Simulator]:
    async with Simulator(config()) as simulator:
        yield simulator


async def call(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as http:
        nodes = [{"serverID": server} for server in IDS]
        body = {"apiVersion": "v3", "kind": "List", "nodeList": nodes}
        return await http.post(url + ADD, json=body, headers={"X-Auth-Token": TOKEN})


async def test_the_wire_passes_calls_on_as_they_are(cloud: Simulator) -> None:
    with Wire() as wire:
        answer = await call(wire.proxy(cloud.url, Gate()))
    assert (answer.status_code, bool(answer.json()["jobid"])) == (200, True)
    assert [entry.accepted for entry in cloud.ledger.adds()] == [IDS]
    assert wire.failures == []


@pytest.mark.parametrize(("held", "arrived"), [("before", 0), ("after", 1)])
async def test_what_is_held_when_the_caller_dies_goes_no_further(cloud: Simulator, held: str, arrived: int) -> None:
    gate = Gate(held)
    with Wire() as wire:
        task = asyncio.create_task(call(wire.proxy(cloud.url, gate)))
        await asyncio.to_thread(wait_for, "the call is held", lambda: gate.held or None)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_for, "the call is given up", lambda: gate.given_up or None)
    assert len(cloud.ledger.adds()) == arrived
    assert wire.failures == []


async def test_a_server_that_does_not_answer_looks_so_through_the_wire() -> None:
    # Bound until the end: nobody else can listen there meanwhile.
    with socket.socket() as deaf, Wire() as wire:
        deaf.bind(("127.0.0.1", 0))
        proxied = wire.proxy(f"http://127.0.0.1:{deaf.getsockname()[1]}", Gate())
        with pytest.raises(httpx.RemoteProtocolError):
            await call(proxied)
    assert wire.failures == []


def test_the_wire_leaves_no_connection_behind_that_its_server_does_not_end(tmp_path: Path) -> None:
    ca = Ca(tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        mute = pool.submit(_answer_once_and_never_say_goodbye, listener, ca.server().context())
        with Wire() as wire:
            trusting = ssl.create_default_context(cadata=ca.pem)
            url = wire.proxy(f"https://127.0.0.1:{listener.getsockname()[1]}", Gate(), trusting)
            assert httpx.get(url, trust_env=False).status_code == 200
        # The other side sees the end of it now, while nobody has freed anything; else it times out.
        mute.result(30)
    assert wire.failures == []


def _answer_once_and_never_say_goodbye(listener: socket.socket, context: ssl.SSLContext) -> None:
    """Past TLS it waits for the end of the connection. Raises TimeoutError."""
    plain, _ = listener.accept()
    with context.wrap_socket(plain, server_side=True, suppress_ragged_eofs=False) as encrypted:
        encrypted.recv(65536)
        encrypted.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        raw = socket.socket(fileno=os.dup(encrypted.fileno()))
    with raw:
        raw.settimeout(10)
        with suppress(ConnectionResetError):
            while raw.recv(65536):
                pass
