"""The operator goes, in the order of docs/uninstall.md and in others: nothing hangs, and no server is touched unasked.

Not for Helm (`test_helm`). There is no namespace controller here: a namespace's end is played by the test.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from controlplane import ControlPlane
from harness import Cluster, MembershipSpec, Operator, Rendered, SimulatorProcess, wait_for
from harness.cluster import finalizers, is_ready
from harness.kustomize import QUICK, TEAM, render
from harness.scene import server_ids
from harness.sources import HAS_ADMISSION_POLICY

CRD: Final = "nodepoolmemberships.cce.nodepools.dev"
EVERY: Final = ("-l", "app.kubernetes.io/part-of=nodepool-membership")
KINDS: Final = (
    "namespace,serviceaccount,role,rolebinding,clusterrole,clusterrolebinding,deployment,poddisruptionbudget,"
    "customresourcedefinition"
) + (",validatingadmissionpolicy,validatingadmissionpolicybinding" if HAS_ADMISSION_POLICY else "")


@pytest.fixture
def installed(own_plane: ControlPlane, sources: Path) -> Rendered:
    rendered = render(own_plane, sources / "deploy")
    rendered.apply(own_plane)
    return rendered


@pytest.fixture
def operator(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, installed: Rendered, tmp_path: Path
) -> Iterator[Operator]:
    """It runs, and two memberships are Ready. One removes its server when it is deleted: the finalizer stays on it."""
    with installed.operator(own_plane, tmp_path, [cloud.url]) as running:
        running.wait_ready()
        own_cluster.create_secret(TEAM, QUICK)
        own_cluster.create(MembershipSpec("keeps", server_ids(2, "keeps"), cloud.url, TEAM))
        removing = {"deletionPolicy": "Remove"}
        own_cluster.create(MembershipSpec("removes", server_ids(1, "removes"), cloud.url, TEAM, more=removing))
        for name in ("keeps", "removes"):
            own_cluster.wait(TEAM, name, "Ready", is_ready)
        assert finalizers(own_cluster.get(TEAM, "removes"))
        yield running


def end_namespace(control_plane: ControlPlane, name: str) -> None:
    """What the namespace controller does once a namespace is empty."""
    for kind in ("deployment", "poddisruptionbudget", "serviceaccount", "role", "rolebinding", "lease", "event"):
        control_plane.kubectl("delete", kind, "--all", f"--namespace={name}")
    stored = json.loads(control_plane.kubectl("get", "namespace", name, "--output=json").stdout)
    assert "deletionTimestamp" in stored["metadata"]
    stored["spec"]["finalizers"] = []
    path = f"/api/v1/namespaces/{name}/finalize"
    control_plane.kubectl("replace", f"--raw={path}", "--filename=-", input=json.dumps(stored))


def delete_deploy(control_plane: ControlPlane, sources: Path) -> None:
    control_plane.kubectl("delete", "-k", str(sources / "deploy"), "--wait=false", "--ignore-not-found")


def remaining(control_plane: ControlPlane) -> list[str]:
    """What is left of the installation, by the label that all of it has; of the definition, which has it too."""
    return control_plane.kubectl("get", KINDS, "--all-namespaces", *EVERY, "--output=name").stdout.split()


def is_gone(control_plane: ControlPlane, *what: str) -> None:
    """Wait until it is; kubectl itself would wait for ever where something holds it."""

    def gone() -> bool | None:
        return None if control_plane.kubectl("get", *what, "--output=name", "--ignore-not-found").stdout else True

    wait_for(f"{what} is gone", gone, every=0.5)


def removed(cloud: SimulatorProcess) -> int:
    return len(cloud.entries("removeNodes"))


def test_in_the_documented_order_nothing_is_left_and_nothing_waits(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, sources: Path, operator: Operator
) -> None:
    own_cluster.patch(TEAM, "removes", {"spec": {"deletionPolicy": "Retain"}})
    own_plane.kubectl("delete", "npmem", "--all", "--all-namespaces", "--timeout=60s")
    assert operator.terminate() == 0
    delete_deploy(own_plane, sources)
    is_gone(own_plane, "crd", CRD)
    end_namespace(own_plane, "nodepool-membership")
    wait_for("all is gone", lambda: True if remaining(own_plane) == [] else None)
    assert removed(cloud) == 0
    assert len(cloud.entries("addNodes")) == 2


def test_a_deletion_that_removes_servers_is_waited_for(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, operator: Operator
) -> None:
    # The removal delay is the shipped one, of two minutes.
    own_plane.kubectl("delete", "npmem", "removes", f"--namespace={TEAM}", "--timeout=220s", timeout_seconds=240)
    assert removed(cloud) == 1
    assert own_cluster.exists(TEAM, "keeps")
    operator.check()


def test_all_at_once_stops_before_the_memberships_and_a_second_installation_lets_them_go(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    installed: Rendered,
    operator: Operator,
) -> None:
    """Namespace, definition and operator go together: the memberships hold the definition, and nobody lets them go."""
    operator.kill()
    delete_deploy(own_plane, sources)
    end_namespace(own_plane, "nodepool-membership")
    assert finalizers(own_cluster.get(TEAM, "removes"))
    wait_for("only the definition is left", lambda: True if len(remaining(own_plane)) == 1 else None)
    own_plane.kubectl("apply", "-k", str(sources / "deploy"))
    with installed.operator(own_plane, tmp_path, [cloud.url], name="again"):
        is_gone(own_plane, "crd", CRD)
    delete_deploy(own_plane, sources)
    end_namespace(own_plane, "nodepool-membership")
    wait_for("all is gone", lambda: True if remaining(own_plane) == [] else None)
    # Their definition goes, not they alone: under Remove, too, the servers are kept.
    assert removed(cloud) == 0


def test_without_the_operator_an_administrator_lets_a_membership_go(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, operator: Operator
) -> None:
    operator.kill()
    own_plane.kubectl("delete", "npmem", "removes", f"--namespace={TEAM}", "--wait=false")
    assert own_cluster.exists(TEAM, "removes")
    off = ("--type=merge", '--patch={"metadata":{"finalizers":null}}')
    own_plane.kubectl("patch", "npmem", "removes", f"--namespace={TEAM}", *off)
    is_gone(own_plane, "npmem", "removes", f"--namespace={TEAM}")
    assert removed(cloud) == 0


def test_a_namespace_that_goes_takes_its_memberships_and_no_server(
    own_plane: ControlPlane, cloud: SimulatorProcess, operator: Operator
) -> None:
    own_plane.kubectl("delete", "namespace", TEAM, "--wait=false")
    # As the namespace controller does.
    own_plane.kubectl("delete", "npmem", "--all", f"--namespace={TEAM}", "--timeout=60s")
    assert removed(cloud) == 0
    operator.check()


def test_the_definition_is_kept_by_whatever_installed_it(installed: Rendered) -> None:
    annotations = installed.only("CustomResourceDefinition")["metadata"]["annotations"]
    assert annotations == {
        "helm.sh/resource-policy": "keep",
        "argocd.argoproj.io/sync-options": "Prune=false,Delete=false",
        "kustomize.toolkit.fluxcd.io/prune": "disabled",
    }
