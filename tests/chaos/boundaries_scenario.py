"""The scenarios: what the cloud is like, what is asked for, who edits it when, and how it has to end.

Not for: what goes wrong with the operator meanwhile (`boundaries`). To add one, append to `SCENARIOS`.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Final

from cce_simulator.config import (
    CLUSTER_ID,
    NODE_POOL_ID,
    BadServer,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
    server_id,
)
from cce_simulator.faults import Answer, FaultRule, lost_answer, throttled
from harness.identity import FEDERATION, STS
from nodepool_membership.api.membership import Json, Membership
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.status import Operation
from told import condition_of

NAME: Final = "workers"


def servers(count: int, first: int = 0) -> tuple[str, ...]:
    return tuple(server_id("chaos", index) for index in range(first, first + count))


@dataclass(frozen=True, slots=True)
class Edit:
    """What a user does once a membership has come so far: a merge patch, or (None) a deletion."""

    when: Callable[[Membership], bool]
    patch: Mapping[str, Json] | None
    name: str = NAME
    """Of the membership that is edited."""
    sees: str = NAME
    """The membership that `when` looks at."""
    home: bool = False
    """It is the namespace that is deleted."""


@dataclass(frozen=True, slots=True)
class End:
    """What a membership has to come to."""

    members: frozenset[str]
    failed: Mapping[str, Collection[FailureReason]] = field(default_factory=dict)
    """The reasons that each may have: who did not hear of a job cannot tell what it said."""
    conflict: bool = False
    """Another membership has the right to some of its servers."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`specs`: fields of spec by the name of the membership; `ends`: None where the object has to be gone.

    Every server that is a member at the end, or in the pool, was accepted exactly once, but for `accepted`:
    how often each of these may have been. None was removed but for `removed`: so with these. The membership that is
    named first is the oldest.
    """

    name: str
    specs: Mapping[str, Mapping[str, Json]]
    ends: Mapping[str, End | None]
    cloud: SimulatorConfig
    edits: tuple[Edit, ...] = ()
    accepted: Mapping[str, Collection[int]] = field(default_factory=dict)
    removed: Mapping[str, Collection[int]] = field(default_factory=dict)
    empties: bool = False
    """No server that was accepted is a node at the end."""
    identity: Mapping[str, Json] = field(default_factory=dict)
    """A spec.identityRef, in place of a Secret."""


def spec(ids: Collection[str], name: str = NAME, **fields: Json) -> dict[str, Mapping[str, Json]]:
    """One membership that lists these servers."""
    listed: list[Json] = [*ids]
    return {name: {"serverIDs": listed, "batchSize": 2, "maxAttempts": 5, **fields}}


_UNKIND: Final = {
    "job_seconds": 60,
    "node_visibility": "late",
    "node_visible_after_seconds": 400,
    "repeat_add": "accept",
}


def cloud(
    *faults: FaultRule, bad: tuple[BadServer, ...] = (), there: tuple[str, ...] = (), **switches: object
) -> SimulatorConfig:
    """One cluster and one pool; jobs of a minute.

    It is as unkind as it may be: nodes show long after their job has ended, and a server
    that is named twice is taken twice.
    """
    pool = NodePoolConfig(id=NODE_POOL_ID, servers=there)
    behaviour = Behaviour.model_validate({**_UNKIND, **switches})
    clusters = (ClusterConfig(id=CLUSTER_ID, node_pools=(pool,)),)
    return SimulatorConfig(clusters=clusters, behaviour=behaviour, bad_servers=bad, faults=faults)


def joined(ids: Collection[str], name: str = NAME) -> dict[str, End | None]:
    return {name: End(frozenset(ids))}


def mostly(ids: Collection[str], failed: str, *reasons: FailureReason) -> dict[str, End | None]:
    """All but one joined."""
    return {NAME: End(frozenset(ids) - {failed}, {failed: reasons})}


def _ready(membership: Membership) -> bool:
    ready = condition_of(membership.status, "Ready")
    return ready is not None and ready.status == "True"


def _joining(membership: Membership) -> bool:
    return membership.status.joining > 0


def _conflicting(membership: Membership) -> bool:
    ready = condition_of(membership.status, "Ready")
    return ready is not None and ready.reason == Reason.CONFLICT


def _owes(membership: Membership) -> bool:
    return membership.status.surplus > 0


def _removing(membership: Membership) -> bool:
    return any(batch.operation is Operation.REMOVE for batch in membership.status.open_batches)


def _names(ids: Collection[str]) -> dict[str, Json]:
    listed: list[Json] = [*ids]
    return {"spec": {"serverIDs": listed}}


_FIVE: Final = servers(5)
_EIGHT: Final = servers(8)


def _lock(route: str) -> FaultRule:
    answer = Answer(status=429, error_code="CCE.01429002", message="the cluster is locked")
    return FaultRule(route=route, times=1, answer=answer)


def _removal(
    name: str, left: Collection[str], removed: Mapping[str, Collection[int]], config: SimulatorConfig | None = None
) -> Scenario:
    """Five servers under `removalPolicy: Remove`, of which some leave the list when all have joined."""
    edits = (Edit(_ready, _names(left)),)
    return Scenario(
        name, spec(_FIVE, removalPolicy="Remove"), joined(left), config or cloud(), edits=edits, removed=removed
    )


_CLAIMED_TWICE: Final = spec(_FIVE[:3]) | spec(_FIVE[2:], "others")


def _conflict(ids: Collection[str]) -> dict[str, End | None]:
    """What the younger of two is left with."""
    return {"others": End(frozenset(ids), conflict=True)}


SCENARIOS: Final = (
    Scenario("plain", spec(_FIVE), joined(_FIVE), cloud()),
    Scenario("parallel", spec(_FIVE, maxParallelJobs=3), joined(_FIVE), cloud()),
    Scenario(
        "two memberships",
        spec(_FIVE) | spec(_EIGHT[5:], "others"),
        joined(_FIVE) | joined(_EIGHT[5:], "others"),
        cloud(lost_answer()),
    ),
    Scenario("seen at once", spec(_FIVE), joined(_FIVE), cloud(node_visibility="atOnce")),
    Scenario("adoption", spec(_FIVE), joined(_FIVE), cloud(there=_FIVE[:2]), accepted=dict.fromkeys(_FIVE[:2], (0,))),
    Scenario("locked and throttled", spec(_FIVE), joined(_FIVE), cloud(_lock("addNodes"), throttled())),
    Scenario("lost answer", spec(_FIVE), joined(_FIVE), cloud(lost_answer())),
    Scenario(
        "lost answer, long job",
        spec(_FIVE),
        joined(_FIVE),
        cloud(lost_answer(status=504), job_seconds=500),
    ),
    Scenario("dropped on its way", spec(_FIVE), joined(_FIVE), cloud(FaultRule(route="addNodes", times=1, drop=True))),
    Scenario(
        "partial failure",
        spec(_FIVE, batchSize=5),
        mostly(_FIVE, _FIVE[1], FailureReason.DISK_PARTITIONED, FailureReason.NODE_ERROR),
        cloud(bad=(BadServer(servers=_FIVE[1:2], way="failInstall"),)),
    ),
    Scenario(
        "failed once, gone, joined later",
        spec(_FIVE, batchSize=5),
        joined(_FIVE),
        cloud(bad=(BadServer(servers=_FIVE[1:2], way="failInstall", times=1),), failed_nodes="vanish"),
        accepted={_FIVE[1]: (2,)},
    ),
    Scenario(
        "never appears once",
        spec(_FIVE, batchSize=5),
        joined(_FIVE),
        cloud(bad=(BadServer(servers=_FIVE[1:2], way="neverAppears", times=1),)),
        accepted={_FIVE[1]: (2,)},
    ),
    Scenario(
        "narrowing by name",
        spec(_EIGHT, batchSize=8),
        mostly(_EIGHT, _EIGHT[5], FailureReason.REFUSED, FailureReason.NEVER_APPEARED),
        cloud(bad=(BadServer(servers=_EIGHT[5:6]),)),
        accepted={_EIGHT[5]: (0,)},
    ),
    Scenario(
        "narrowing by halves",
        spec(_EIGHT, batchSize=8),
        mostly(_EIGHT, _EIGHT[5], FailureReason.REFUSED, FailureReason.NEVER_APPEARED),
        cloud(bad=(BadServer(servers=_EIGHT[5:6], naming="none"),)),
        accepted={_EIGHT[5]: (0,)},
    ),
    Scenario(
        "list edited while joining",
        spec(_FIVE),
        joined(_EIGHT[1:]),
        cloud(),
        edits=(Edit(_joining, _names(_EIGHT[1:])),),
        # The first may be in the first batch, and is released then.
        accepted={_EIGHT[0]: (0, 1)},
    ),
    Scenario("deleted while joining", spec(_FIVE), {NAME: None}, cloud(), edits=(Edit(_joining, None),)),
    Scenario("deleted when joined", spec(_FIVE), {NAME: None}, cloud(), edits=(Edit(_ready, None),)),
    _removal("removal", _FIVE[1:], dict.fromkeys(_FIVE[:1], (1,))),
    _removal(
        "removal, lost answer",
        _FIVE[1:],
        dict.fromkeys(_FIVE[:1], (1,)),
        cloud(lost_answer(route="removeNodes")),
    ),
    _removal(
        "removal, dropped, then locked",
        _FIVE[1:],
        dict.fromkeys(_FIVE[:1], (1,)),
        cloud(FaultRule(route="removeNodes", times=1, drop=True), _lock("removeNodes")),
    ),
    _removal("some removed, others added", _EIGHT[3:], dict.fromkeys(_EIGHT[:3], (1,))),
    Scenario(
        "put back before its removal",
        spec(_FIVE, removalPolicy="Remove"),
        joined(_FIVE),
        cloud(),
        edits=(Edit(_ready, _names(_FIVE[1:])), Edit(_owes, _names(_FIVE))),
    ),
    Scenario(
        "put back during its removal",
        spec(_FIVE, removalPolicy="Remove"),
        joined(_FIVE),
        cloud(remove_seconds=200),
        edits=(Edit(_ready, _names(_FIVE[1:])), Edit(_removing, _names(_FIVE))),
        # The removal may not have been sent, and is found out not to have happened.
        accepted={_FIVE[0]: (1, 2)},
        removed={_FIVE[0]: (0, 1)},
    ),
    Scenario(
        "removed on deletion",
        spec(_FIVE, deletionPolicy="Remove"),
        {NAME: None},
        cloud(lost_answer(route="removeNodes")),
        edits=(Edit(_ready, None),),
        removed=dict.fromkeys(_FIVE, (1,)),
        empties=True,
    ),
    Scenario(
        "removed on deletion while joining",
        spec(_FIVE, deletionPolicy="Remove", batchSize=5),
        {NAME: None},
        cloud(),
        edits=(Edit(_joining, None),),
        # The call may not have been sent.
        accepted=dict.fromkeys(_FIVE, (0, 1)),
        removed=dict.fromkeys(_FIVE, (0, 1)),
        empties=True,
    ),
    Scenario(
        "removal on deletion called off",
        spec(_FIVE, deletionPolicy="Remove"),
        {NAME: None},
        cloud(),
        edits=(Edit(_ready, None), Edit(_removing, {"spec": {"deletionPolicy": "Retain"}})),
        removed=dict.fromkeys(_FIVE, (0, 1)),
    ),
    Scenario(
        "deleted with its namespace",
        spec(_FIVE, deletionPolicy="Remove"),
        {NAME: None},
        cloud(),
        edits=(Edit(_ready, None, home=True), Edit(_ready, None)),
    ),
    Scenario("listed twice", _CLAIMED_TWICE, joined(_FIVE[:3]) | _conflict(_FIVE[3:]), cloud()),
    Scenario(
        "listed twice, then let go",
        _CLAIMED_TWICE,
        joined(_FIVE[:2]) | joined(_FIVE[2:], "others"),
        cloud(),
        edits=(Edit(_conflicting, _names(_FIVE[:2]), sees="others"),),
    ),
    Scenario(
        "listed twice, then off a list that removes",
        _CLAIMED_TWICE | spec(_FIVE[:3], removalPolicy="Remove"),
        joined(_FIVE[:2]) | joined(_FIVE[2:], "others"),
        cloud(lost_answer()),
        edits=(Edit(_conflicting, _names(_FIVE[:2]), sees="others"),),
    ),
    Scenario(
        "listed twice, the owner deleted",
        _CLAIMED_TWICE,
        {NAME: None} | joined(_FIVE[2:], "others"),
        cloud(),
        edits=(Edit(_conflicting, None, sees="others"),),
        accepted=dict.fromkeys(_FIVE[:2], (0, 1)),
    ),
    Scenario(
        "keys of 900 s, a job of two hours",
        spec(_FIVE[:2], joinTimeoutSeconds=10_800),
        joined(_FIVE[:2]),
        cloud(job_seconds=7200, session_seconds=900),
        identity=STS,
    ),
    Scenario(
        "keys that end on the way of a call",
        spec(_FIVE),
        joined(_FIVE),
        cloud(FaultRule(route="addNodes", times=1, delay_seconds=30), session_seconds=20),
        identity=FEDERATION,
    ),
)
