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
from nodepool_membership.api.membership import Json, Membership
from nodepool_membership.api.reasons import FailureReason

NAME: Final = "workers"


def servers(count: int, first: int = 0) -> tuple[str, ...]:
    return tuple(server_id("chaos", index) for index in range(first, first + count))


@dataclass(frozen=True, slots=True)
class Edit:
    """What a user does once the object has come so far: a merge patch, or (None) a deletion."""

    when: Callable[[Membership], bool]
    patch: Mapping[str, Json] | None
    name: str = NAME


@dataclass(frozen=True, slots=True)
class End:
    """What a membership has to come to."""

    members: frozenset[str]
    failed: Mapping[str, Collection[FailureReason]] = field(default_factory=dict)
    """The reasons that each may have: who did not hear of a job cannot tell what it said. None: it is all well."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """`specs`: fields of spec by the name of the membership; `ends`: None where the object has to be gone.

    Every server that is a member at the end, or in the pool, was accepted exactly once, but for `accepted`:
    how often each of these may have been.
    """

    name: str
    specs: Mapping[str, Mapping[str, Json]]
    ends: Mapping[str, End | None]
    cloud: SimulatorConfig
    edits: tuple[Edit, ...] = ()
    accepted: Mapping[str, Collection[int]] = field(default_factory=dict)
    removed: frozenset[str] = frozenset()
    """Servers that a removal was accepted for."""


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
    ready = membership.status.condition("Ready")
    return ready is not None and ready.status == "True"


def _joining(membership: Membership) -> bool:
    return membership.status.joining > 0


def _names(ids: Collection[str]) -> dict[str, Json]:
    listed: list[Json] = [*ids]
    return {"spec": {"serverIDs": listed}}


_FIVE: Final = servers(5)
_EIGHT: Final = servers(8)
_LOCKED: Final = FaultRule(
    route="addNodes", times=1, answer=Answer(status=429, error_code="CCE.01429002", message="the cluster is locked")
)

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
    Scenario("locked and throttled", spec(_FIVE), joined(_FIVE), cloud(_LOCKED, throttled())),
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
)
