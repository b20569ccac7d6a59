"""The memberships of a run and the cloud they live in: what each lists, which servers are bad, all from the seed.

Not for: what is done to them while they join (`kills_steering`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random
from typing import Final

from cce_simulator.config import (
    BadServer,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
    generated_id,
    server_id,
)
from harness import MembershipSpec

NAMESPACE: Final = "kills"
MAX_ATTEMPTS: Final = 6
"""A call of unknown outcome costs an attempt (rule P12); `kills_steering.MAX_CUTS` keeps good servers well below it."""
MAX_BATCH: Final = 4
_MEMBERSHIPS_PER_CLUSTER: Final = 16
_PAGED: Final = 250
"""Nodes of others in the first cluster: more than the operator asks for in one page."""
_WAYS: Final = ("refuseCall", "failInstall", "nodePhase")
_NAMINGS: Final = ("first", "upper", "all", "none", "foreign")


def dice(seed: int, *what: object) -> Random:
    """The same numbers for the same seed and use of them."""
    return Random("/".join(map(str, (seed, *what))))  # noqa: S311 - that they can be had again is their point


@dataclass(frozen=True, slots=True)
class Member:
    """A membership to be made."""

    name: str
    cluster_id: str
    node_pool_id: str
    servers: tuple[str, ...]
    bad: Mapping[str, BadServer] = field(default_factory=dict)
    batch_size: int = 1
    max_parallel_jobs: int = 1

    @property
    def good(self) -> frozenset[str]:
        return frozenset(self.servers) - self.bad.keys()

    def spec(self, endpoint: str) -> MembershipSpec:
        more = {
            "batchSize": self.batch_size,
            "maxParallelJobs": self.max_parallel_jobs,
            "maxAttempts": MAX_ATTEMPTS,
        }
        return MembershipSpec(
            self.name, self.servers, endpoint, NAMESPACE, self.cluster_id, self.node_pool_id, more=more
        )


def fleet(seed: int, count: int) -> tuple[Member, ...]:
    """So many memberships, spread over clusters of their own; the first cluster's listing has several pages."""
    random = dice(seed, "fleet")
    return tuple(_member(random, f"{seed}-{number}", number) for number in range(count))


def _member(random: Random, seed: str, number: int) -> Member:
    servers = tuple(server_id(f"kills-{seed}", index) for index in range(random.randint(2, 9)))
    # At most two: three single refusals in a row would be the pool's fault (rule P15), three failures in a batch pull
    # the brake (rule P26).
    chosen = random.sample(servers, random.choice((0, 0, 1, 2)))
    bad = {server: _bad(random, server) for server in chosen}
    cluster = number // _MEMBERSHIPS_PER_CLUSTER
    return Member(
        f"m-{number}",
        generated_id("kills", "cluster", cluster),
        generated_id("kills", "pool", cluster),
        servers,
        bad,
        random.randint(1, MAX_BATCH),
        random.choice((1, 1, 2)),
    )


def _bad(random: Random, server: str) -> BadServer:
    return BadServer.from_json({"servers": [server], "way": random.choice(_WAYS), "naming": random.choice(_NAMINGS)})


def cloud(seed: int, members: tuple[Member, ...]) -> SimulatorConfig:
    """The cloud for these memberships; what the documents leave open goes one way or the other with the seed."""
    random = dice(seed, "cloud")
    behaviour = {
        "jobSeconds": 0.5,
        # A second add of a server is taken, so that it cannot hide behind a refusal.
        "repeatAdd": "accept",
        "subJobs": random.choice(("embedded", "separate", "none")),
        "subJobServerID": random.choice((True, False)),
        "partialFailurePhase": random.choice(("Failed", "Success")),
        "nodeVisibility": random.choice(("atOnce", "atEnd")),
        "nodesActive": random.choice(("spread", "atEnd")),
        "paging": random.choice(("marker", "markerWithoutPageInfo")),
        "errorBody": random.choice(("full", "documented", "older")),
    }
    pools = {member.cluster_id: member.node_pool_id for member in members}
    clusters = tuple(
        ClusterConfig(
            id=cluster_id,
            node_pools=(NodePoolConfig(id=pool_id, server_count=0 if index else _PAGED),),
        )
        for index, (cluster_id, pool_id) in enumerate(pools.items())
    )
    return SimulatorConfig(
        seed=f"kills-{seed}",
        clusters=clusters,
        behaviour=Behaviour.from_json(behaviour),
        bad_servers=tuple(rule for member in members for rule in member.bad.values()),
        writes_per_minute=0,
        ledger_reads="counts",
    )
