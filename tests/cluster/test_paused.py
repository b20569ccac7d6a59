"""A stop that Git does not undo: the annotation stays through each kind of apply, and no call is made while it does.

Not for: what a pause does to decisions (`unit/core/conditions/test_core_upcoming`,
`unit/core/state/test_core_requests`).
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from controlplane import ControlPlane
from harness import Object, Scene
from harness.cluster import condition, status
from harness.scene import server_ids
from nodepool_membership.api.names import PAUSED_ANNOTATION

QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)

Stage = Callable[..., Scene]

SERVER_SIDE = ("apply", "--server-side", "--force-conflicts")
APPLIES = {
    "client side, as Argo CD does by default": ("apply",),
    "server side": SERVER_SIDE,
    "server side, as Flux does": (*SERVER_SIDE, "--field-manager=kustomize-controller"),
    "server side, as Argo CD does": (*SERVER_SIDE, "--field-manager=argocd-controller"),
}


def in_git(membership: Object, path: Path, servers: Sequence[str]) -> Path:
    """The manifest as it stands in Git: a spec, and nothing of what the cluster added."""
    metadata, spec = membership["metadata"], membership["spec"]
    assert isinstance(metadata, dict)
    assert isinstance(spec, dict)
    kept = {name: metadata[name] for name in ("name", "namespace")}
    manifest = {**membership, "metadata": kept, "spec": {**spec, "serverIDs": list(servers), "suspend": False}}
    del manifest["status"]
    path.write_text(json.dumps(manifest))
    return path


@pytest.mark.parametrize("apply", APPLIES.values(), ids=APPLIES)
def test_a_pause_outlives_a_sync_and_a_suspension_by_a_patch_does_not(
    stage: Stage, control_plane: ControlPlane, tmp_path: Path, apply: Sequence[str]
) -> None:
    scene = stage(QUICK)
    first, later = server_ids(2), server_ids(4)
    scene.create(first)
    manifest = in_git(scene.until_joined(first), tmp_path / "m.json", first)
    control_plane.kubectl(*apply, f"--filename={manifest}")
    scene.cluster.patch(scene.namespace, scene.name, {"metadata": {"annotations": {PAUSED_ANNOTATION: "incident 42"}}})
    scene.edit(suspend=True)

    control_plane.kubectl(*apply, f"--filename={in_git(scene.get(), manifest, later)}")
    paused = scene.until_reason("Paused")
    spec = paused["spec"]
    assert isinstance(spec, dict)
    assert spec["suspend"] is False, "a line in Git undoes a patch"
    assert "incident 42" in str(condition(paused)["message"])
    assert "nextTime" not in status(paused)
    scene.until_called("listNodes", times=len(scene.calls("listNodes")) + 2)
    assert len(scene.adds()) == 1

    control_plane.kubectl("annotate", "npmem", scene.name, f"--namespace={scene.namespace}", f"{PAUSED_ANNOTATION}-")
    scene.until_joined(later)
    assert len(scene.adds()) == 2


def test_a_paused_namespace_stops_all_of_its_memberships(stage: Stage, control_plane: ControlPlane) -> None:
    scene = stage(QUICK)
    control_plane.kubectl("annotate", "namespace", scene.namespace, f"{PAUSED_ANNOTATION}=incident 42")
    scene.create(server_ids(2))
    paused = scene.until_reason("Paused")
    assert "of the namespace: incident 42" in str(condition(paused)["message"])
    assert scene.adds() == []
    control_plane.kubectl("annotate", "namespace", scene.namespace, f"{PAUSED_ANNOTATION}-")
    scene.request("look")
    scene.until_joined(server_ids(2))
