"""One run: a scenario, a cloud and an API server in virtual time, and processes of the operator until it has settled.

Not for: which runs are made (`boundaries`) or what happens in them (`boundaries_scenario`).
"""

import asyncio
import base64
import json
import random
from collections.abc import Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import httpx

import jwts
from cce_simulator import Simulator
from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID, PROJECT_ID
from chaos.boundaries_api import NAMESPACES, MemoryApi, Target, Wire, mapping
from chaos.boundaries_effects import CloudWire, Crash, Effect, Effects, Fate, Hit, KubeWire
from chaos.boundaries_scenario import Edit, Scenario
from chaos.boundaries_time import VirtualClock, run
from chaos.boundaries_verdict import Promise, Wrong, WrongError, differences
from harness.identity import subject, trusting_keys
from nodepool_membership.api.membership import Membership, parse_membership
from nodepool_membership.api.names import CREDENTIALS_MARK, FINALIZER, KIND, PLURAL
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Phase
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import KubeError
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.secrets import Secrets
from nodepool_membership.kube.service_accounts import ServiceAccounts
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.ops.options import Options
from nodepool_membership.runtime.process.assembly import make_reconciler
from nodepool_membership.runtime.process.workers import KeyWorker, Workers
from nodepool_membership.runtime.scheduling.queue import Key, WorkQueue
from property.checks import check_status
from told import condition_of

OPTIONS: Final = Options(
    poll_interval=timedelta(seconds=60), resync_interval=timedelta(minutes=5), settle_window=timedelta(minutes=20)
)
NAMESPACE: Final = "cce-system"
LIMIT_SECONDS: Final = 6 * 3600.0
"""Longer than several settle windows and backoffs after one another."""
DOWN_SECONDS: Final = 7.0
"""From the end of a process to the start of the next."""
IDLE_SECONDS: Final = 1.5 * OPTIONS.resync_interval.total_seconds()
_PATIENCE_SECONDS: Final = OPTIONS.http_timeout.total_seconds() + 15.0
"""Of a process that is told to stop, with what is under way."""
_BETWEEN_SECONDS: Final = 1.0
"""Between two memberships that are made: one of them is older."""
_QUIET_SECONDS: Final = 60.0
"""After settling: Events are posted."""
_TICK_SECONDS: Final = 10.0
"""Users edit, and whether everything has settled is looked at, so often."""
_SECRET: Final = "cce-credentials"
_SIGNS: Final = jwts.EcKey()
"""The tokens of the cluster."""


@dataclass
class _Watched:
    """A reconciler whose surprises are kept: the workers log them and go on."""

    inner: KeyWorker
    wrongs: list[Wrong]

    async def reconcile(self, key: Key) -> float | None:
        try:
            return await self.inner.reconcile(key)
        except KubeError:
            raise
        except Exception as error:
            self.wrongs.append(Wrong(Promise.OTHER, f"a look ended in {type(error).__name__}: {error}"))
            raise

    def start(self) -> None:
        self.inner.start()

    async def close(self) -> None:
        await self.inner.close()


@dataclass
class World:
    """What outlives the processes of one run."""

    scenario: Scenario
    effects: Effects
    clock: VirtualClock = field(default_factory=VirtualClock)
    wrongs: list[Wrong] = field(default_factory=list)
    writes: int = 0
    """Stored changes of memberships."""
    settled_at: int = 0
    """How many effects there were until everything had settled."""

    def __post_init__(self) -> None:
        self.api = MemoryApi(self.clock.now, changed=self._changed)
        config, identity = self.scenario.cloud, self.scenario.identity
        if identity:
            config = trusting_keys([_SIGNS.public()], NAMESPACE, config)
        self.simulator = Simulator(config, clock=self.clock.timestamp, sleep=asyncio.sleep)
        self._edits: list[Edit] = list(self.scenario.edits)
        self._queue: WorkQueue | None = None
        self.api.handle("POST", Target(NAMESPACES, ""), {}, {}, {"metadata": {"name": NAMESPACE}})
        keys: Wire = {"identityRef": dict(identity)} if identity else self._secret()
        self.api.token = self._token
        pool: Wire = {
            "region": "cn-north-4", "projectID": PROJECT_ID, "clusterID": CLUSTER_ID, "nodePoolID": NODE_POOL_ID
        }  # fmt: skip
        for name, fields in self.scenario.specs.items():
            spec: Wire = {"nodePool": pool, **keys, **fields}
            self.clock.seconds += _BETWEEN_SECONDS
            self._request("POST", PLURAL, None, {"kind": KIND, "metadata": {"name": name}, "spec": spec})

    def _secret(self) -> Wire:
        """A Secret with the cloud's key, and the field of a spec that names it."""
        key = self.scenario.cloud.access_keys[0]
        data = {"accessKey": key.access_key, "secretKey": key.secret_key}
        encoded: Wire = {name: base64.b64encode(value.encode()).decode() for name, value in data.items()}
        self._request(
            "POST", "secrets", None, {"metadata": {"name": _SECRET}, "type": CREDENTIALS_MARK, "data": encoded}
        )
        return {"credentialsRef": {"name": _SECRET}}

    def _token(self, namespace: str, name: str, audience: str) -> str:
        """What the API server makes for ten minutes."""
        return jwts.token(_SIGNS, subject(namespace, name), audience, self.clock.timestamp() + 600)

    def _request(self, method: str, plural: str, name: str | None, body: Wire | None = None) -> None:
        """What a user does."""
        headers = {"Content-Type": "application/merge-patch+json"}
        self.api.handle(method, Target(plural, NAMESPACE, name, None), {}, headers, body)

    def read(self, name: str) -> Membership | None:
        stored = self.api.objects.get((PLURAL, NAMESPACE, name))
        if stored is None:
            return None
        found = parse_membership(json.dumps(stored).encode())
        if not isinstance(found, Membership):
            raise WrongError(
                [Wrong(Promise.OTHER, f"the operator stored a status that it cannot read: {found.problem}")]
            )
        return found

    # The run

    def live(self) -> None:
        """Run one process after another until everything has settled, and check what came of it.

        Raises:
            WrongError: a promise was broken, or a hit did not strike.
        """
        random.seed(self.scenario.name)
        while not self._live_once():
            self.clock.seconds += DOWN_SECONDS
        self.wrongs += (Wrong(Promise.OTHER, text) for text in self.effects.missed())
        self.wrongs += differences(self.scenario, self.simulator, self.read, OPTIONS.writes_per_minute)
        if self.wrongs:
            raise WrongError(self.wrongs)

    def _live_once(self) -> bool:
        """Run one process; whether it lived to see everything settled."""
        number = self.effects.begin()
        settled: list[bool] = []
        try:
            run(self.clock, self._process(number, settled))
        except Crash:
            return False
        finally:
            self.effects.end()
            self._queue = None
        return bool(settled)

    async def _process(self, number: int, settled: list[bool]) -> None:
        clock = self.clock
        queue = self._queue = WorkQueue(clock=clock.monotonic)
        metrics = Metrics()

        def open_http(timeout: float, *_: object) -> httpx.AsyncClient:
            return httpx.AsyncClient(
                transport=CloudWire(self.effects, number, self.simulator), timeout=timeout, trust_env=False
            )

        async with AsyncExitStack() as parts:
            api = KubeApi(KubeWire(self.effects, number, self.api), self.api.login, metrics.kube_request)
            events = await parts.enter_async_context(
                Events(api, instance="chaos", clock=clock.monotonic, now=clock.now)
            )
            secrets = Secrets(api, clock=clock.monotonic)
            reconciler = await parts.enter_async_context(
                make_reconciler(
                    OPTIONS,
                    Memberships(api),
                    secrets,
                    ServiceAccounts(api),
                    events,
                    metrics,
                    lambda: True,
                    queue.add,
                    Unread(),
                    open_http=open_http,
                    now=clock.now,
                    monotonic=clock.monotonic,
                )
            )
            workers = Workers(
                queue,
                _Watched(reconciler, self.wrongs),
                metrics,
                stuck_after_seconds=600,
                count=2,
                clock=clock.monotonic,
            )
            workers.start()
            for name in self.scenario.specs:
                queue.add((NAMESPACE, name))
            if await self._settles():
                settled.append(True)
            recorded = await workers.stop(_PATIENCE_SECONDS if self.effects.patient else 0.0)
        if recorded:
            self._check_recorded()

    async def _settles(self) -> bool:
        """Wait until everything has settled, and that it stays so; False if the process is told to stop before."""
        while self._edits or not all(self._is_settled(name) for name in self.scenario.ends):
            if self.clock.seconds > LIMIT_SECONDS:
                late = Wrong(Promise.CONVERGES, f"not settled after {LIMIT_SECONDS:.0f} s: {self._states()}")
                raise WrongError([*self.wrongs, late])
            if await self._told_to_stop(_TICK_SECONDS):
                return False
            self._edit()
        self.settled_at = len(self.effects.done)
        if await self._told_to_stop(_QUIET_SECONDS):
            return False
        writes = self.writes
        if await self._told_to_stop(IDLE_SECONDS):
            return False
        if self.writes != writes:
            self.wrongs.append(Wrong(Promise.OTHER, f"{self.writes - writes} writes although nothing changes"))
        return True

    async def _told_to_stop(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self.effects.stopping.wait()
        except TimeoutError:
            return False
        return True

    def _check_recorded(self) -> None:
        """A process that ended in order has recorded the answer of the call that was under way (rule P9)."""
        stopped = any(h.fate is Fate.STOP and h.effect.cloud and h.effect.writes for h in self.effects.hits.values())
        for name in self.scenario.specs if stopped else ():
            found = self.read(name)
            if found is not None and any(batch.phase is Phase.SUBMITTING for batch in found.status.jobs):
                self.wrongs.append(Wrong(Promise.OTHER, "ended in order, the answer to its call is not recorded (P9)"))

    def _edit(self) -> None:
        if not self._edits:
            return
        edit = self._edits[0]
        found = self.read(edit.sees)
        if found is None or not edit.when(found):
            return
        self._edits.pop(0)
        if edit.home:
            self.api.handle("DELETE", Target(NAMESPACES, "", NAMESPACE), {}, {}, None)
        else:
            method = "DELETE" if edit.patch is None else "PATCH"
            self._request(method, PLURAL, edit.name, None if edit.patch is None else dict(edit.patch))

    def _is_settled(self, name: str) -> bool:
        found, end = self.read(name), self.scenario.ends[name]
        if found is None or end is None:
            return found is None
        status, meta = found.status, found.metadata
        ready = condition_of(status, "Ready")
        current = ready is not None and ready.observed_generation == status.observed_generation == meta.generation
        done = condition_of(status, "Reconciling") is None and ready is not None and ready.status != "Unknown"
        waits = any(batch.is_open or batch.phase is Phase.QUEUED for batch in status.jobs)
        if ready is not None and ready.reason == Reason.CONFLICT and not end.conflict:
            # The claim of an owner that is gone lasts for a while.
            return False
        # A deletion would have something to do.
        holds = found.spec.deletion_policy is RemovalPolicy.REMOVE and bool(status.members)
        return current and done and not waits and (FINALIZER in meta.finalizers) == holds

    def _states(self) -> str:
        return json.dumps([stored.get("status") for key, stored in self.api.objects.items() if key[0] == PLURAL])

    def _changed(self, old: Wire | None, new: Wire | None) -> None:
        """A membership was stored: hold it against what holds always, and wake the operator as its watch does."""
        self.writes += 1
        stored = new or old or {}
        meta = mapping(stored["metadata"])
        if self._queue is not None and (new is None or old is None or _mark(old) != _mark(new)):
            self._queue.add((NAMESPACE, str(meta["name"])))
        if old is None or new is None or old.get("status") == new.get("status"):
            return
        found = parse_membership(json.dumps(new).encode())
        if not isinstance(found, Membership):
            self.wrongs.append(Wrong(Promise.OTHER, f"a status that cannot be read was stored: {found.problem}"))
            return
        try:
            check_status(found, found.status)
            last = mapping(old.get("status")).get("lastBatch") or 0
            assert (found.status.last_batch or 0) >= int(str(last)), "the counter of batches went back (P2)"
        except AssertionError as error:
            self.wrongs.append(Wrong(Promise.OTHER, f"a status that must not be was stored: {error}"))


def _mark(stored: Wire) -> tuple[object, ...]:
    meta = mapping(stored["metadata"])
    return meta["generation"], meta.get("deletionTimestamp"), json.dumps(meta.get("annotations"))


def play(scenario: Scenario, hits: Iterable[Hit] = ()) -> list[Effect]:
    """One run; the effects until everything had settled.

    Raises:
        WrongError: a promise was broken, or a hit did not strike.
    """
    world = World(scenario, Effects.of(hits))
    world.live()
    return world.effects.done[: world.settled_at]
