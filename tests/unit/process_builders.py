"""A reconciler with memory in place of the API server and of the cloud, for tests of its order.

Not for: decisions; tests of `core` have `core_builders`.
"""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import cast

from nodepool_membership.api.membership import InvalidObjectError, Membership, Metadata
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Batch, Status
from nodepool_membership.cce.budget import Budgets, Taken
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import AccessKey
from nodepool_membership.cce.snapshots import SnapshotKey
from nodepool_membership.core.decision.record import Accepted, Answer
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    NamespaceState,
    Node,
    NodeTable,
    PoolReport,
    Trouble,
)
from nodepool_membership.core.preflight.facts import Inspection, Server
from nodepool_membership.core.program.effects import ClusterView, InspectServers, ReadCluster
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.claims.initial_sync import InitialSync
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.cloud.clouds import Access, Clouds
from nodepool_membership.runtime.cloud.error_mapping import TroubleError
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.reconcile.memory import Memories
from nodepool_membership.runtime.reconcile.reconcile import Parts, Reconciler
from nodepool_membership.runtime.reconcile.send import Sender
from nodepool_membership.runtime.reconcile.store import Store
from nodepool_membership.runtime.scheduling.queue import Key
from told import condition_of
from unit.core_builders import JOB, NOW, SECOND, SETTINGS, WINDOW, a_spec, an_object


class Api(Memberships):
    """The API server: objects by key; a finalizer write waits for its turn where the test holds it up."""

    def __init__(self) -> None:
        self.objects: dict[Key, Membership] = {}
        self.broken: set[Key] = set()
        self.held: dict[Key, asyncio.Event] = {}
        self.reached = asyncio.Event()
        self.opened: list[str] = []
        """The names of those that were read by themselves."""
        self.asked: list[Key] = []
        """Those that were read for another one."""

    def make(self, key: Key, *ids: str, age: int = 0, status: Status | None = None) -> None:
        """With a status whose removal policy is Remove, the spec has it too."""
        status = status or Status(observed_generation=1, last_batch=0)
        made = an_object(a_spec(*ids, removal=status.observed_removal_policy or RemovalPolicy.RETAIN), status)
        created = NOW - age * SECOND
        meta = replace(made.metadata, name=key[1], uid=f"uid-{key[1]}", creation_timestamp=created)
        self.objects[key] = replace(made, metadata=meta)

    async def all(self, namespaces: Iterable[str]) -> AsyncIterator[Membership]:
        assert list(namespaces) == []
        for found in tuple(self.objects.values()):
            yield found

    @asynccontextmanager
    async def open(self, namespace: str, name: str) -> AsyncIterator[Membership | None]:
        self.opened.append(name)
        if (namespace, name) in self.broken:
            raise InvalidObjectError("spec.serverIDs: a string is wanted")
        yield self.objects.get((namespace, name))

    async def read(self, namespace: str, name: str) -> Membership | None:
        self.asked.append((namespace, name))
        if (namespace, name) in self.broken:
            raise InvalidObjectError("spec.serverIDs: a string is wanted")
        return self.objects.get((namespace, name))

    async def namespace_state(self, namespace: str) -> NamespaceState:
        assert namespace == "cce-system"
        return NamespaceState()

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
        ready = condition_of(self.objects[key].status, "Ready")
        return None if ready is None else ready.reason


class ListedCloud(Clouds):
    """A cloud that has these nodes, all in the pool, and takes every write."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.trouble: Trouble | None = None
        self.budgets = Budgets(60, random=lambda: 0.0, clock=lambda: 0.0)

    async def access(self, membership: Membership, **_: bool) -> Access:
        key = SnapshotKey("https://cloud", "project", membership.spec.node_pool.cluster_id, "fingerprint")
        return Access(cast("CloudClient", None), key, AccessKey("access-key", "secret-key"), self.budgets)

    def look(self, _access: Access, _wanted: ReadCluster) -> ClusterView:
        if self.trouble is not None:
            raise TroubleError(self.trouble)
        table = NodeTable(NOW, self.nodes)
        return ClusterView(table, PoolReport("", len(self.nodes)), ClusterReport("Available"))

    async def inspect(self, wanted: InspectServers, _access: Access) -> Inspection:
        return Inspection(NOW, wanted.server_ids, {i: Server(i, "ACTIVE") for i in wanted.server_ids})

    def is_at_hand(self, _access: Access, _wanted: ReadCluster) -> bool:
        return True

    def take(self, membership: Membership, access: Access) -> Taken | float:
        return access.budget.try_take(0.0, membership.metadata.uid, membership.metadata.namespace)

    def held_back(self, _membership: Membership, _access: Access) -> Reason | None:
        return None

    def answered(self, _membership: Membership, _access: Access, _answer: Answer) -> None:
        return None

    def ended(self, _access: Access, _place: Taken) -> None:
        return None

    async def recall(self, _membership: Membership, _now: datetime) -> None:
        return None

    def forget(self, _uid: str) -> None:
        return None


class Calls(Sender):
    """Notes what would be sent; every call is accepted."""

    def __init__(self) -> None:
        super().__init__(now=lambda: NOW, monotonic=lambda: 0.0, may_call=lambda: True)
        self.sent: list[tuple[str, tuple[str, ...]]] = []
        self.doubted: list[str] = []

    async def call(self, membership: Membership, intent: Batch, _access: Access) -> Answer:
        self.sent.append((membership.metadata.name, intent.server_ids))
        return Accepted(JOB)

    def doubt(self, membership: Membership) -> None:
        self.doubted.append(membership.metadata.name)


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
        self.unread = Unread()
        self.calls = Calls()
        self.cloud = ListedCloud()
        claims = self.claims = Claims(self.woken.append, WINDOW, now=lambda: NOW)
        initial_sync = InitialSync(api, (), self.woken.append, clock=lambda: self.seconds)
        parts = self.parts = Parts(
            memberships=api,
            store=Store(api, Quiet(), Metrics(), claims, self.cloud, SETTINGS),
            sender=self.calls,
            clouds=self.cloud,
            memories=Memories(claims, initial_sync, self.cloud, Metrics(), now=lambda: NOW),
            claims=claims,
            initial_sync=initial_sync,
            now=lambda: NOW,
            may_call=lambda: True,
            unread=self.unread,
        )
        self.reconciler = Reconciler(parts, SETTINGS)

    async def started(self) -> None:
        self.reconciler.start()
        for _ in range(len(self.api.objects) + 2):
            await asyncio.sleep(0)
