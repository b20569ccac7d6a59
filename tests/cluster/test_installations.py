"""An operator for certain namespaces only, and several installations in one cluster.

Not for what kustomize changes in one installation (`test_kustomize`).
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final

import pytest
import yaml

from controlplane import ControlPlane
from harness import Cluster, Manifest, MembershipSpec, Operator, SimulatorProcess, wait_for
from harness.cluster import is_ready
from harness.kustomize import QUICK, TEAM, join, render, write
from harness.scene import server_ids
from harness.sources import ADMISSION_POLICY_SINCE

NAME: Final = "nodepool-membership-operator"


def _namespaced(namespaces: list[str], home: str) -> tuple[Mapping[str, object], Manifest]:
    """As docs/install.md says for an operator in a namespace of one's own choice."""
    bindings = [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": NAME, "namespace": namespace},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": NAME},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": home}],
        }
        for namespace in namespaces
    ]
    patch = [
        {"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": f"--namespace={namespace}"}
        for namespace in namespaces
    ]
    kustomization = {
        "resources": ["../operator", "bindings.yaml"],
        "components": ["../deploy/components/namespaced"],
        "patches": [{"target": {"kind": "Deployment"}, "patch": yaml.safe_dump(patch)}],
    }
    return kustomization, {"apiVersion": "v1", "kind": "List", "items": bindings}


@pytest.mark.parametrize(
    "inner",
    [{}, {"namespace": "infra"}, {"namePrefix": "prod-"}, {"namePrefix": "prod-", "namespace": "infra"}],
    ids=["as-it-is", "namespace", "namePrefix", "both"],
)
def test_for_certain_namespaces_it_works_wherever_it_is_and_whatever_its_name(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    inner: Mapping[str, object],
) -> None:
    write(sources / "operator", {"resources": ["../deploy"], **inner})
    kustomization, bindings = _namespaced([TEAM, "team-b"], str(inner.get("namespace", "nodepool-membership")))
    rendered = render(own_plane, write(sources / "top", kustomization, bindings=bindings))
    assert [argument for argument in rendered.arguments() if argument.startswith("--namespace")] == [
        f"--namespace={TEAM}",
        "--namespace=team-b",
    ]
    rendered.apply(own_plane)
    own_plane.ensure_namespace("elsewhere")
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        own_cluster.create(MembershipSpec("pool", server_ids(1, "elsewhere"), cloud.url, "elsewhere"))
        join(own_cluster, cloud, operator, "team-b")
        assert "cannot" not in operator.output()
        assert own_cluster.get("elsewhere", "pool")["status"]["conditions"][0]["reason"] == "Pending"  # type: ignore[index]


def test_the_overlay_for_certain_namespaces_works_as_it_is(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, sources: Path, tmp_path: Path
) -> None:
    rendered = render(own_plane, sources / "deploy/overlays/namespaced")
    rendered.apply(own_plane)
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        join(own_cluster, cloud, operator)


def test_the_overlay_names_the_same_namespaces_to_the_operator_and_in_its_bindings(
    own_plane: ControlPlane, sources: Path
) -> None:
    rendered = render(own_plane, sources / "deploy/overlays/namespaced")
    told = {argument.removeprefix("--namespace=") for argument in rendered.arguments()}
    bound = {
        found["metadata"]["namespace"]
        for found in rendered
        if found["kind"] == "RoleBinding" and found["roleRef"]["kind"] == "ClusterRole"
    }
    assert told == bound == {TEAM}


def test_a_further_namespace_is_a_line_in_each_file(own_plane: ControlPlane, sources: Path) -> None:
    overlay = sources / "deploy/overlays/namespaced"
    (line,) = (one for one in (overlay / "role-bindings.yaml").read_text().splitlines() if "team-b" in one)
    with (overlay / "role-bindings.yaml").open("a") as file:
        file.write("  " + line.removeprefix("# `").removesuffix("`.") + "\n")
    rendered = render(own_plane, overlay)
    bindings = [
        found for found in rendered if found["kind"] == "RoleBinding" and found["roleRef"]["kind"] == "ClusterRole"
    ]
    first, second = sorted(bindings, key=lambda found: str(found["metadata"]["namespace"]))
    assert (first["metadata"]["namespace"], second["metadata"]["namespace"]) == (TEAM, "team-b")
    assert (first["roleRef"], first["subjects"]) == (second["roleRef"], second["subjects"])


def _said(operator: Operator) -> bool | None:
    return True if "give each namespace to one installation" in operator.output() else None


def _is_refused(cluster: Cluster, token: str) -> bool | None:
    """Whether the policy of the other installation is in force: an API server takes a while to heed a new one."""
    path = f"/apis/cce.nodepools.dev/v1alpha1/namespaces/{TEAM}/nodepoolmemberships/before/status"
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/merge-patch+json"}
    answer = cluster.http.patch(path, params={"dryRun": "All"}, headers=headers, json={"status": {"pending": 1}})
    return True if "give each namespace to one installation" in answer.text else None


@pytest.mark.since_kubernetes(ADMISSION_POLICY_SINCE)
def test_two_installations_for_the_same_namespaces_do_not_fight_and_say_so(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, sources: Path, tmp_path: Path
) -> None:
    first = render(own_plane, sources / "deploy")
    second = render(
        own_plane, write(sources / "dev", {"resources": ["../deploy"], "namePrefix": "dev-", "namespace": "dev"})
    )
    first.apply(own_plane)
    own_cluster.create_secret(TEAM, QUICK)
    with first.operator(own_plane, tmp_path, [cloud.url]) as one:
        own_cluster.create(MembershipSpec("before", server_ids(2, "before"), cloud.url, TEAM))
        own_cluster.wait(TEAM, "before", "Ready", is_ready)
        second.apply(own_plane)
        with second.operator(own_plane, tmp_path, [cloud.url], name="second") as other:
            other.wait_ready()
            other.wait_leads()
            for installed in (first, second):
                token = own_plane.service_account_token(installed.namespace, installed.service_account)
                wait_for("each policy is in force", partial(_is_refused, own_cluster, token), every=0.5)
            own_cluster.create(MembershipSpec("after", server_ids(2, "after"), cloud.url, TEAM))
            for operator in (one, other):
                wait_for("it says so", partial(_said, operator))
            assert len(cloud.entries("addNodes")) == 1
            # Taken away again, the first one goes on.
            own_plane.kubectl(
                "delete", "--wait=false", "--filename=-", input=second.without("CustomResourceDefinition").yaml()
            )
        # It may have waited for a minute between two attempts by then.
        own_cluster.wait(TEAM, "after", "Ready", is_ready, seconds=150)
    assert len(cloud.entries("addNodes")) == 2
    assert cloud.get("summary")["double_adds"] == 0


def test_two_installations_for_different_namespaces_leave_one_another_alone(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, sources: Path, tmp_path: Path
) -> None:
    for name, namespace in (("one", "team-a"), ("two", "team-b")):
        write(sources / f"{name}-operator", {"resources": ["../deploy"], "namePrefix": f"{name}-", "namespace": name})
        kustomization, bindings = _namespaced([namespace], name)
        write(
            sources / name, {**kustomization, "resources": [f"../{name}-operator", "bindings.yaml"]}, bindings=bindings
        )
        rendered = render(own_plane, sources / name)
        rendered.apply(own_plane)
    with (
        render(own_plane, sources / "one").operator(own_plane, tmp_path, [cloud.url], name="one") as one,
        render(own_plane, sources / "two").operator(own_plane, tmp_path, [cloud.url], name="two") as two,
    ):
        for operator, namespace in ((one, "team-a"), (two, "team-b")):
            operator.wait_ready()
            operator.wait_leads()
            own_cluster.create_secret(namespace, QUICK)
            own_cluster.create(MembershipSpec("pool", server_ids(2, namespace), cloud.url, namespace))
        for namespace in ("team-a", "team-b"):
            own_cluster.wait(namespace, "pool", "Ready", is_ready)
    assert len(cloud.entries("addNodes")) == 2
