"""A local HTTP server that behaves as the CCE API does, for tests and for trying the operator out.

Not for: production, and not a model of Kubernetes; it knows nothing of the operator.

In a test or bench:

    config = SimulatorConfig(behaviour=Behaviour(job_seconds=2), writes_per_minute=0)
    async with Simulator(config) as simulator:
        simulator.faults.add(lost_answer(status=504))          # the next add is taken, its answer is lost
        ...                                                    # talk to simulator.url as config.ACCESS_KEY
        assert simulator.summary().double_adds == 0
        assert [call.status for call in simulator.ledger.adds()] == [504, 200]

From a shell: `cce-simulator --port 8443 --config simulator.json`; then `curl URL/_sim/summary`.

What can be configured: `config`. What can go wrong: `faults`, `config.BadServer`. The control API: `control`.
"""

from cce_simulator.config import (
    BadServer,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
    server_id,
)
from cce_simulator.faults import Answer, FaultRule, lost_answer, throttled
from cce_simulator.model import ConfigError
from cce_simulator.server import Simulator

__all__ = [
    "Answer",
    "BadServer",
    "Behaviour",
    "ClusterConfig",
    "ConfigError",
    "FaultRule",
    "NodePoolConfig",
    "Simulator",
    "SimulatorConfig",
    "lost_answer",
    "server_id",
    "throttled",
]
