"""The Helm chart: it renders what kustomize renders, refuses values it does not know, and works on an API server.

Not for what the objects mean: that is tried with what kustomize renders (`test_deploy`, `test_kustomize`).
"""

import json
import os
import shutil
import subprocess
import tarfile
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
import yaml

from controlplane import ControlPlane, ensure_binaries, ensure_helm
from harness import Cluster, Manifest, MembershipSpec, Rendered, SimulatorProcess
from harness.cluster import is_ready
from harness.kustomize import QUICK, TEAM
from harness.scene import server_ids
from harness.sources import HAS_ADMISSION_POLICY

ROOT: Final = Path(__file__).parent.parent.parent
CHART: Final = ROOT / "deploy" / "charts" / "nodepool-membership"
RELEASE: Final = "nodepool-membership"
CRD: Final = "nodepoolmemberships.cce.nodepools.dev"
SERVED: Final = {} if HAS_ADMISSION_POLICY else {"admissionPolicy": {"enabled": False}}
"""What the API server of the tests can take."""


@dataclass(frozen=True)
class Helm:
    """The command, with its caches in a directory of the test's, for this cluster or none."""

    directory: Path
    kubeconfig: Path | None = None

    def run(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        own = {f"HELM_{name}_HOME": str(self.directory / name.lower()) for name in ("CACHE", "CONFIG", "DATA")}
        environment = {**os.environ, **own, "KUBECONFIG": str(self.kubeconfig or os.devnull)}
        command = [str(ensure_helm()), *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    def __call__(self, *arguments: str) -> str:
        result = self.run(*arguments)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def template(self, values: Mapping[str, object] | None = None) -> Rendered:
        return Rendered(self("template", RELEASE, str(CHART), f"--namespace={RELEASE}", *self.values(values or {})))

    def values(self, values: Mapping[str, object]) -> Sequence[str]:
        file = self.directory / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values)))
        return (f"--values={file}",)


@pytest.fixture
def helm(tmp_path: Path) -> Helm:
    return Helm(tmp_path)


def kustomized(folder: Path, kustomization: Mapping[str, object]) -> Rendered:
    for source in ("deploy", "crds"):
        shutil.copytree(ROOT / source, folder / source)
    (folder / "top").mkdir()
    (folder / "top" / "kustomization.yaml").write_text(yaml.safe_dump(dict(kustomization)))
    command = [str(ensure_binaries().kubectl), "kustomize", str(folder / "top")]
    return Rendered(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


LABELS: Final = {
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/name",
    "app.kubernetes.io/part-of",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}


CLUSTER_SCOPED: Final = {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}
"""Of these kustomize does not know it, and leaves or puts a namespace that the API server drops."""


def _without_labels(found: Manifest) -> Manifest:
    """The object without the labels that only say who installed it; selectors keep theirs."""
    metadata = dict(found.get("metadata", {}))
    if found.get("kind") in CLUSTER_SCOPED:
        metadata.pop("namespace", None)
    kept = {name: value for name, value in metadata.pop("labels", {}).items() if name not in LABELS}
    return {**found, "metadata": {**metadata, **({"labels": kept} if kept else {})}}


def by_name(rendered: Rendered) -> Mapping[str, Manifest]:
    """Every object but the Namespace, which Helm makes by itself (`--create-namespace`)."""
    objects: dict[str, Manifest] = {}
    for found in rendered.without("Namespace"):
        comparable = _without_labels(found)
        if found["kind"] == "Deployment":
            template = comparable["spec"]["template"]
            comparable["spec"] = {**comparable["spec"], "template": _without_labels(template)}
        metadata = comparable["metadata"]
        name = f"{found['kind']} {metadata.get('namespace', '')}/{metadata['name']}"
        assert name not in objects
        objects[name] = comparable
    return objects


BINDINGS: Final = {"resources": ["../deploy/overlays/namespaced"]}
IMAGE: Final = "swr.cn-north-4.myhuaweicloud.com/team/nodepool-membership"
DIGEST: Final = f"sha256:{'b' * 64}"


def component(name: str, **more: object) -> Mapping[str, object]:
    return {"resources": ["../deploy"], "components": [f"../deploy/components/{name}"], **more}


def patched(*operations: Mapping[str, object]) -> Mapping[str, object]:
    patch = yaml.safe_dump(list(operations))
    return {"resources": ["../deploy"], "patches": [{"target": {"kind": "Deployment"}, "patch": patch}]}


ALLOWED: Final = "--allow-endpoint=https://cce.example.com"
SAME: Final[Mapping[str, tuple[Mapping[str, object], Mapping[str, object]]]] = {
    "nothing": ({}, {"resources": ["../deploy"]}),
    "networkPolicy": ({"networkPolicy": {"enabled": True}}, component("network-policy")),
    "proxy": ({"proxy": {"name": "nodepool-membership-proxy"}}, component("proxy")),
    "trustedCA": ({"trustedCA": {"configMap": "nodepool-membership-trusted-ca"}}, component("trusted-ca")),
    "grants": ({"grants": {"configMap": "nodepool-membership-grants"}}, component("grants")),
    "metricsAuth": ({"metricsAuth": {"enabled": True}}, component("metrics-auth")),
    "imagePullSecrets": ({"imagePullSecrets": ["default-secret"]}, component("pull-secret")),
    "priorityClass": ({"priorityClass": {"create": True}}, component("priority-class")),
    "podIdentity": ({"podIdentity": {"enabled": True}}, component("pod-identity")),
    "offManagedNodes": ({"offManagedNodes": {"enabled": True}}, component("off-managed-nodes")),
    "monitoring": ({"monitoring": {"enabled": True}}, component("monitoring")),
    "admissionPolicy": ({"admissionPolicy": {"enabled": False}}, component("without-admission-policy")),
    "namespaces": ({"namespaces": ["cce-system"]}, BINDINGS),
    "fullnameOverride": (
        {"fullnameOverride": "prod-nodepool-membership-operator", "userRoles": {"create": False}},
        {
            "resources": ["../deploy"],
            "namePrefix": "prod-",
            "patches": [
                {
                    "target": {"kind": "ClusterRole", "name": f"nodepoolmembership-{role}"},
                    "patch": f"$patch: delete\nkind: ClusterRole\nmetadata: {{name: nodepoolmembership-{role}}}\n",
                }
                for role in ("viewer", "editor")
            ],
        },
    ),
    "image by tag": (
        {"image": {"repository": IMAGE, "tag": "0.2.0"}},
        {"resources": ["../deploy"], "images": [{"name": RELEASE, "newName": IMAGE, "newTag": "0.2.0"}]},
    ),
    "image by digest": (
        {"image": {"repository": IMAGE, "digest": DIGEST}},
        {"resources": ["../deploy"], "images": [{"name": RELEASE, "newName": IMAGE, "digest": DIGEST}]},
    ),
    "image.pullPolicy": (
        {"image": {"pullPolicy": "Always"}},
        patched({"op": "replace", "path": "/spec/template/spec/containers/0/imagePullPolicy", "value": "Always"}),
    ),
    "replicas": (
        {"replicas": 1},
        {"resources": ["../deploy"], "replicas": [{"name": f"{RELEASE}-operator", "count": 1}]},
    ),
    "extraArgs": (
        {"extraArgs": [ALLOWED]},
        patched({"op": "add", "path": "/spec/template/spec/containers/0/args/-", "value": ALLOWED}),
    ),
    "resources": (
        {"resources": {"limits": {"memory": "512Mi"}}},
        patched(
            {"op": "replace", "path": "/spec/template/spec/containers/0/resources/limits/memory", "value": "512Mi"}
        ),
    ),
    "crd": (
        {"crd": {"install": False}},
        {
            "resources": ["../deploy"],
            "patches": [
                {
                    "target": {"kind": "CustomResourceDefinition"},
                    "patch": f"$patch: delete\nkind: CustomResourceDefinition\nmetadata: {{name: {CRD}}}\n",
                }
            ],
        },
    ),
}


@pytest.mark.parametrize(("values", "kustomization"), SAME.values(), ids=SAME)
def test_it_renders_what_kustomize_renders(
    helm: Helm, tmp_path: Path, values: Mapping[str, object], kustomization: Mapping[str, object]
) -> None:
    ours, theirs = by_name(helm.template(values)), by_name(kustomized(tmp_path, kustomization))
    assert sorted(ours) == sorted(theirs)
    for name, found in ours.items():
        assert found == theirs[name], name


def test_every_value_is_compared() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    tried = {name for ours, _ in SAME.values() for name in ours}
    assert tried == set(values)


def test_every_component_has_its_value() -> None:
    """name-references and namespaced are kustomize's own; each of the others is compared above."""
    folders = {folder.name for folder in (ROOT / "deploy" / "components").iterdir()}
    used = {Path(str(name)).name for _, theirs in SAME.values() for name in theirs.get("components", [])}  # type: ignore[attr-defined]
    assert folders - used <= {"name-references", "namespaced"}


@pytest.mark.parametrize(
    ("values", "complaint"),
    [
        ({"replica": 3}, "'replica' not allowed"),
        ({"image": {"repo": "x"}}, "'repo' not allowed"),
        ({"image": {"repository": "nodepool-membership:0.1.0"}}, "image/repository"),
        ({"image": {"digest": "0.1.0"}}, "image/digest"),
        ({"replicas": "two"}, "replicas"),
        ({"replicas": -1}, "replicas"),
        ({"namespaces": "team-a"}, "namespaces"),
        ({"namespaces": ["team-a", "team-a"]}, "namespaces"),
        ({"namespaces": ["Team_A"]}, "namespaces/0"),
        ({"extraArgs": ["allow-endpoint=x"]}, "extraArgs/0"),
        ({"imagePullSecrets": [{"name": "default-secret"}]}, "imagePullSecrets/0"),
        ({"networkPolicy": {"enabled": "yes"}}, "networkPolicy/enabled"),
        ({"networkPolicy": {"egress": []}}, "'egress' not allowed"),
        ({"resources": {"limit": {}}}, "'limit' not allowed"),
        ({"fullnameOverride": "A B"}, "fullnameOverride"),
        ({"proxy": {"name": "http://proxy:3128"}}, "proxy/name"),
    ],
)
def test_a_value_that_is_wrong_is_refused_by_its_name(helm: Helm, values: Mapping[str, object], complaint: str) -> None:
    result = helm.run("template", RELEASE, str(CHART), *helm.values(values))
    assert result.returncode != 0
    assert complaint in result.stderr


def test_before_kubernetes_1_30_the_chart_says_what_to_switch_off(helm: Helm) -> None:
    command = ("template", RELEASE, str(CHART), "--kube-version=1.29.15")
    refused = helm.run(*command)
    assert refused.returncode != 0
    assert "Kubernetes 1.29.15 has no ValidatingAdmissionPolicy: set admissionPolicy.enabled to false" in refused.stderr
    rendered = Rendered(helm(*command, *helm.values({"admissionPolicy": {"enabled": False}})))
    assert [found["kind"] for found in rendered if "Admission" in found["kind"]] == []


def test_helm_lint_has_no_complaint(helm: Helm) -> None:
    told = helm("lint", "--strict", str(CHART))
    assert "[WARNING]" not in told
    assert "[ERROR]" not in told


def test_a_packed_chart_holds_the_definition(helm: Helm, tmp_path: Path) -> None:
    """In the repository it is a link to `crds/`: a copy would drift."""
    helm("package", str(CHART), f"--destination={tmp_path}")
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(archive) as packed:
        member = packed.extractfile("nodepool-membership/files/nodepoolmemberships.yaml")
        assert member is not None
        assert member.read() == (ROOT / "crds" / "nodepoolmemberships.yaml").read_bytes()


def test_the_versions_are_those_of_the_project(helm: Helm) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (chart["version"], chart["appVersion"]) == (version, version)
    assert helm.template().container["image"] == f"nodepool-membership:{version}"


def test_install_upgrade_and_uninstall(own_plane: ControlPlane, cloud: SimulatorProcess, tmp_path: Path) -> None:
    helm = Helm(tmp_path, own_plane.admin_kubeconfig)
    there = (RELEASE, str(CHART), f"--namespace={RELEASE}")
    helm("install", *there, "--create-namespace", *helm.values(SERVED))
    installed = Rendered(helm("get", "manifest", *there[::2]))
    with Cluster(own_plane) as own_cluster:
        own_cluster.create_secret(TEAM, QUICK)
        with installed.operator(own_plane, tmp_path, [cloud.url]) as operator:
            own_cluster.create(MembershipSpec("pool", server_ids(2), cloud.url, TEAM))
            own_cluster.wait(TEAM, "pool", "Ready", is_ready)
            assert operator.terminate() == 0
        helm("upgrade", *there, *helm.values({**SERVED, "extraArgs": ["--log-level=debug"], "replicas": 1}))
        upgraded = Rendered(helm("get", "manifest", *there[::2]))
        assert list(upgraded.arguments()) == ["--log-level=debug"]
        with upgraded.operator(own_plane, tmp_path, [cloud.url], name="upgraded") as operator:
            operator.wait_ready()
            operator.wait_leads()
            own_cluster.wait(TEAM, "pool", "Ready", is_ready)
            assert '"debug"' in operator.output().lower()
        # What is kept: the definition, the memberships, their finalizer. Nothing waits for anything.
        told = helm("uninstall", *there[::2], "--wait", "--timeout=60s")
        assert CRD in told
        assert own_cluster.exists(TEAM, "pool")
        remaining = own_plane.kubectl("get", "deployment,role,serviceaccount,poddisruptionbudget", f"-n={RELEASE}")
        assert remaining.stdout == ""
        # And whoever installs it again goes on where it was.
        helm("install", *there, *helm.values(SERVED))
        again = Rendered(helm("get", "manifest", *there[::2]))
        with again.operator(own_plane, tmp_path, [cloud.url], name="again") as operator:
            operator.wait_ready()
            operator.wait_leads()
            own_cluster.patch(TEAM, "pool", {"spec": {"serverIDs": server_ids(3)}})
            own_cluster.wait(TEAM, "pool", "Ready", is_ready)
    assert len(cloud.entries("addNodes")) == 2
    assert cloud.get("summary")["double_adds"] == 0


def test_a_second_release_says_that_the_definition_is_anothers(own_plane: ControlPlane, tmp_path: Path) -> None:
    helm = Helm(tmp_path, own_plane.admin_kubeconfig)
    there = (RELEASE, str(CHART), f"--namespace={RELEASE}", "--create-namespace")
    helm("install", *there, *helm.values(SERVED))
    second = ("install", "dev", str(CHART), "--namespace=dev", "--create-namespace")
    refused = helm.run(*second, *helm.values(SERVED))
    assert refused.returncode != 0
    assert CRD in refused.stderr
    own = {"crd": {"install": False}, "userRoles": {"create": False}, "namespaces": [TEAM]}
    helm(*second, *helm.values({**SERVED, **own}))
    names = json.loads(own_plane.kubectl("get", "deployment", "-A", "--output=json").stdout)["items"]
    assert sorted(found["metadata"]["name"] for found in names) == ["dev-operator", f"{RELEASE}-operator"]
