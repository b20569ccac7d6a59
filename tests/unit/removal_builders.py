"""Memberships with members to remove, for tests of `core`.

Not for: the rules. D stays on the list unless told.
"""

from typing import Final

from nodepool_membership.api.spec import RemovalPolicy, Spec
from nodepool_membership.api.status import Operation, Status
from nodepool_membership.core.decision.record import Answer
from nodepool_membership.core.observed.observation import Freshness, Query
from unit.core_builders import (
    SETTINGS,
    Cloud,
    Run,
    a_spec,
    active,
    an_object,
    servers,
)

A, B, C, D = servers(4)
DELAY: Final = SETTINGS.removal_delay
REMOVE: Final = RemovalPolicy.REMOVE
FRESH: Final = Query(listing=Freshness.AFTER_READ)
RECENT: Final = Query(listing=Freshness.RECENT)
WRITE: Final = Query(write=True)
HOME: Final = Query(namespace_state=True)


def removing_spec(*ids: str, batch_size: int = 200, attempts: int = 3, suspend: bool = False) -> Spec:
    return a_spec(*ids, batch_size=batch_size, attempts=attempts, suspend=suspend, removal=REMOVE)


def members(*ids: str, spec: Spec | None = None) -> Run:
    """Settled, all Active."""
    status = Status(1, last_batch=1, members=tuple(sorted(ids)), joined=len(ids), desired=len(ids))
    run = Run(an_object(spec or removing_spec(*ids), status), Cloud(active(ids)))
    run.step()
    return run


def owing(*ids: str, keep: str = D, attempts: int = 3, batch_size: int = 200) -> Run:
    """`ids` have just left the list, which names `keep` still."""
    run = members(*ids, keep)
    run.edit(removing_spec(keep, attempts=attempts, batch_size=batch_size))
    run.step()
    return run


def removal(run: Run, answer: Answer | None = None) -> tuple[str, ...]:
    """The servers that the next step has removed; none if it does not."""
    intent = run.step(answer).intent
    if intent is None:
        return ()
    assert intent.operation is Operation.REMOVE
    return intent.server_ids


def deleted(*ids: str, suspend: bool = False, policy: RemovalPolicy = REMOVE) -> Run:
    run = members(*ids, spec=a_spec(*ids, suspend=suspend, deletion=policy))
    run.delete()
    return run


def due(run: Run) -> Run:
    """Let the deletion be seen, and the removal delay pass."""
    run.step()
    run.wait(DELAY)
    return run
