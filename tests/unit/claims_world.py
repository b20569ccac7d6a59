"""An index of claims with a clock, and small builders of the memberships that claim.

Not for: what is claimed by whom (`test_runtime_claims`, `test_runtime_claims_abroad`).
"""

from dataclasses import replace
from datetime import datetime

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.status import Batch, Operation, Phase, Status
from nodepool_membership.core.state.ledger import Ledger
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.scheduling.queue import Key
from unit.core_builders import NOW, SECOND, WINDOW, a_batch, a_spec, an_object


class World:
    """An index, the clock, and whom it woke."""

    def __init__(self) -> None:
        self.now: datetime = NOW
        self.woken: list[Key] = []
        self.claims = Claims(self.woken.append, WINDOW, now=lambda: self.now)

    def sees(self, *found: Membership | UnreadableStatus, known: Ledger | None = None) -> None:
        """`known`: what the process remembers of their calls."""
        for one in found:
            self.claims.note(one, known)
            self.look_at(one.metadata.namespace)

    def look_at(self, namespace: str) -> None:
        """All that it lists has a say from now on."""
        for _ in self.claims.indexing(namespace):
            pass

    def better(self, membership: Membership) -> dict[str, str]:
        """Servers that others have the right to, and who."""
        return {i: rival.owner for i, rival in self.claims.rivals(membership).items() if rival.better}


def of(
    name: str, *ids: str, age: int = 0, namespace: str = "ns", uid: str | None = None, status: Status | None = None
) -> Membership:
    """A membership, the older the larger `age`; other pool, cluster and project than its namesakes."""
    made = an_object(a_spec(*ids), status)
    pool = replace(made.spec.node_pool, cluster_id=f"cluster of {name}", node_pool_id=f"pool of {name}")
    meta = replace(
        made.metadata, name=name, namespace=namespace, uid=uid or f"uid-{name}", creation_timestamp=NOW - age * SECOND
    )
    return replace(made, metadata=meta, spec=replace(made.spec, node_pool=pool))


def having(membership: Membership, members: tuple[str, ...] = (), jobs: tuple[Batch, ...] | None = None) -> Membership:
    jobs = membership.status.jobs if jobs is None else jobs
    return replace(membership, status=replace(membership.status, last_batch=1, members=members, jobs=jobs))


def with_open(membership: Membership, *ids: str) -> Membership:
    return having(membership, jobs=(a_batch(Phase.RUNNING, *ids),))


def intent(*ids: str, operation: Operation = Operation.ADD) -> Batch:
    nodes = ids if operation is Operation.REMOVE else ()
    return replace(a_batch(Phase.SUBMITTING, *ids), operation=operation, node_ids=nodes)
