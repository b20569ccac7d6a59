"""What the API server stores: objects as JSON by the CRD's public names, and what users do to them.

Not for: the operator, of which nothing is known here.
"""

import json
from collections.abc import Iterable, Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, NamedTuple

from explore.physics import POOL

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
FINALIZER: Final = "cce.nodepools.dev/release"
RESET: Final = "cce.nodepools.dev/reset-requested-at"
RECONCILE: Final = "reconcile.fluxcd.io/requestedAt"
RESET_ONLY: Final = "cce.nodepools.dev/reset-only"
PAUSED: Final = "cce.nodepools.dev/paused"
APPROVED: Final = "cce.nodepools.dev/approved-plan"
MARK: Final = "nodepool-membership"
"""The key of a mark; its value is the pool's id."""
NEW_STATUS: Final = '{"observedGeneration":-1,"conditions":[{"type":"Ready","status":"Unknown","reason":"Pending"}]}'


@lru_cache(maxsize=100_000)
def moment(seconds: int) -> datetime:
    return EPOCH + timedelta(seconds=seconds)


@lru_cache(maxsize=100_000)
def text_of(seconds: int) -> str:
    return moment(seconds).strftime("%Y-%m-%dT%H:%M:%SZ")


def server_id(server: int) -> str:
    return f"aaaaaaaa-0000-4000-8000-00000000000{server}"


def server_of(text: str) -> int:
    return int(text[-1])


class Spec(NamedTuple):
    servers: frozenset[int]
    removal: str = "Retain"
    deletion: str = "Retain"
    drift: str = "Report"
    suspend: bool = False
    batch: int = 200
    parallel: int = 1
    attempts: int = 3
    timeout: int = 600
    canary: int = 0
    approval: str = "Automatic"
    preflight: str = "Report"
    mark: bool = False
    """Only servers with a mark may be wiped."""


_OPEN: Final = frozenset({"Submitting", "Running", "Verifying"})


class Offer(NamedTuple):
    """A plan that a status showed, and the servers that it can have been about: to be wiped, to be removed."""

    plan: str = ""
    add: frozenset[int] = frozenset()
    remove: frozenset[int] = frozenset()


class Object(NamedTuple):
    """A stored object; `uid` 0: there is none under its name."""

    namespace: str
    name: str
    spec: Spec
    uid: int = 1
    version: int = 1
    generation: int = 1
    created: int = 0
    deleted: int | None = None
    held: bool = False
    """It has the operator's finalizer."""
    reset: int = 0
    """The serial of the last reset that was asked for."""
    only: int | None = None
    """The server that the last reset is narrowed to."""
    paused: str = ""
    """Where the annotation that pauses it is: "object", "namespace" or nowhere."""
    asked: int = 0
    status: str = NEW_STATUS
    kept: str | None = None
    """A backup of the status."""
    surplus: frozenset[int] = frozenset()
    """Servers that a user took off the list under Remove: a removal was asked for."""
    offered: Offer = Offer()
    """The plan that the status shows, or showed last; about nobody once it is void."""
    approved: Offer = Offer()
    """What a user has said yes to, by the annotation; who joined since is taken off."""

    @property
    def there(self) -> bool:
        return self.uid > 0


@lru_cache(maxsize=200_000)
def body(stored: Object) -> bytes:
    """The object as the API server sends it."""
    annotations = {RESET: str(stored.reset), RECONCILE: str(stored.reset)} if stored.reset else {}
    if stored.asked:
        annotations[RECONCILE] = f"{stored.reset}.{stored.asked}"
    if stored.only is not None:
        annotations[RESET_ONLY] = server_id(stored.only)
    if stored.paused == "object":
        annotations[PAUSED] = "wait"
    if stored.approved.plan:
        annotations[APPROVED] = stored.approved.plan
    metadata: dict[str, Any] = {
        "name": stored.name,
        "namespace": stored.namespace,
        "uid": f"0d5c1d7e-0000-0000-0000-{stored.uid:012d}",
        "resourceVersion": str(stored.version),
        "generation": stored.generation,
        "creationTimestamp": text_of(stored.created),
        "finalizers": [FINALIZER] if stored.held else [],
        "annotations": annotations,
    }
    if stored.deleted is not None:
        metadata["deletionTimestamp"] = text_of(stored.deleted)
    head = json.dumps({"metadata": metadata, "spec": spec_json(stored.spec)})
    return f'{head[:-1]},"status":{stored.status}}}'.encode()


def spec_json(spec: Spec) -> dict[str, Any]:
    pool = {
        "region": "cn-north-4",
        "projectID": "0123456789abcdef0123456789abcdef",
        "clusterID": "11111111-2222-3333-4444-555555555555",
        "nodePoolID": POOL,
    }
    return {
        "nodePool": pool,
        "credentialsRef": {"name": "cce"},
        "serverIDs": [server_id(s) for s in sorted(spec.servers)],
        "removalPolicy": spec.removal,
        "deletionPolicy": spec.deletion,
        "driftPolicy": spec.drift,
        "suspend": spec.suspend,
        "batchSize": spec.batch,
        "maxParallelJobs": spec.parallel,
        "maxAttempts": spec.attempts,
        "joinTimeoutSeconds": spec.timeout,
        "rollout": {"canary": spec.canary},
        "approval": spec.approval,
        "preflight": {"mode": spec.preflight, **({"requiredTag": {"key": MARK}} if spec.mark else {})},
    }


def edited(stored: Object, spec: Spec) -> Object | None:
    """A user edits the spec; None where the schema refuses it, or nothing changes."""
    if spec == stored.spec or (stored.spec.servers and not spec.servers and spec.removal == "Remove"):
        return None
    surplus = stored.surplus - spec.servers
    left = stored.spec.servers - spec.servers
    # What left under Remove was asked to go; whoever turns to Retain takes the wish back.
    surplus = surplus | left if spec.removal == "Remove" else frozenset()
    if spec.servers != stored.spec.servers:
        stored = voided(stored)
    return stored._replace(spec=spec, generation=stored.generation + 1, version=stored.version + 1, surplus=surplus)


def deleted(stored: Object, now: int) -> Object:
    """A user deletes the object; without a finalizer it is gone at once."""
    if not stored.held:
        return stored._replace(uid=0, version=stored.version + 1)
    return voided(stored)._replace(deleted=now, generation=stored.generation + 1, version=stored.version + 1)


def made_anew(stored: Object, uid: int, now: int) -> Object:
    return Object(stored.namespace, stored.name, stored.spec, uid, stored.version + 1, 1, now)


def voided(stored: Object) -> Object:
    """Another list, another template or a deletion: a yes to what was offered until now says nothing any more."""
    return stored._replace(offered=Offer(stored.offered.plan), approved=Offer(stored.approved.plan))


def looked_at(stored: Object, there: Set[int], before: str) -> Object:
    """Its status has changed: what it offers, and who of the approved has joined; `there`: who has a node.

    Nobody is offered for whom a call is under way. A member is offered again while it has no node.
    """
    status = parsed(stored.status)
    members = _servers(status.get("members", []))
    called = _servers(i for job in open_jobs(status) for i in job.get("serverIDs", []))
    plan = status.get("plan", {}).get("id", "")
    if plan and plan != stored.offered.plan:
        remove = stored.surplus if stored.deleted is None else members | stored.surplus
        add = stored.spec.servers - (members & there)
        stored = stored._replace(offered=Offer(plan, add - called, remove - called))
    joined = members & (there | (members - _servers(parsed(before).get("members", []))))
    approved = stored.approved
    return stored._replace(approved=approved._replace(add=approved.add - joined))


def open_jobs(status: dict[str, Any]) -> list[dict[str, Any]]:
    """The calls that a status says are under way."""
    return [job for job in status.get("jobs", []) if job["phase"] in _OPEN]


def _servers(ids: Iterable[str]) -> frozenset[int]:
    return frozenset(server_of(i) for i in ids)


def with_status(stored: Object, status: str) -> Object:
    return stored._replace(status=status, version=stored.version + 1)


@lru_cache(maxsize=100_000)
def parsed(status: str) -> dict[str, Any]:
    """The status as JSON."""
    found: dict[str, Any] = json.loads(status)
    return found
