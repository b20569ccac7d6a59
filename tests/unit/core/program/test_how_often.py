"""How often one that cannot call looks at the cloud, kind by kind, in one resync interval (promise 12).

Not for: which look a single decision asks for (`test_core_waiting`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER, PAUSED_ANNOTATION
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import Approval, Preflight, PreflightMode, Rollout, Spec
from nodepool_membership.api.status import Halt, Phase, Recovery, Status
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    JobPhase,
    NamespaceState,
    NodeTable,
    PoolReport,
)
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.core.preflight.facts import Inspection, ReadFailure, Template
from nodepool_membership.core.program.effects import (
    AddFinalizer,
    AskJobs,
    AskTurn,
    ClusterView,
    Effect,
    FindRivals,
    InspectServers,
    Now,
    ReadCluster,
    ReadNamespaceState,
    ReadObject,
    Remember,
    TakeOver,
    TakeWriteSlot,
    WriteSlot,
    WriteStatus,
)
from nodepool_membership.core.program.requeue import Intervals
from unit.core_builders import (
    JOB,
    NOW,
    SECOND,
    SETTINGS,
    a_batch,
    a_failure,
    a_job,
    a_spec,
    a_wait,
    active,
    an_object,
    servers,
)
from unit.program_world import Answers, World

A, B, C = servers(3)
HOUR = timedelta(hours=1)
INTERVALS = Intervals(SETTINGS.poll_interval, SETTINGS.resync_interval)
POLLS = SETTINGS.resync_interval // SETTINGS.poll_interval
RARELY = 3
"""At once, and twice in a resync interval."""
GROWING = 5
"""At once, and after waits of 1, 2, 4 and 8 poll intervals."""
POOL_SEEN = PoolReport("", 1, template=Template("one"))


@dataclass
class Kind:
    """One that has something to add and cannot."""

    spec: Callable[[Spec], Spec] = lambda spec: spec
    status: Callable[[Status], Status] = lambda status: status
    annotations: Mapping[str, str] = field(default_factory=dict)
    answers: Answers = field(default_factory=dict)
    looks: int = RARELY


PAUSED = {PAUSED_ANNOTATION: "incident 42"}
FULL, LOCKED = WriteSlot(3600.0), WriteSlot(3600.0, Reason.LOCKED)
UNREAD = Inspection(NOW, frozenset({A}), unread=frozenset({A}), why=ReadFailure(Reason.FORBIDDEN, "no right"))
ENFORCE = Preflight(PreflightMode.ENFORCE)

KINDS = {
    "the object is paused": Kind(annotations=PAUSED),
    "the namespace is paused": Kind(answers={ReadNamespaceState: NamespaceState(paused="incident 42")}),
    "suspended": Kind(lambda spec: replace(spec, suspend=True)),
    "halted": Kind(status=lambda status: replace(status, halt=Halt(Reason.TOO_MANY_FAILURES, "why", NOW))),
    "an approval is awaited": Kind(lambda spec: replace(spec, approval=Approval.MANUAL)),
    "the write budget is full": Kind(answers={TakeWriteSlot: FULL}),
    "another was told that the pool is locked": Kind(answers={TakeWriteSlot: LOCKED}),
    "its own call was refused, and waits": Kind(
        status=lambda status: replace(status, waits=(a_wait(NOW + HOUR, Reason.QUOTA_EXCEEDED),))
    ),
    "a status was lost": Kind(status=lambda status: replace(status, recovery=Recovery(NOW, NOW + HOUR))),
    "all wait for their next attempt": Kind(
        status=lambda status: replace(
            status, failures=(a_failure(FailureReason.INSTALL_FAILED, A, retry=NOW + HOUR),), failed=1
        )
    ),
    "none has an attempt left": Kind(
        status=lambda status: replace(status, failures=(a_failure(FailureReason.INSTALL_FAILED, A, attempts=3),))
    ),
    "another membership has the servers": Kind(answers={FindRivals: {A: Rival("cce-system/other", better=True)}}),
    "the servers are not fit": Kind(answers={InspectServers: Inspection(NOW, frozenset({A}), {})}),
    "no room is left in the object": Kind(annotations={"of.another/controller": "x"}),
}
ONLY_A_LOOK_TELLS = {
    "the cluster is not ready": Kind(answers={ReadCluster: ClusterReport("Upgrading")}, looks=GROWING),
    "servers must be read and cannot be": Kind(
        lambda spec: replace(spec, preflight=ENFORCE), answers={InspectServers: UNREAD}, looks=GROWING
    ),
}


class Worked(World):
    """One key, worked whenever its requeue asks for it, by a clock that moves only in between."""

    def __init__(self, membership: Membership, answers: Answers) -> None:
        super().__init__(membership)
        usual: Answers = {ReadCluster: ClusterReport("Available"), AskJobs: a_job(JobPhase.RUNNING)}
        self.answers |= usual | answers
        self._at_first = dict(self.answers)
        self.looked: set[object] = set()
        self.written: list[Status] = []
        self._membership = membership
        self._time = NOW
        self.told = self._note

    def for_a_resync_interval(self) -> int:
        """How often it is worked."""
        runs = 0
        while self._time < NOW + SETTINGS.resync_interval:
            self.answers |= {Now: self._time, ReadObject: self._membership, **self._as_of_now()}
            requeue = self.run()
            assert requeue is not None
            pool, uid = self._membership.spec.node_pool, self._membership.metadata.uid
            wait = INTERVALS.seconds(requeue, pool, uid, self._time)
            self._time += max(timedelta(seconds=wait), SECOND)
            runs += 1
        return runs

    def _as_of_now(self) -> Answers:
        cluster, slot = self._at_first[ReadCluster], self._at_first[TakeWriteSlot]
        read = self._at_first[InspectServers]
        assert isinstance(cluster, ClusterReport)
        assert isinstance(slot, WriteSlot)
        assert isinstance(read, Inspection)
        left = WriteSlot(max(slot.wait - (self._time - NOW).total_seconds(), 0.0), slot.held_back)
        view = ClusterView(NodeTable(self._time, active([C])), POOL_SEEN, cluster)
        return {ReadCluster: view, AskTurn: left, TakeWriteSlot: left, InspectServers: replace(read, began=self._time)}

    def _note(self, effect: Effect[object]) -> None:
        meta = self._membership.metadata
        match effect:
            case ReadCluster():
                self.looked.add(self._time)
            case Remember(_, memory):
                self.answers[TakeOver] = memory
            case WriteStatus(_, status):
                self.written.append(status)
                self._changed(replace(self._membership, status=status))
            case AddFinalizer():
                self._changed(replace(self._membership, metadata=replace(meta, finalizers=(FINALIZER,))))

    def _changed(self, membership: Membership) -> None:
        version = str(int(membership.metadata.resource_version) + 1)
        self._membership = replace(membership, metadata=replace(membership.metadata, resource_version=version))
        self.answers |= {WriteStatus: version, AddFinalizer: version}


def worked(name: str, kind: Kind, *, beside_a_job: bool) -> Worked:
    jobs = (replace(a_batch(Phase.RUNNING, B, job_id=JOB), template="one"),) if beside_a_job else ()
    spec = kind.spec(a_spec(A, *([B] if beside_a_job else []), parallel=2))
    status = kind.status(Status(1, last_batch=1, jobs=jobs))
    membership = an_object(spec, status, annotations=kind.annotations, finalizers=(FINALIZER,))
    if name == "no room is left in the object":
        membership = replace(membership, wire_bytes=1_200_000)
    return Worked(membership, kind.answers)


@pytest.mark.parametrize(("name", "kind"), (KINDS | ONLY_A_LOOK_TELLS).items(), ids=KINDS | ONLY_A_LOOK_TELLS)
def test_who_cannot_call_looks_at_the_resync(name: str, kind: Kind) -> None:
    found = worked(name, kind, beside_a_job=False)
    found.for_a_resync_interval()
    assert 1 <= len(found.looked) <= kind.looks
    assert found.names.count("Call") == 0


CANARY = {"a canary is under way": Kind(lambda spec: replace(spec, rollout=Rollout(1)))}


@pytest.mark.parametrize(("name", "kind"), (KINDS | CANARY).items(), ids=KINDS | CANARY)
def test_beside_a_job_that_is_polled_it_looks_as_rarely(name: str, kind: Kind) -> None:
    found = worked(name, kind, beside_a_job=True)
    assert found.for_a_resync_interval() >= POLLS - 1
    assert len(found.looked) <= RARELY
    assert found.names.count("Call") == 0
    # What is told does not depend on whether it looked.
    assert len(found.written) <= 2
