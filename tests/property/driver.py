"""The reconcile loop over the model cloud: the same order of reads, decisions, writes and calls as `runtime.reconcile`.

Not for: decisions. Every store is checked here, so that no test can forget a promise.
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.membership import Json, Membership, UnreadableStatus, parse_membership, status_json
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation, Status
from nodepool_membership.core.calls import Answer, NotSent, record
from nodepool_membership.core.decide import Decision, Pace, acknowledge, decide
from nodepool_membership.core.drift import Absences
from nodepool_membership.core.observation import Freshness, Home, Look, NodeTable, Observation, Trouble
from nodepool_membership.core.settings import Settings
from property.checks import check_decision, check_status
from property.cloud_model import EPOCH, POOL, Cloud

SETTINGS, RESYNC = Settings(), 300.0
SEND_WITHIN: Final = timedelta(seconds=60)
RECENT: Final = timedelta(seconds=30)


class Boundary(StrEnum):
    """Moments between two steps, at which the process may die or freeze, or somebody may change the object."""

    READ = "after the read"
    LOOKED = "after a look"
    DECIDED = "before the first write"
    WITNESSED = "lastBatch stored, finalizer not yet"
    HELD = "before the intent"
    INTENDED = "after the intent"
    CALLED = "after the call"
    RECORDED = "after the record"
    STORED = "after the status"


class CrashError(Exception):
    """The process is killed."""


class StaleError(Exception):
    """The object has changed since it was read."""


@dataclass(slots=True)
class StoredObject:
    """The object as the API server holds it: JSON, guarded by its resourceVersion."""

    spec: dict[str, Json]
    status: dict[str, Json] = field(default_factory=dict)
    finalizers: list[str] = field(default_factory=list)
    annotations: dict[str, str] = field(default_factory=dict)
    generation: int = 1
    version: int = 1
    writes: int = 0
    uid: int = 1
    deleted: datetime | None = None
    gone: bool = False
    clock: Callable[[], datetime] = lambda: EPOCH
    listed_until: dict[str, datetime] = field(default_factory=dict)
    """Servers off the list, and since when."""

    def __post_init__(self) -> None:
        self.lose_status()

    def lose_status(self) -> None:
        """An empty status, as the schema defaults it."""
        ready: Json = {"type": "Ready", "status": "Unknown", "reason": "Pending"}
        self.status = {"observedGeneration": -1, "conditions": [ready]}
        self.version += 1

    def edit(self, **fields: Json) -> None:
        """A user edits the spec."""
        spec = {**self.spec, **fields}
        emptied = self.spec["serverIDs"] and not spec["serverIDs"]
        if spec == self.spec or (emptied and spec.get("removalPolicy") == "Remove"):
            # The second the schema refuses.
            return
        left = self.listed() - _ids(spec)
        self.listed_until = {i: t for i, t in self.listed_until.items() if i not in _ids(spec)}
        self.listed_until |= dict.fromkeys(left, self.clock())
        self.spec = spec
        self.generation += 1
        self.version += 1

    def listed(self) -> frozenset[str]:
        return _ids(self.spec)

    def delete(self) -> None:
        """A user deletes the object; without finalizers it is gone at once."""
        if self.deleted is None:
            self.deleted = self.clock()
            self.generation += 1
            self.version += 1
            self.gone = not self.finalizers

    def recreate(self) -> None:
        """A user creates the object anew under its name, with the spec that it had."""
        self.uid += 1
        self.deleted, self.gone, self.generation, self.annotations = None, False, 1, {}
        self.lose_status()

    def annotate(self, **annotations: str) -> None:
        self.annotations.update(annotations)
        self.version += 1

    def read(self) -> Membership:
        """Read the object through the parser that the operator uses."""
        metadata: dict[str, Json] = {
            "name": "workers",
            "namespace": "cce-system",
            "uid": f"0d5c1d7e-0000-0000-0000-{self.uid:012d}",
            "resourceVersion": str(self.version),
            "generation": self.generation,
            "creationTimestamp": EPOCH.isoformat(),
            "finalizers": list(self.finalizers),
            "annotations": dict(self.annotations),
        }
        if self.deleted is not None:
            metadata["deletionTimestamp"] = self.deleted.isoformat()
        found = parse_membership(json.dumps({"metadata": metadata, "spec": self.spec, "status": self.status}).encode())
        assert not isinstance(found, UnreadableStatus), f"the operator wrote what it cannot read: {found.problem}"
        return found

    def write_status(self, expected: str, status: Status) -> str:
        self._guard(expected)
        self.status = json.loads(json.dumps(status_json(status)))
        self.writes += 1
        return self._next()

    def write_finalizers(self, expected: str, finalizers: list[str]) -> str:
        self._guard(expected)
        assert FINALIZER not in finalizers or self.deleted is None, "no finalizer can be added once deletion began"
        self.finalizers = finalizers
        self.gone = self.deleted is not None and not finalizers
        self.writes += 1
        return self._next()

    def _guard(self, expected: str) -> None:
        if expected != str(self.version):
            raise StaleError

    def _next(self) -> str:
        self.version += 1
        return str(self.version)


def _ids(spec: dict[str, Json]) -> frozenset[str]:
    ids = spec["serverIDs"]
    assert isinstance(ids, list)
    return frozenset(map(str, ids))


def spec_json(servers: Collection[str], **fields: Json) -> dict[str, Json]:
    """A spec as the API server stores it."""
    pool: dict[str, Json] = {
        "region": "cn-north-4",
        "projectID": "0123456789abcdef0123456789abcdef",
        "clusterID": "11111111-2222-3333-4444-555555555555",
        "nodePoolID": POOL,
    }
    ids: list[Json] = list(servers)
    return {"nodePool": pool, "credentialsRef": {"name": "cce"}, "serverIDs": ids, **fields}


@dataclass(slots=True)
class Driver:
    """One operator process after another, over one object and one cloud."""

    stored: StoredObject
    cloud: Cloud
    interruptions: dict[Boundary, Callable[[], None]] = field(default_factory=dict)
    """Each happens once, at the next passing of its boundary."""
    unreachable: bool = False
    budget_free: datetime = EPOCH
    intents: list[Batch] = field(default_factory=list)
    cached: NodeTable | None = None
    backoffs: int = 0
    failed_looks: int = 0
    absences: Absences = field(default_factory=dict)
    home: Home = field(default_factory=Home)

    def __post_init__(self) -> None:
        self.stored.clock = lambda: self.cloud.now

    def kill_at(self, boundary: Boundary) -> None:
        """Let the process die at the next passing of a boundary."""
        self.interruptions[boundary] = self._die

    def _die(self) -> None:
        raise CrashError

    def reconcile(self) -> float:
        """One reconcile; returns the seconds until the next. A crash starts a new process."""
        try:
            return self._work()
        except StaleError:
            return 0.0
        except CrashError:
            self.cached, self.backoffs, self.failed_looks, self.absences = None, 0, 0, {}
            return 5.0
        finally:
            assert not self.cloud.wrongs, self.cloud.wrongs

    def run(self, seconds: float, reconciles: int) -> None:
        """Reconcile as the operator would for so long, at most so many times."""
        end = self.cloud.now + timedelta(seconds=seconds)
        for _ in range(reconciles):
            wait = self.reconcile()
            self.cloud.advance(max(min(wait, (end - self.cloud.now).total_seconds()), 0.0))
            if self.cloud.now >= end:
                return

    def _pass(self, boundary: Boundary) -> None:
        self.cloud.advance(0.2)
        action = self.interruptions.pop(boundary, None)
        if action is not None:
            action()

    def _second(self) -> datetime:
        return self.cloud.now.replace(microsecond=0)

    def _work(self) -> float:
        if self.stored.gone:
            return RESYNC
        membership = self.stored.read()
        seen = Observation(self.cloud.now, membership.wire_bytes, absences=self.absences)
        self._pass(Boundary.READ)
        while True:
            now = self._second()
            step = decide(membership, seen, now, SETTINGS)
            if isinstance(step, Decision):
                break
            if membership.status.observed_generation != membership.metadata.generation and not self._at_hand(step):
                membership = self._store(membership, acknowledge(membership, now, SETTINGS))
            seen = self._answer(step, seen)
            self._pass(Boundary.LOOKED)
        check_decision(membership, step, seen, now)
        self.absences = step.absences
        self._pass(Boundary.DECIDED)
        if step.intent is not None:
            self._carry_out(membership, step, step.intent)
            return 0.0
        self.failed_looks = self.failed_looks + 1 if seen.trouble is not None else 0
        self.backoffs = self.backoffs + 1 if step.pace is Pace.BACKOFF else 0
        if membership.metadata.deleting and not step.holds:
            self._finalizers(replace(membership, status=step.status), [])
            return RESYNC
        membership = self._store(membership, step.status)
        self._pass(Boundary.STORED)
        if step.must_hold(membership):
            membership = self._finalizers(membership, [FINALIZER])
        again = decide(membership, seen, now, SETTINGS)
        assert isinstance(again, Decision), f"a second decision on the same input asks for {again}"
        assert again.status == step.status, "a second decision on the same input writes"
        assert again.intent is None, "a second decision on the same input calls"
        if not step.holds and FINALIZER in membership.metadata.finalizers:
            membership = self._finalizers(membership, [])
        return self._wait(membership, step)

    def _at_hand(self, look: Look) -> bool:
        return (
            self.unreachable
            or look.write
            or look.home
            or (look.listing is Freshness.RECENT and self._recent() is not None)
        )

    def _recent(self) -> NodeTable | None:
        table = self.cached
        return table if table is not None and table.begun >= self.cloud.now - RECENT else None

    def _answer(self, look: Look, seen: Observation) -> Observation:
        if look.write:
            return replace(seen, write_wait=max((self.budget_free - self.cloud.now).total_seconds(), 0.0))
        if look.home:
            return replace(seen, home=self.home)
        if self.unreachable:
            trouble = Trouble(Reason.CLOUD_UNREACHABLE, "no route to the cloud")
            return replace(seen, trouble=trouble, failed_looks=self.failed_looks + 1)
        if look.jobs:
            return replace(seen, jobs={**seen.jobs, **{j: self.cloud.job(j) for j in look.jobs}})
        assert look.listing is not None, "a Look asks for something"
        table = self._recent() if look.listing is Freshness.RECENT else None
        self.cached = table = table or self.cloud.listing()
        if look.listing is Freshness.RECENT:
            return replace(seen, listing=table)
        return replace(seen, listing=table, pool=self.cloud.pool(), cluster=self.cloud.cluster())

    def _store(self, membership: Membership, status: Status) -> Membership:
        if status == membership.status:
            return membership
        check_status(membership, status)
        version = self.stored.write_status(membership.metadata.resource_version, status)
        assert self.stored.read().status == status, "a status does not read back as it was written"
        return replace(membership, metadata=replace(membership.metadata, resource_version=version), status=status)

    def _finalizers(self, membership: Membership, finalizers: list[str]) -> Membership:
        version = self.stored.write_finalizers(membership.metadata.resource_version, finalizers)
        if not finalizers and membership.status.open_batches:
            limit = SETTINGS.settle_window + timedelta(seconds=membership.spec.join_timeout_seconds)
            assert membership.metadata.deletion_timestamp is not None, "the finalizer was taken off with an open batch"
            assert self.cloud.now >= membership.metadata.deletion_timestamp + limit, "let go too early"
            # Nobody knows of its jobs any more: what is assumed of an add without a job holds from now on.
            self.cloud.forget_answers()
        metadata = replace(membership.metadata, resource_version=version, finalizers=tuple(finalizers))
        return replace(membership, metadata=metadata)

    def _carry_out(self, membership: Membership, decision: Decision, intent: Batch) -> None:
        if FINALIZER not in membership.metadata.finalizers:
            if membership.status.last_batch is None:
                membership = self._store(membership, acknowledge(membership, self._second(), SETTINGS))
            self._pass(Boundary.WITNESSED)
            membership = self._finalizers(membership, [FINALIZER])
        self._pass(Boundary.HELD)
        membership = self._store(membership, decision.status)
        self.intents.append(intent)
        if intent.operation is Operation.REMOVE and not membership.metadata.deleting:
            self._judge_wait(intent)
        self._pass(Boundary.INTENDED)
        answer = self._call(intent)
        self._pass(Boundary.CALLED)
        self._record(membership, intent, answer)
        self._pass(Boundary.RECORDED)

    def _judge_wait(self, intent: Batch) -> None:
        for server in intent.server_ids:
            off = self.cloud.now - self.stored.listed_until[server]
            assert off >= SETTINGS.removal_delay, f"removed {off} after it left the list (P18)"

    def _call(self, intent: Batch) -> Answer:
        assert intent.submit_time is not None, "an intent without submitTime"
        if self.cloud.now > intent.submit_time + SEND_WITHIN:
            return NotSent("too late")
        dies = self.interruptions.get(Boundary.CALLED) == self._die
        if intent.operation is Operation.REMOVE:
            return self.cloud.remove(intent.node_ids, answer_arrives=not dies)
        return self.cloud.add(intent.server_ids, answer_arrives=not dies)

    def _record(self, membership: Membership, intent: Batch, answer: Answer) -> None:
        while True:
            try:
                self._store(membership, record(membership, intent, answer, self._second(), SETTINGS))
            except StaleError:
                membership = self.stored.read()
            else:
                return

    def _wait(self, membership: Membership, decision: Decision) -> float:
        if decision.pace is Pace.RESYNC and decision.delay is None:
            return RESYNC
        poll = SETTINGS.poll_interval.total_seconds()
        backoff = min(poll * 2.0 ** min(self.backoffs, 16), RESYNC)
        wait = {Pace.NOW: 0.0, Pace.POLL: poll, Pace.WATCH: 2 * poll}.get(decision.pace, backoff)
        if decision.delay is None:
            return wait
        if decision.pace is Pace.BACKOFF:
            return max(decision.delay, wait)
        return min(decision.delay, wait) if membership.status.open_batches else decision.delay
