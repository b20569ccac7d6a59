"""The kustomize components: each is what the API server takes, and the operator runs with what it brings.

Not for what its options do (`--ca-file`, proxies), or that Helm renders the same (`test_helm`).
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import pytest
import yaml

from cce_simulator.config import SimulatorConfig
from controlplane import ControlPlane
from harness import Cluster, Manifest, MembershipSpec, Rendered, SimulatorProcess
from harness.cluster import condition, has_reason
from harness.kustomize import TEAM, join, render, write
from harness.sources import ADMISSION_POLICY_SINCE, ROOT, copy_sources

NAMESPACE: Final = "nodepool-membership"
FOLDERS: Final = sorted(folder.name for folder in (ROOT / "deploy" / "components").iterdir())
SAMPLES: Final = [
    pytest.param(path, id=path.stem, marks=pytest.mark.since_kubernetes(ADMISSION_POLICY_SINCE if policy else 0))
    for path in sorted((ROOT / "deploy" / "samples").rglob("*.yaml"))
    for policy in [path.parent.name == "admission"]
]


def config_map(name: str, **options: object) -> Mapping[str, object]:
    return {"name": name, "namespace": NAMESPACE, **options}


PROXY: Final = config_map(
    "nodepool-membership-proxy", literals=["HTTPS_PROXY=http://127.0.0.1:9", "NO_PROXY=127.0.0.0/8,.svc"]
)
TRUSTED: Final = config_map("nodepool-membership-trusted-ca", files=["ca.crt"], options={"disableNameSuffixHash": True})
EVERYTHING: Final = [name for name in FOLDERS if name not in {"without-admission-policy", "namespaced"}]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        running.ensure_namespace(TEAM)
        running.kubectl("apply", "-k", str(copy_sources(tmp_path_factory.mktemp("sources")) / "deploy"))
        yield running


def over_deploy(control_plane: ControlPlane, sources: Path, *components: str, **more: object) -> Rendered:
    kustomization = {
        "resources": ["../deploy"],
        "components": [f"../deploy/components/{name}" for name in components],
        **more,
    }
    folder = write(sources / "top", kustomization)
    (folder / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
    return render(control_plane, folder)


def refusal(control_plane: ControlPlane, rendered: Rendered) -> str:
    """What the API server has to say about these objects, warnings included; it stores none of them."""
    command = ("apply", "--filename=-", "--dry-run=server", "--validate=strict", "--warnings-as-errors")
    result = control_plane.kubectl(*command, input=rendered.yaml(), check=False)
    return "" if result.returncode == 0 else result.stderr


@pytest.mark.parametrize("name", FOLDERS)
def test_the_api_server_takes_each(installed: ControlPlane, sources: Path, name: str) -> None:
    # What a monitoring component makes has a definition of its own, which is not here.
    rendered = over_deploy(installed, sources, name).without("PodMonitor", "PrometheusRule", "ServiceMonitor")
    assert refusal(installed, rendered) == ""


def test_the_api_server_takes_all_together_and_so_does_pod_security(installed: ControlPlane, sources: Path) -> None:
    rendered = over_deploy(installed, sources, *EVERYTHING, configMapGenerator=[PROXY, TRUSTED])
    assert refusal(installed, rendered.without("PodMonitor", "PrometheusRule", "ServiceMonitor")) == ""
    # The class that the pod names has to be there for that.
    installed.kubectl("apply", "--filename=-", input=yaml.safe_dump(rendered.only("PriorityClass")))
    pod: Manifest = {"apiVersion": "v1", "kind": "Pod", **rendered.pod}
    installed.kubectl("create", "--dry-run=server", f"--namespace={NAMESPACE}", "--filename=-", input=json.dumps(pod))


def test_the_api_server_takes_the_overlay(installed: ControlPlane, sources: Path) -> None:
    assert refusal(installed, render(installed, sources / "deploy/overlays/namespaced")) == ""


@pytest.mark.parametrize("sample", SAMPLES)
def test_the_api_server_takes_each_sample(installed: ControlPlane, sample: Path) -> None:
    assert refusal(installed, Rendered(sample.read_text())) == ""


def test_each_component_says_what_it_is_for() -> None:
    for name in FOLDERS:
        folder = ROOT / "deploy" / "components" / name
        assert any(file.read_text().startswith("# ") for file in folder.glob("*.yaml")), name


def test_the_network_policy_is_about_the_pods_of_the_operator(installed: ControlPlane, sources: Path) -> None:
    rendered = over_deploy(installed, sources, "network-policy", namePrefix="prod-", namespace="infra")
    policy = rendered.only("NetworkPolicy")
    assert policy["metadata"]["namespace"] == rendered.namespace == "infra"
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= rendered.pod["metadata"]["labels"].items()
    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    (ingress,) = policy["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == [port["name"] for port in rendered.container["ports"]]


def test_the_operator_stays_off_nodes_that_it_manages(installed: ControlPlane, sources: Path) -> None:
    affinity = over_deploy(installed, sources, "off-managed-nodes").pod["spec"]["affinity"]
    (term,) = affinity["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert term["matchExpressions"] == [{"key": "cce.cloud.com/cce-nodepool", "operator": "DoesNotExist"}]
    assert "podAntiAffinity" in affinity, "the replicas still run apart"


def test_the_pod_identity_of_the_operator_is_asked_for(installed: ControlPlane, sources: Path) -> None:
    rendered = over_deploy(installed, sources, "pod-identity")
    assert rendered.pod["metadata"]["labels"]["pod-identity.cce.io/injection"] == "on"
    assert rendered.container["args"] == ["run", "--operator-identity=pod-identity"]


def test_names_of_components_follow_too(installed: ControlPlane, sources: Path) -> None:
    rendered = over_deploy(
        installed, sources, "priority-class", "proxy", namePrefix="prod-", configMapGenerator=[PROXY]
    )
    assert rendered.pod["spec"]["priorityClassName"] == rendered.only("PriorityClass")["metadata"]["name"]
    assert rendered.only("PriorityClass")["metadata"]["name"] == "prod-nodepool-membership-operator"
    assert rendered.only("ConfigMap")["metadata"]["name"].startswith("prod-nodepool-membership-proxy-")
    assert rendered.environment()["NO_PROXY"] == "127.0.0.0/8,.svc"


@pytest.mark.parametrize("generator", ["configMapGenerator", "secretGenerator"])
def test_the_operator_runs_with_the_proxy_that_is_set(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    generator: str,
) -> None:
    """Port 9 answers nobody: what is excluded does not go there, what is not would never arrive."""
    rendered = over_deploy(own_plane, sources, "proxy", **{generator: [PROXY]})
    assert rendered.environment()["HTTPS_PROXY"] == "http://127.0.0.1:9"
    rendered.apply(own_plane)
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        join(own_cluster, cloud, operator)


def test_grants_stand_beside_trusted_certificates_and_count(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, sources: Path, tmp_path: Path
) -> None:
    granted = {"namespace": "nobody", "projectID": MembershipSpec.project_id}
    content = f"grants.yaml={json.dumps([granted])}"
    rendered = over_deploy(
        own_plane,
        sources,
        "grants",
        "trusted-ca",
        configMapGenerator=[TRUSTED, config_map("nodepool-membership-grants", literals=[content])],
    )
    found = next(o for o in rendered.objects if o["kind"] == "ConfigMap" and "grants" in o["metadata"]["name"])
    volumes = {volume["name"]: volume["configMap"]["name"] for volume in rendered.pod["spec"]["volumes"]}
    assert volumes == {"grants": found["metadata"]["name"], "trusted-ca": "nodepool-membership-trusted-ca"}
    mounts = {}
    for mount in rendered.container["volumeMounts"]:
        folder = mounts[mount["mountPath"]] = tmp_path / mount["name"]
        folder.mkdir()
        config = next(o for o in rendered.objects if o["metadata"]["name"] == volumes[mount["name"]])
        for name, text in config["data"].items():
            (folder / name).write_text(text)
    rendered.apply(own_plane)
    with rendered.operator(own_plane, tmp_path, [cloud.url], mounts=mounts):
        own_cluster.create_secret(TEAM, SimulatorConfig())
        own_cluster.create(MembershipSpec("m", ["0e3b1c9a-6a43-4a57-9a0e-3b4f6f0f7a11"], cloud.url, TEAM))
        told = own_cluster.wait(TEAM, "m", "NotGranted", has_reason("NotGranted"))
    assert condition(told, "Stalled")["reason"] == "NotGranted"
    assert cloud.entries() == []


def test_the_operator_runs_with_trusted_certificates(
    own_plane: ControlPlane, own_cluster: Cluster, cloud: SimulatorProcess, sources: Path, tmp_path: Path
) -> None:
    rendered = over_deploy(own_plane, sources, "trusted-ca", configMapGenerator=[TRUSTED])
    (volume,), (mount,) = rendered.pod["spec"]["volumes"], rendered.container["volumeMounts"]
    assert volume["name"] == mount["name"]
    assert "subPath" not in mount
    bundle = rendered.only("ConfigMap")
    assert bundle["metadata"]["name"] == volume["configMap"]["name"] == "nodepool-membership-trusted-ca"
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    for name, content in bundle["data"].items():
        (mounted / name).write_text(content)
    rendered.apply(own_plane)
    with rendered.operator(own_plane, tmp_path, [cloud.url], mounts={mount["mountPath"]: mounted}) as operator:
        join(own_cluster, cloud, operator)
