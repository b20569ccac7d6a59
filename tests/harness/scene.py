"""One membership on its stage: its namespace, its cloud, its operator, and what a test does to them.

Not for: starting them (the fixtures do) or several memberships.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from cce_simulator.config import SimulatorConfig, server_id
from harness.cluster import Cluster, MembershipSpec, Object, condition, has_reason, is_ready
from harness.operator_process import Operator
from harness.programs import wait_for
from harness.simulator_process import Document, SimulatorProcess

RECONCILE: Final = "cce.nodepools.dev/reconcile-requested-at"
RESET: Final = "cce.nodepools.dev/reset-requested-at"
_PATIENCE: Final = 30.0


def server_ids(count: int) -> list[str]:
    """Sorted, as the operator names them."""
    return sorted(server_id("scene", index) for index in range(count))


@dataclass
class Scene:
    """The membership `m`."""

    cluster: Cluster
    namespace: str
    simulator: SimulatorProcess
    operator: Operator
    name: str = "m"

    def create(self, servers: Sequence[str], *, endpoint: str | None = None, **spec: object) -> None:
        """Create the membership; further fields of spec outrank the simulator's defaults."""
        url = endpoint or self.simulator.url
        self.cluster.create(MembershipSpec(self.name, servers, url, self.namespace, more=spec))

    def pool(self, **fields: object) -> Object:
        """`spec.nodePool` as the simulator's, with other values for some fields."""
        pool = MembershipSpec(self.name, (), self.simulator.url, self.namespace).manifest()["spec"]
        assert isinstance(pool, dict)
        return {**pool["nodePool"], **fields}

    def secret(self, config: SimulatorConfig | None = None, **data: str) -> None:
        """Create or replace the Secret: these values, or the simulator's first access key."""
        self.cluster.create_secret(self.namespace, config, **data)

    def get(self) -> Object:
        return self.cluster.get(self.namespace, self.name)

    def edit(self, **spec: object) -> None:
        self.cluster.patch(self.namespace, self.name, {"spec": spec})

    def request(self, token: str, *, reset: bool = False) -> None:
        """Ask by annotation to look again now, and for a reset."""
        names = (RECONCILE, RESET) if reset else (RECONCILE,)
        annotations = dict.fromkeys(names, token)
        self.cluster.patch(self.namespace, self.name, {"metadata": {"annotations": annotations}})

    def until(self, what: str, holds: Callable[[Object], bool], *, seconds: float = _PATIENCE) -> Object:
        def asked(membership: Object) -> bool:
            self.operator.check()
            return holds(membership)

        return self.cluster.wait(self.namespace, self.name, what, asked, seconds=seconds)

    def until_ready(self, *, seconds: float = _PATIENCE) -> Object:
        return self.until("Ready", is_ready, seconds=seconds)

    def until_reason(self, reason: str, *, seconds: float = _PATIENCE) -> Object:
        return self.until(reason, has_reason(reason), seconds=seconds)

    def until_says(self, text: str, *, seconds: float = _PATIENCE) -> Object:
        """Wait for a text in Ready's message."""
        return self.until(text, lambda m: text in str(condition(m).get("message")), seconds=seconds)

    def until_logged(self, text: str, *, times: int = 1, seconds: float = _PATIENCE) -> None:
        """Wait for a text in what the operator has logged since it was started."""

        def logged() -> bool | None:
            self.operator.check()
            return self.operator.output().count(text) >= times or None

        wait_for(f"{text!r} in the operator's log", logged, seconds=seconds)

    def until_called(self, route: str, *, times: int = 1, seconds: float = _PATIENCE) -> Sequence[Document]:
        """Wait until the ledger has so many calls of a route; returns them all."""

        def called() -> Sequence[Document] | None:
            entries = self.simulator.entries(route)
            return entries if len(entries) >= times else None

        return wait_for(f"{times} calls of {route}", called, seconds=seconds)

    def until_hit(self, fault: str, *, seconds: float = _PATIENCE) -> None:
        """Wait until the fault of this name has hit a call, which may still be held up."""

        def hit() -> bool | None:
            faults = self.simulator.get("faults")["faults"]
            assert isinstance(faults, list)
            return any(f["rule"].get("name") == fault and f["hits"] for f in faults) or None

        wait_for(f"fault {fault} hits", hit, seconds=seconds)

    def adds(self) -> Sequence[Document]:
        """The add calls that the simulator has decided."""
        return self.simulator.entries("addNodes")
