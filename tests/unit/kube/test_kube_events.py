"""Events: repeats are counted, the rate is bounded, failures block nothing. The API server is a stand-in."""

import asyncio
import logging
from datetime import UTC, datetime

import pytest

from nodepool_membership.api.membership import Metadata
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import GoneError, KubeError, UnansweredError
from nodepool_membership.kube.events import Events

NOW = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def about(name: str = "pool", namespace: str = "ns") -> Metadata:
    return Metadata(name, namespace, f"uid-{name}", "1", 1, NOW)


class Server(KubeApi):
    """Notes what is posted and patched, and answers as told."""

    def __init__(self) -> None:
        self.posted: list[dict[str, object]] = []
        self.patched: list[dict[str, object]] = []
        self.refuse: list[KubeError] = []
        self.gate: asyncio.Event | None = None

    async def request(self, kind: str, method: str, resource: str, **rest: object) -> bytes:
        assert kind == "event"
        assert resource.startswith(("/api/v1/namespaces/ns/events", "/api/v1/namespaces/flood/events"))
        if self.gate is not None:
            await self.gate.wait()
        if self.refuse:
            raise self.refuse.pop(0)
        body = rest["body"]
        assert isinstance(body, dict)
        (self.posted if method == "POST" else self.patched).append(body)
        return b"{}"


def post(events: Events, note: str = "batch 1", reason: str = "BatchSubmitted", name: str = "pool") -> None:
    events.post(about(name), reason, "Normal", "Submit", note)


def a_table(value: object) -> dict[str, object]:
    assert isinstance(value, dict)
    return value


async def settled(events: Events) -> None:
    async with asyncio.timeout(5):
        await events._idle.wait()


async def test_an_event_says_all_that_kubernetes_wants() -> None:
    server = Server()
    async with Events(server, instance="pod-1", now=lambda: NOW) as events:
        post(events)
    [event] = server.posted
    metadata = event.pop("metadata")
    assert isinstance(metadata, dict)
    assert metadata["namespace"] == "ns"
    assert metadata["name"].startswith("pool.")
    assert event == {
        "apiVersion": "v1",
        "kind": "Event",
        "eventTime": "2026-01-02T03:04:05.000678Z",
        "firstTimestamp": "2026-01-02T03:04:05Z",
        "lastTimestamp": "2026-01-02T03:04:05Z",
        "count": 1,
        "source": {"component": "nodepool-membership-operator"},
        "reportingComponent": "cce.nodepools.dev/nodepool-membership-operator",
        "reportingInstance": "pod-1",
        "type": "Normal",
        "reason": "BatchSubmitted",
        "action": "Submit",
        "message": "batch 1",
        "involvedObject": {
            "apiVersion": "cce.nodepools.dev/v1alpha1",
            "kind": "NodePoolMembership",
            "namespace": "ns",
            "name": "pool",
            "uid": "uid-pool",
        },
    }


async def test_names_are_in_the_order_of_what_happened_in_the_same_second() -> None:
    """`kubectl describe` sorts by seconds, and what is equal by name."""
    server = Server()
    moments = [*[NOW] * 8, NOW.replace(microsecond=5_000), NOW.replace(microsecond=999_999), NOW.replace(second=6)]
    async with Events(server, instance="pod-1", now=iter(moments).__next__) as events:
        for number in range(len(moments)):
            post(events, f"batch {number}")
        await settled(events)
    named = {str(table["name"]): event["message"] for event in server.posted if (table := a_table(event["metadata"]))}
    assert [named[name] for name in sorted(named)] == [f"batch {number}" for number in range(len(moments))]


async def test_repeats_are_counted_in_one_event() -> None:
    server = Server()
    async with Events(server, instance="x") as events:
        post(events)
        await settled(events)
        for _ in range(5):
            post(events)
        post(events, note="batch 2")
        post(events, name="other")
    assert len(server.posted) == 3
    [patch] = server.patched
    assert patch["count"] == 6
    assert str(patch["lastTimestamp"]) >= str(server.posted[0]["firstTimestamp"])


async def test_a_forgotten_event_is_made_again() -> None:
    server = Server()
    async with Events(server, instance="x") as events:
        post(events)
        await settled(events)
        server.refuse.append(GoneError("404"))
        post(events)
    assert len(server.posted) == 2
    assert server.posted[1]["count"] == 1


async def test_long_after_it_is_another_event() -> None:
    server, now = Server(), 0.0
    async with Events(server, instance="x", clock=lambda: now) as events:
        post(events)
        await settled(events)
        now = 3001.0
        post(events)
    assert len(server.posted) == 2


async def test_notes_fit_and_stay_readable() -> None:
    server = Server()
    async with Events(server, instance="x") as events:
        post(events, note="ü" * 600)
    note = server.posted[0]["message"]
    assert isinstance(note, str)
    assert 1000 < len(note.encode()) <= 1024
    assert note.endswith("ü…")


async def test_failures_are_logged_once_at_a_time_and_block_nothing(caplog: pytest.LogCaptureFixture) -> None:
    server = Server()
    server.refuse += [UnansweredError("500")] * 3
    async with Events(server, instance="x") as events:
        for number in range(4):
            post(events, note=str(number))
        await settled(events)
        server.refuse.append(UnansweredError("500"))
        post(events, note="later")
    assert [event["message"] for event in server.posted] == ["3"]
    assert len([r for r in caplog.records if r.levelno == logging.WARNING]) == 2


async def test_the_queue_is_bounded_and_the_end_is_not_waited_for_long() -> None:
    server = Server()
    server.gate = asyncio.Event()
    async with asyncio.timeout(10), Events(server, instance="x") as events:
        for number in range(3000):
            post(events, note=str(number))
        assert len(events._queue) <= 1000
    assert server.posted == []


def flood(events: Events, number: int) -> None:
    for note in range(number):
        events.post(about("many", "flood"), "BatchSubmitted", "Normal", "Submit", str(note))


async def test_a_namespace_that_floods_has_its_own_events_dropped_and_others_wait_one_turn() -> None:
    server = Server()
    server.gate = asyncio.Event()
    async with asyncio.timeout(10), Events(server, instance="x", per_second=1e6, burst=10**6) as events:
        flood(events, 3000)
        for note in "ab":
            post(events, note=note)
        assert len(events._queue) == 1000
        server.gate.set()
        await settled(events)
    order = [event["message"] for event in server.posted]
    assert (len(order), order.index("a") <= 2, order.index("b") <= 4) == (1000, True, True)
    assert [note for note in order if note not in {"a", "b"}] == [str(number) for number in range(998)], "its newest go"


async def test_what_one_namespace_repeats_is_counted_however_much_another_one_tells() -> None:
    server = Server()
    async with asyncio.timeout(10), Events(server, instance="x", per_second=1e6, burst=10**6) as events:
        post(events)
        await settled(events)
        flood(events, 900)
        await settled(events)
        for note in range(900, 1800):
            events.post(about("many", "flood"), "BatchSubmitted", "Normal", "Submit", str(note))
        await settled(events)
        post(events)
    assert [patch["count"] for patch in server.patched] == [2]


async def test_a_namespace_that_tells_little_forgets_nothing_for_one_that_told_much() -> None:
    server = Server()
    async with asyncio.timeout(10), Events(server, instance="x", per_second=1e6, burst=10**6) as events:
        flood(events, 1000)
        await settled(events)
        for _ in range(2):
            post(events)
            await settled(events)
    assert [patch["count"] for patch in server.patched] == [2]


async def test_a_storm_is_slowed_down_to_the_rate() -> None:
    server = Server()
    async with Events(server, instance="x", per_second=20, burst=5) as events:
        started = asyncio.get_running_loop().time()
        for number in range(11):
            post(events, note=str(number))
        await settled(events)
        took = asyncio.get_running_loop().time() - started
    assert len(server.posted) == 11
    assert took >= 0.25
