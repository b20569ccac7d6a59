"""The object as the API server stores it, and what users do to it.

Not for: the operator (`driver`).
"""

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from datetime import datetime

from nodepool_membership.api.membership import Json, Membership, UnreadableStatus, parse_membership, status_json
from nodepool_membership.api.names import APPROVED_PLAN_ANNOTATION, FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Status
from nodepool_membership.core.observed.observation import NamespaceState
from nodepool_membership.core.program.effects import ConflictError
from property.cloud_model import EPOCH, POOL


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
    namespace_state: NamespaceState = field(default_factory=NamespaceState)
    clock: Callable[[], datetime] = lambda: EPOCH
    changed_at: datetime = EPOCH
    listed_until: dict[str, datetime] = field(default_factory=dict)
    """Servers off the list, and since when."""
    given_back: int = 0
    """How often single refusals were found to be about the pool, so that they cost nobody an attempt (rule P15)."""
    offered: tuple[str, frozenset[str]] = ("", frozenset())
    """The plan that the status showed last, and whom it can have been about; nobody once it is void."""
    covered: frozenset[str] = frozenset()
    """Servers that a user has said yes to, and that have not joined since."""
    jumped: float = 0.0
    """So far, in seconds, the operators' clocks have been apart from the cloud's."""

    def __post_init__(self) -> None:
        self.lose_status()

    def lose_status(self) -> None:
        """An empty status, as the schema defaults it."""
        ready: Json = {"type": "Ready", "status": "Unknown", "reason": "Pending"}
        self.status = {"observedGeneration": -1, "conditions": [ready]}
        self._next()

    def edit(self, **fields: Json) -> None:
        """A user edits the spec."""
        spec = {**self.spec, **fields}
        emptied = self.spec["serverIDs"] and not spec["serverIDs"]
        if spec == self.spec or (emptied and spec.get("removalPolicy") == "Remove"):
            # The second the schema refuses.
            return
        left = self.listed() - _ids(spec)
        if _ids(spec) != self.listed():
            self.void()
        self.listed_until = {i: t for i, t in self.listed_until.items() if i not in _ids(spec)}
        self.listed_until |= dict.fromkeys(left, self.clock())
        self.spec = spec
        self.generation += 1
        self._next()

    def listed(self) -> frozenset[str]:
        return _ids(self.spec)

    def delete(self) -> None:
        """A user deletes the object; without finalizers it is gone at once."""
        if self.deleted is None:
            self.deleted = self.clock()
            self.void()
            self.generation += 1
            self._next()
            self.gone = not self.finalizers

    def recreate(self) -> None:
        """A user creates the object anew under its name, with the spec that it had."""
        self.uid += 1
        self.void()
        self.deleted, self.gone, self.generation, self.annotations, self.namespace_state = (
            None,
            False,
            1,
            {},
            NamespaceState(),
        )
        self.lose_status()

    def void(self) -> None:
        """Another list or template, or a deletion: what was offered until now says nothing any more."""
        self.offered, self.covered = (self.offered[0], frozenset()), frozenset()

    def approve(self, *, yes: bool) -> None:
        """A user says yes to the plan that the status shows, or takes it back."""
        plan, ids = self.offered
        if yes and plan:
            self.annotate(**{APPROVED_PLAN_ANNOTATION: plan})
            self.covered = ids
        elif not yes and self.annotations.pop(APPROVED_PLAN_ANNOTATION, None) is not None:
            self.version += 1
            self.covered = frozenset()

    def annotate(self, **annotations: str) -> None:
        self.annotations.update(annotations)
        self._next()

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
        self.given_back += _refuses(status) and not _refuses(self.read().status)
        self.status = json.loads(json.dumps(status_json(status)))
        self.writes += 1
        if status.plan is not None and status.plan.id != self.offered[0]:
            self.offered = (status.plan.id, self.listed() - set(status.members))
        self.covered -= set(status.members)
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
            raise ConflictError

    def _next(self) -> str:
        self.version += 1
        self.changed_at = self.clock()
        return str(self.version)


def _refuses(status: Status) -> bool:
    return status.halt is not None and status.halt.reason is Reason.POOL_REFUSES


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
