"""Kustomizations of a test's own over the shipped folders, rendered and tried.

Not for what is tried with them.
"""

from collections.abc import Mapping
from pathlib import Path

import yaml

from cce_simulator.config import AccessKeyConfig, Behaviour, SimulatorConfig
from controlplane import ControlPlane
from harness.cluster import Cluster, MembershipSpec, is_ready
from harness.operator_process import Operator
from harness.rendered import Rendered
from harness.scene import server_ids
from harness.simulator_process import SimulatorProcess

TEAM = "cce-system"
"""The namespace of the shipped samples."""
KEY = AccessKeyConfig(access_key="OLD-ACCESS-KEY-0000", secret_key="old-secret-key-of-the-simulator")
NEXT_KEY = AccessKeyConfig(access_key="NEW-ACCESS-KEY-0000", secret_key="new-secret-key-of-the-simulator")
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0, access_keys=(KEY, NEXT_KEY))


def write(folder: Path, kustomization: Mapping[str, object], **files: object) -> Path:
    """A folder with this kustomization and these YAML files."""
    folder.mkdir()
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(dict(kustomization)))
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content))
    return folder


def render(control_plane: ControlPlane, folder: Path) -> Rendered:
    return Rendered(control_plane.kubectl("kustomize", str(folder)).stdout)


def join(cluster: Cluster, simulator: SimulatorProcess, operator: Operator, namespace: str = TEAM) -> None:
    """A membership becomes Ready, and its servers were added once."""
    operator.wait_ready()
    operator.wait_leads()
    cluster.create_secret(namespace, QUICK)
    wanted = server_ids(2)
    cluster.create(MembershipSpec("pool", wanted, simulator.url, namespace))
    cluster.wait(namespace, "pool", "Ready", is_ready)
    assert len(simulator.entries("addNodes")) == 1
    assert simulator.get("summary")["double_adds"] == 0
