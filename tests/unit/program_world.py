"""Answers the effects of a program from a table, and keeps those that change something.

Not for: which answers there are (`test_program`, `test_program_snapshots`).
"""

from collections.abc import Callable

from nodepool_membership.api.membership import Membership
from nodepool_membership.core.decision.record import Accepted, Answer
from nodepool_membership.core.observed.observation import (
    ClusterReport,
    NamespaceState,
    NodeTable,
    PoolReport,
)
from nodepool_membership.core.program.effects import (
    AddFinalizer,
    AskLease,
    Call,
    ClusterView,
    Effect,
    FindRivals,
    InspectServers,
    IsDoubted,
    Now,
    ReadCluster,
    ReadNamespaceState,
    ReadObject,
    Reserve,
    Shield,
    Sleep,
    StoreError,
    TakeOver,
    TakeWriteSlot,
    WriteSlot,
    WriteStatus,
)
from nodepool_membership.core.program.memory import Memory
from nodepool_membership.core.program.reconcile import reconcile
from nodepool_membership.core.program.requeue import Requeue
from unit.core_builders import JOB, NOW, SETTINGS, server, well

KEY = ("cce-system", "gpu-workers")
Answers = dict[type[Effect[object]], object]
WRITES = (WriteStatus, AddFinalizer, Reserve, AskLease, Shield, Call, Sleep)


class World:
    """Answers effects from a table, and notes those that change something, or guard what does."""

    def __init__(self, membership: Membership, answer: Answer | None = None) -> None:
        view = ClusterView(NodeTable(NOW, []), PoolReport("", 0), ClusterReport("Available"))
        self.answers: Answers = {
            ReadObject: membership,
            TakeOver: Memory(),
            Now: NOW,
            FindRivals: {},
            ReadCluster: view,
            ReadNamespaceState: NamespaceState(),
            TakeWriteSlot: WriteSlot(0.0),
            InspectServers: well([server(1)]),
            AskLease: True,
            Reserve: True,
            WriteStatus: "2",
            AddFinalizer: "2",
            IsDoubted: False,
            Call: answer or Accepted(JOB),
        }
        self.fails: dict[type[Effect[object]], list[StoreError | None]] = {}
        self.done: list[Effect[object]] = []
        self.told: Callable[[Effect[object]], None] = lambda _: None

    def run(self) -> Requeue | None:
        program = reconcile(KEY, SETTINGS)
        effect = next(program)
        while True:
            self.done += [effect] if isinstance(effect, WRITES) else []
            self.told(effect)
            failures = self.fails.get(type(effect))
            error = failures.pop(0) if failures else None
            try:
                effect = program.throw(error) if error is not None else program.send(self.answers.get(type(effect)))
            except StopIteration as end:
                requeue: Requeue | None = end.value
                return requeue

    @property
    def names(self) -> list[str]:
        return [type(effect).__name__ for effect in self.done]
