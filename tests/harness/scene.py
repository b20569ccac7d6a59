"""One membership on its stage: its corner of the cloud, its operator, and what a test does to them.

Not for: starting them; the fixtures do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from cce_simulator.config import (
    ACCESS_KEY,
    CLUSTER_ID,
    NODE_POOL_ID,
    AccessKeyConfig,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
    TokenConfig,
    generated_id,
    server_id,
)
from cce_simulator.faults import FaultRule
from harness.cluster import Cluster, MembershipSpec, Object, condition, finalizers, has_reason, is_ready, status
from harness.operator_process import Operator
from harness.programs import wait_for
from harness.simulator_process import Document, SimulatorProcess

RECONCILE: Final = "cce.nodepools.dev/reconcile-requested-at"
RESET: Final = "cce.nodepools.dev/reset-requested-at"
_PATIENCE: Final = 30.0


def server_ids(count: int, seed: str = "scene") -> list[str]:
    """Sorted, as the operator names them."""
    return sorted(server_id(seed, index) for index in range(count))


@dataclass(frozen=True)
class Corner:
    """The part of a cloud that one membership uses: the simulator's only one, unless told."""

    cluster_id: str = CLUSTER_ID
    node_pool_id: str = NODE_POOL_ID
    access_key: str = ACCESS_KEY
    secret_name: str = "cce-credentials"

    def concerns(self, call: Document) -> bool:
        return self.cluster_id in str(call["path"]) or self.access_key == call["access_key"]


@dataclass(frozen=True)
class Case:
    """A membership of a crowd, and what is special about its corner of the cloud.

    Its cluster, pool, access key, Secret and servers are its own and follow from its name.
    """

    name: str
    faults: Sequence[FaultRule] = ()
    """They hit the calls of its access key only."""
    pool_phase: str = ""
    cluster_phase: str = "Available"
    key: Mapping[str, object] = field(default_factory=dict)
    """More fields of its AccessKeyConfig."""
    tokens: Sequence[TokenConfig] = ()
    secret: Mapping[str, str | None] | None = field(default_factory=dict)
    """What its Secret has beside, or (a value of None) lacks of, its access key; None: there is no Secret."""
    pool: Mapping[str, str | None] = field(default_factory=dict)
    """Other values of spec.nodePool; None: left out."""
    spec: Mapping[str, object] = field(default_factory=dict)

    @property
    def corner(self) -> Corner:
        cluster_id = generated_id(self.name, "cluster", 0)
        return Corner(cluster_id, generated_id(self.name, "pool", 0), f"KEY-OF-{self.name.upper()}", self.name)

    @property
    def secret_key(self) -> str:
        return f"secret-key-of-{self.name}"

    @property
    def servers(self) -> list[str]:
        return server_ids(2, self.name)

    def good_secret(self) -> dict[str, str]:
        return {"accessKey": self.corner.access_key, "secretKey": self.secret_key}

    def its_secret(self) -> dict[str, str] | None:
        if self.secret is None:
            return None
        return {k: v for k, v in {**self.good_secret(), **self.secret}.items() if v is not None}

    def good_key(self) -> dict[str, object]:
        return {"accessKey": self.corner.access_key, "secretKey": self.secret_key}

    def configure(self, config: SimulatorConfig) -> SimulatorConfig:
        """The cloud with this corner added."""
        pool = NodePoolConfig(id=self.corner.node_pool_id, phase=self.pool_phase)
        cluster = ClusterConfig(id=self.corner.cluster_id, phase=self.cluster_phase, node_pools=(pool,))
        key = AccessKeyConfig.from_json({**self.good_key(), **self.key})
        own = {"access_key": self.corner.access_key, "name": self.name}
        return config.model_copy(
            update={
                "clusters": (*config.clusters, cluster),
                "access_keys": (*config.access_keys, key),
                "tokens": (*config.tokens, *self.tokens),
                "faults": (*config.faults, *(fault.model_copy(update=own) for fault in self.faults)),
            }
        )


@dataclass
class Scene:
    """One membership."""

    cluster: Cluster
    namespace: str
    simulator: SimulatorProcess
    operator: Operator
    name: str = "m"
    corner: Corner = field(default_factory=Corner)

    def create(self, servers: Sequence[str], *, pool: Mapping[str, str | None] | None = None, **spec: object) -> None:
        """Create the membership in its corner; `pool` has other values of spec.nodePool."""
        corner = self.corner
        node_pool = {
            "endpoint": self.simulator.url,
            "projectID": MembershipSpec.project_id,
            "clusterID": corner.cluster_id,
            "nodePoolID": corner.node_pool_id,
            **(pool or {}),
        }
        more = {"nodePool": {k: v for k, v in node_pool.items() if v is not None}, **spec}
        secret = None if "identityRef" in spec else corner.secret_name
        self.cluster.create(
            MembershipSpec(self.name, servers, self.simulator.url, self.namespace, secret=secret, more=more)
        )

    def secret(self, data: Mapping[str, str]) -> None:
        """Make the Secret anew with these values."""
        self.cluster.put_secret(self.namespace, self.corner.secret_name, data)

    def get(self) -> Object:
        return self.cluster.get(self.namespace, self.name)

    def edit(self, **spec: object) -> None:
        self.cluster.patch(self.namespace, self.name, {"spec": spec})

    def edit_status(self, **changes: object) -> None:
        self.cluster.patch(self.namespace, self.name, {"status": changes}, subresource="status")

    def request(self, token: str, *, reset: bool = False) -> None:
        """Ask by annotation to look again now, and for a reset."""
        names = (RECONCILE, RESET) if reset else (RECONCILE,)
        annotations = dict.fromkeys(names, token)
        self.cluster.patch(self.namespace, self.name, {"metadata": {"annotations": annotations}})

    def until(self, what: str, holds: Callable[[Object], bool], *, seconds: float = _PATIENCE) -> Object:
        """Wait for a state of the membership, while the operator runs."""

        def asked(membership: Object) -> bool:
            self.operator.check()
            return holds(membership)

        return self.cluster.wait(self.namespace, self.name, what, asked, seconds=seconds)

    def until_ready(self) -> Object:
        return self.until("Ready", is_ready)

    def until_reason(self, reason: str) -> Object:
        return self.until(reason, has_reason(reason))

    def until_released(self) -> None:
        """Wait until the finalizer is gone."""
        self.until("no finalizer", lambda membership: not finalizers(membership))

    def until_waits(self, reason: str, *words: str) -> Object:
        """Wait until it is not Ready for this reason and tried again, and check that the message says all words."""
        # The same reason with Unknown was told before the edit that is not Ready for it.
        told = {"reason": reason, "status": "False"}
        membership = self.until(f"not Ready: {reason}", lambda m: told.items() <= condition(m).items())
        ready, also = condition(membership), condition(membership, "Reconciling")
        if reason in {"RegionUnknown", "EndpointNotAllowed"}:
            # Nothing passes by itself here.
            assert (also, condition(membership, "Stalled")["reason"]) == ({}, reason)
        else:
            assert (also.get("status"), also.get("reason")) == ("True", "ProgressingWithRetry")
            assert condition(membership, "Stalled") == {}
        for word in words:
            assert word in str(ready["message"]), f"{word!r} is not in {ready['message']!r}"
        return membership

    def until_joined(self, servers: Sequence[str]) -> Object:
        """Wait until all is done, and check that each server was accepted once."""
        done = self.until_ready()
        assert status(done)["members"] == servers
        assert self.accepted(servers) == dict.fromkeys(servers, 1)
        self.until_released()
        return done

    def until_logged(self, text: str, *, times: int = 1) -> None:
        """Wait for a text in what the operator has logged since it was started."""

        def logged() -> bool | None:
            self.operator.check()
            return self.operator.output().count(text) >= times or None

        wait_for(f"{text!r} in the operator's log", logged, seconds=_PATIENCE)

    def calls(self, route: str | None = None) -> Sequence[Document]:
        """The calls to its corner that the simulator has decided, oldest first."""
        return [call for call in self.simulator.entries(route) if self.corner.concerns(call)]

    def until_called(self, route: str, *, times: int = 1) -> Sequence[Document]:
        """Wait until its corner has so many calls of a route; returns them all."""

        def called() -> Sequence[Document] | None:
            found = self.calls(route)
            return found if len(found) >= times else None

        return wait_for(f"{times} calls of {route}", called, seconds=_PATIENCE)

    def until_hit(self, fault: str) -> None:
        """Wait until the fault of this name has hit a call, which may still be held up."""

        def hit() -> bool | None:
            faults = self.simulator.get("faults")["faults"]
            assert isinstance(faults, list)
            return any(f["rule"].get("name") == fault and f["hits"] for f in faults) or None

        wait_for(f"fault {fault} hits", hit, seconds=_PATIENCE)

    def adds(self) -> Sequence[Document]:
        return self.calls("addNodes")

    def accepted(self, servers: Sequence[str]) -> dict[str, int]:
        """How often an add was accepted for each of these servers, if ever."""
        return {server: times for server, times in self.simulator.accepted().items() if server in servers}

    def event_reasons(self) -> set[str]:
        """Of all Events about it."""
        return {str(event["reason"]) for event in self.cluster.events(self.namespace) if _about(event) == self.name}


def _about(event: Object) -> object:
    regarding = event["regarding"]
    assert isinstance(regarding, dict)
    return regarding["name"]
