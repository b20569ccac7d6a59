"""The lines `audit` of the log: each call at its intent, its answer and its outcome, with all server ids.

They outlive the object. Which line is there when the process dies: the intent's is written after it is stored and
before the call, and whoever finds an intent without an answer writes `interrupted`; the answer's before it is stored;
the outcome's before it is stored, and again if it was not. So a line may be there twice, and none is missing.

Not for: deciding anything, or what Events say (`core.conditions.events`).
"""

import logging
from collections.abc import Sequence
from typing import Final

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.status import Batch, Phase, Status
from nodepool_membership.core.conditions.outcomes import outcomes
from nodepool_membership.runtime.reconcile.store import about

_log = logging.getLogger(__name__)

IDS_PER_LINE: Final = 100
"""With the uids of nodes beside them 8 KB: container runtimes cut lines at 16 KiB."""


def intended(before: Membership, after: Membership, template: str) -> None:
    """An intent is stored; its call is about to be made. `template`: the hash of what the pool installs."""
    known = {batch.batch for batch in before.status.jobs}
    for batch in after.status.jobs:
        if batch.phase is Phase.SUBMITTING and batch.batch not in known:
            edit = after.metadata.last_edit
            told = {"template": template} if template else {}
            if edit is not None:
                told["editedBy"] = edit.manager
                told["editedAt"] = "" if edit.time is None else rfc3339(edit.time)
            _say("intent", after, batch, batch.server_ids, **told)


def answered(
    membership: Membership, intent: Batch, stage: str, *, job_id: str = "", request_id: str | None = None
) -> None:
    """The cloud answered a call, or it is certain that it was not sent; the answer is not stored yet."""
    told = {"jobID": job_id, "requestID": request_id or ""}
    _say(stage, membership, intent, intent.server_ids, **{name: value for name, value in told.items() if value})


def decided(membership: Membership, status: Status) -> None:
    """What became of servers by a decision; `status` is not stored yet."""
    after = {batch.batch: batch for batch in status.jobs}
    for batch in membership.status.open_batches:
        if batch.phase is Phase.SUBMITTING and after.get(batch.batch, batch).phase is not Phase.SUBMITTING:
            _say("interrupted", membership, batch, batch.server_ids)
    for outcome in outcomes(membership.status, status):
        _say("outcome", membership, outcome.batch, outcome.server_ids, result=outcome.result)


def abandoned(membership: Membership, status: Status) -> None:
    """A deleted object is let go with calls open: what becomes of their servers nobody will see."""
    for batch in status.open_batches:
        _say("abandoned", membership, batch, batch.server_ids)


def _say(stage: str, membership: Membership, batch: Batch, server_ids: Sequence[str], **more: str) -> None:
    nodes = dict(zip(batch.server_ids, batch.node_ids, strict=False))
    parts = range(0, len(server_ids), IDS_PER_LINE)
    for number, first in enumerate(parts, 1):
        ids = server_ids[first : first + IDS_PER_LINE]
        fields: dict[str, object] = {
            **about(membership, batch),
            "uid": membership.metadata.uid,
            "stage": stage,
            "operation": batch.operation.value,
            "attempt": batch.attempt,
            **more,
            "servers": len(server_ids),
            "serverIDs": list(ids),
        }
        if any(i in nodes for i in ids):
            fields["nodeUIDs"] = [nodes.get(i, "") for i in ids]
        if len(parts) > 1:
            fields["part"] = f"{number}/{len(parts)}"
        _log.info("audit", extra=fields)
