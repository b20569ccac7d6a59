"""A whole small world for cluster tests, the demo and the bench: control plane, simulator, operator as processes.

Not for: Kubernetes itself (`controlplane`) or the cloud itself (`cce_simulator`).
"""

from harness.cluster import Cluster, MembershipSpec, Object
from harness.operator_process import Operator
from harness.programs import Program, ProgramError, wait_for
from harness.rendered import Manifest, Rendered
from harness.scene import Case, Scene
from harness.simulator_process import SimulatorProcess

__all__ = [
    "Case",
    "Cluster",
    "Manifest",
    "MembershipSpec",
    "Object",
    "Operator",
    "Program",
    "ProgramError",
    "Rendered",
    "Scene",
    "SimulatorProcess",
    "wait_for",
]
