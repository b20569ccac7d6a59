"""The order of a reconcile where two memberships meet: claims are checked and reserved right before the intent (P16).

Not for: decisions (`test_core_rivals`), or the index (`test_runtime_claims`).
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import cast

import pytest

from nodepool_membership.api.membership import InvalidObjectError, Membership, Metadata
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Status
from nodepool_membership.cce.budget import Budgets, Taken
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.listings import ListingKey
from nodepool_membership.core.observation import ClusterReport, Look, NodeTable, Observation, PoolReport
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.census import Census
from nodepool_membership.runtime.claims import Claims
from nodepool_membership.runtime.clouds import Access, Clouds
from nodepool_membership.runtime.metrics import Metrics
from nodepool_membership.runtime.pace import Clock
from nodepool_membership.runtime.queue import Key
from nodepool_membership.runtime.reconcile import Reconciler
from nodepool_membership.runtime.send import Sender
from nodepool_membership.runtime.store import Store
from unit.core_builders import NOW, SECOND, SETTINGS, WINDOW, a_spec, an_object, servers

X, Y = servers(2)
OLD, YOUNG, BROKEN = ("cce-system", "old"), ("cce-system", "young"), ("cce-system", "broken")


class Api(Memberships):
    """The API server: objects by key; a finalizer write waits for its turn where the test holds it up."""

    def __init__(self) -> None:
        self.objects: dict[Key, Membership] = {}
        self.broken: set[Key] = set()
        self.held: dict[Key, asyncio.Event] = {}
        self.reached = asyncio.Event()

    def make(self, key: Key, *ids: str, age: int = 0) -> None:
        made = an_object(a_spec(*ids), Status(observed_generation=1, last_batch=0))
        created = NOW - age * SECOND
        meta = replace(made.metadata, name=key[1], uid=f"uid-{key[1]}", creation_timestamp=created)
        self.objects[key] = replace(made, metadata=meta)

    async def keys(self, namespaces: Iterable[str]) -> set[Key]:
        assert list(namespaces) == []
        return {*self.objects, *self.broken}

    @asynccontextmanager
    async def open(self, namespace: str, name: str) -> AsyncIterator[Membership | None]:
        if (namespace, name) in self.broken:
            raise InvalidObjectError("spec.serverIDs: a string is wanted")
        yield self.objects.get((namespace, name))

    async def write_status(self, metadata: Metadata, old: Status, new: Status) -> str:
        key = (metadata.namespace, metadata.name)
        assert self.objects[key].status == old
        self.objects[key] = replace(self.objects[key], status=new)
        return metadata.resource_version

    async def add_finalizer(self, metadata: Metadata) -> str:
        key = (metadata.namespace, metadata.name)
        if key in self.held:
            self.reached.set()
            await self.held[key].wait()
        meta = replace(self.objects[key].metadata, finalizers=(FINALIZER,))
        self.objects[key] = replace(self.objects[key], metadata=meta)
        return metadata.resource_version

    async def remove_finalizer(self, metadata: Metadata) -> str:
        key = (metadata.namespace, metadata.name)
        meta = replace(self.objects[key].metadata, finalizers=())
        self.objects[key] = replace(self.objects[key], metadata=meta)
        return metadata.resource_version

    def reason(self, key: Key) -> object:
        ready = self.objects[key].status.condition("Ready")
        return None if ready is None else ready.reason


class EmptyCloud(Clouds):
    """A cloud without nodes that takes every write."""

    def __init__(self) -> None:
        self.budgets = Budgets(60, random=lambda: 0.0, clock=lambda: 0.0)

    async def access(self, membership: Membership, **_: bool) -> Access:
        key = ListingKey("https://cloud", "project", membership.spec.node_pool.cluster_id, "fingerprint")
        return Access(cast("CloudClient", None), key, "identity", self.budgets)

    async def answer(self, look: Look, _membership: Membership, _access: Access, seen: Observation) -> Observation:
        assert look.listing is not None
        table = NodeTable(NOW, [])
        return replace(seen, listing=table, pool=PoolReport("", 0), cluster=ClusterReport("Available"))

    def is_at_hand(self, _look: Look, _access: Access) -> bool:
        return True

    def take(self, membership: Membership, access: Access) -> Taken | float:
        return access.budget.try_take(0.0, membership.metadata.uid)

    def is_throttled(self, _access: Access) -> bool:
        return False

    def ended(self, _access: Access, _place: Taken) -> None:
        return None

    async def recall(self, _membership: Membership, _now: datetime) -> None:
        return None

    def forget(self, _uid: str) -> None:
        return None


class Calls(Sender):
    """Notes what would be sent."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, tuple[str, ...]]] = []

    async def send(self, membership: Membership, intent: Batch, _access: Access) -> None:
        self.sent.append((membership.metadata.name, intent.server_ids))

    async def close(self) -> None:
        return None


class Quiet(Events):
    def __init__(self) -> None:
        return None

    def post(self, *_: object) -> None:
        return None


class Process:
    """A reconciler over these; `seconds` is its monotonic clock."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.seconds = 0.0
        self.woken: list[Key] = []
        self.calls = Calls()
        claims = self.claims = Claims(self.woken.append, WINDOW, now=lambda: NOW)
        census = Census(api, (), self.woken.append, clock=lambda: self.seconds)
        store = self.store = Store(api, Quiet(), Metrics(), SETTINGS, claims, now=lambda: NOW)
        clock = Clock(timedelta(seconds=15), timedelta(minutes=5))
        self.reconciler = Reconciler(
            api,
            store,
            self.calls,
            EmptyCloud(),
            Metrics(),
            SETTINGS,
            clock,
            claims,
            census,
            now=lambda: NOW,
            may_call=lambda: True,
        )

    async def started(self) -> None:
        self.reconciler.start()
        await asyncio.sleep(0)
        await asyncio.sleep(0)


async def test_a_server_that_another_takes_between_plan_and_intent_is_not_sent_twice() -> None:
    api = Api()
    api.make(YOUNG, X)
    process = Process(api)
    await process.started()
    api.held[YOUNG] = asyncio.Event()
    young = asyncio.create_task(process.reconciler.reconcile(YOUNG))
    await api.reached.wait()
    api.make(OLD, X, age=60)
    await process.reconciler.reconcile(OLD)
    api.held[YOUNG].set()
    assert await young == 0.0
    assert process.calls.sent == [("old", (X,))]
    assert api.objects[YOUNG].status.jobs == ()
    del api.held[YOUNG]
    await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is Reason.CONFLICT
    assert api.objects[YOUNG].metadata.finalizers == ()


async def test_work_waits_for_the_first_reads_and_each_is_read_once() -> None:
    api = Api()
    api.make(YOUNG, X, Y)
    api.make(OLD, X, age=60)
    process = Process(api)
    await process.started()
    assert sorted(process.woken) == [OLD, YOUNG]
    assert await process.reconciler.reconcile(YOUNG) == 10.0
    assert api.objects[YOUNG].status.jobs == ()
    process.woken.clear()
    await process.reconciler.reconcile(OLD)
    assert process.woken == [YOUNG]
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("old", (X,)), ("young", (Y,))]


async def test_what_cannot_be_read_at_all_does_not_keep_the_others_waiting() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.broken.add(BROKEN)
    process = Process(api)
    await process.started()
    with pytest.raises(InvalidObjectError):
        await process.reconciler.reconcile(BROKEN)
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("young", (X,))]


async def test_a_read_that_does_not_come_is_shown_as_the_reason_for_the_wait() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.make(OLD, Y)
    process = Process(api)
    await process.started()
    await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is None
    process.seconds = 11
    await process.reconciler.reconcile(YOUNG)
    assert api.reason(YOUNG) is Reason.STARTING
    await process.reconciler.reconcile(OLD)
    await process.reconciler.reconcile(YOUNG)
    assert process.calls.sent == [("old", (Y,)), ("young", (X,))]
    await process.reconciler.close()


async def test_what_is_stored_is_claimed_at_once() -> None:
    api = Api()
    api.make(YOUNG, X)
    api.make(OLD, X, age=60)
    process = Process(api)
    old, young = api.objects[OLD], api.objects[YOUNG]
    process.claims.note(old)
    process.claims.note(young)
    await process.store.status(young, replace(young.status, members=(X,)))
    assert process.claims.rivals(old)[X].recorded
