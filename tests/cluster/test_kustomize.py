"""What kustomize changes in the manifests, tried to the end: rendered, applied, and the operator run as rendered.

Each case has an API server of its own: two installations for the same namespaces refuse one another. Not for what
`deploy` itself holds (`test_deploy`), or the components (`test_components`).
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
import yaml

from cce_simulator.config import AccessKeyConfig
from controlplane import ControlPlane
from harness import Cluster, Manifest, MembershipSpec, SimulatorProcess, wait_for
from harness.cluster import is_ready
from harness.kustomize import KEY, NEXT_KEY, TEAM, join, render, write
from harness.scene import server_ids

NAME: Final = "nodepool-membership-operator"


def generator(key: AccessKeyConfig) -> Mapping[str, object]:
    """An entry of secretGenerator."""
    return {
        "name": "cce-credentials",
        "namespace": TEAM,
        "literals": [f"accessKey={key.access_key}", f"secretKey={key.secret_key}"],
        "options": {"labels": {"cce.nodepools.dev/credentials": "true"}},
    }


CREDENTIALS: Final = generator(KEY)


@dataclass(frozen=True)
class Variant:
    """A kustomization over `deploy`, and what the names are then."""

    layers: tuple[Mapping[str, object], ...]
    """The innermost first."""
    name: str = NAME
    namespace: str = "nodepool-membership"
    image: str = "nodepool-membership:0.1.0"
    labels: Mapping[str, str] = field(default_factory=dict)


RENAMED: Final = {
    "patch": json.dumps([{"op": "replace", "path": "/metadata/name", "value": "cce-adopter"}]),
    "target": {"kind": "ServiceAccount", "name": NAME},
    "options": {"allowNameChange": True},
}
SWR: Final = "swr.cn-north-4.myhuaweicloud.com/team/nodepool-membership"
VARIANTS: Final = {
    "as-it-is": Variant(({},)),
    "namePrefix": Variant(({"namePrefix": "prod-"},), name=f"prod-{NAME}"),
    "nameSuffix": Variant(({"nameSuffix": "-v2"},), name=f"{NAME}-v2"),
    "namespace": Variant(({"namespace": "infra"},), namespace="infra"),
    "all-of-them-twice": Variant(
        (
            {"namePrefix": "prod-", "namespace": "infra"},
            {"namePrefix": "eu-", "nameSuffix": "-b", "namespace": "platform"},
        ),
        name=f"eu-prod-{NAME}-b",
        namespace="platform",
    ),
    "a-name-as-long-as-it-may-be": Variant(({"namePrefix": "p" * 34 + "-"},), name="p" * 34 + f"-{NAME}"),
    "another-service-account": Variant(({"patches": [RENAMED]},), name="cce-adopter"),
    "commonLabels": Variant(({"commonLabels": {"team": "platform"}},), labels={"team": "platform"}),
    "images": Variant(
        ({"images": [{"name": "nodepool-membership", "newName": SWR, "newTag": "0.1.0-arm64"}]},),
        image=f"{SWR}:0.1.0-arm64",
    ),
    "images-by-digest": Variant(
        ({"images": [{"name": "nodepool-membership", "newName": SWR, "digest": f"sha256:{'a' * 64}"}]},),
        image=f"{SWR}@sha256:{'a' * 64}",
    ),
}


@pytest.mark.parametrize("variant", VARIANTS.values(), ids=VARIANTS)
def test_it_works_as_it_is_rendered(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    variant: Variant,
) -> None:
    resource = "deploy"
    for number, layer in enumerate(variant.layers):
        write(sources / f"layer-{number}", {"resources": [f"../{resource}"], **layer})
        resource = f"layer-{number}"
    rendered = render(own_plane, sources / resource)
    assert (rendered.namespace, rendered.service_account) == (variant.namespace, variant.name)
    assert rendered.container["image"] == variant.image
    assert all(variant.labels.items() <= found["metadata"].get("labels", {}).items() for found in rendered)
    rendered.apply(own_plane)
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        join(own_cluster, cloud, operator)
    lease = own_plane.kubectl("get", "lease", variant.name, f"-n={variant.namespace}", "--output=json")
    assert json.loads(lease.stdout)["spec"]["holderIdentity"].startswith("operator-0_")
    # Nothing that an installer compares is different from what it applied.
    difference = own_plane.kubectl("diff", "--filename=-", input=rendered.yaml(), check=False)
    assert (difference.returncode, difference.stdout) == (0, "")


LEFT_OUT: Final = {
    "Argo CD: no Lease": ["Lease"],
    "no rights for it: no Namespace": ["Namespace"],
    "one replica only: no PodDisruptionBudget": ["PodDisruptionBudget"],
    "before 1.30: no policy": ["ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"],
}


@pytest.mark.parametrize("kinds", LEFT_OUT.values(), ids=LEFT_OUT)
def test_it_works_where_the_installer_leaves_something_out(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    kinds: list[str],
) -> None:
    rendered = render(own_plane, sources / "deploy").without(*kinds)
    rendered.apply(own_plane)
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        join(own_cluster, cloud, operator)


def test_no_kind_is_shipped_that_an_installer_never_makes(own_plane: ControlPlane, sources: Path) -> None:
    """Argo CD's default exclusions, as far as they are about objects that a person might apply."""
    excluded = {"Lease", "Endpoints", "EndpointSlice", "Event", "Node", "TokenReview", "SubjectAccessReview"}
    folders = [folder.parent for folder in (sources / "deploy").rglob("kustomization.yaml")]
    plain = [
        folder
        for folder in folders
        if yaml.safe_load((folder / "kustomization.yaml").read_text())["kind"] != "Component"
    ]
    kinds = {found["kind"] for folder in plain for found in render(own_plane, folder)}
    assert "Deployment" in kinds
    assert kinds & excluded == set()


def membership(cloud: SimulatorProcess, name: str = "pool") -> Manifest:
    return MembershipSpec(name, server_ids(1, name), cloud.url, TEAM).manifest()


COMPONENT: Final = {"components": ["../deploy/components/name-references"]}
CONFIGURATION: Final = {"configurations": ["name-references.yaml"]}
GENERATED: Final = {
    "beside deploy": {"resources": ["../deploy", "membership.yaml"], "secretGenerator": [CREDENTIALS]},
    "alone, by the component": {"resources": ["membership.yaml"], "secretGenerator": [CREDENTIALS], **COMPONENT},
    "alone, by the configuration": {
        "resources": ["membership.yaml"],
        "secretGenerator": [CREDENTIALS],
        **CONFIGURATION,
    },
    "with a prefix and a suffix": {
        "resources": ["membership.yaml"],
        "secretGenerator": [CREDENTIALS],
        "namePrefix": "gpu-",
        "nameSuffix": "-a",
        **COMPONENT,
    },
    "without a hash, with a prefix": {
        "resources": ["membership.yaml"],
        "secretGenerator": [CREDENTIALS],
        "generatorOptions": {"disableNameSuffixHash": True},
        "namePrefix": "gpu-",
        **COMPONENT,
    },
}


@pytest.mark.parametrize("kustomization", GENERATED.values(), ids=GENERATED)
def test_a_membership_follows_its_generated_secret(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    kustomization: Mapping[str, object],
) -> None:
    installed = render(own_plane, sources / "deploy")
    installed.apply(own_plane)
    folder = write(sources / "team", kustomization, membership=membership(cloud))
    shutil.copy(sources / "deploy/components/name-references/name-references.yaml", folder)
    rendered = render(own_plane, folder)
    secret, wanted = rendered.only("Secret"), rendered.only("NodePoolMembership")
    assert wanted["spec"]["credentialsRef"]["name"] == secret["metadata"]["name"] != "cce-credentials"
    own_plane.kubectl("apply", "--filename=-", input=rendered.yaml())
    name = wanted["metadata"]["name"]
    with installed.operator(own_plane, tmp_path, [cloud.url]):
        own_cluster.wait(TEAM, name, "Ready", is_ready)
        # A new key is a new Secret with another name: the membership names it with the same apply.
        changed = {**kustomization, "secretGenerator": [generator(NEXT_KEY)]}
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(changed))
        rotated = render(own_plane, folder)
        own_plane.kubectl("apply", "--filename=-", input=rotated.yaml())
        wait_for("the new key is used", lambda: True if NEXT_KEY.access_key in keys_used(cloud) else None)
        own_cluster.wait(TEAM, name, "Ready", is_ready)


def keys_used(cloud: SimulatorProcess) -> set[object]:
    return {entry["access_key"] for entry in cloud.entries()}


def test_without_the_configuration_the_name_is_not_followed(
    own_plane: ControlPlane, cloud: SimulatorProcess, sources: Path
) -> None:
    """Else the tests above would prove nothing."""
    kustomization = {"resources": ["membership.yaml"], "secretGenerator": [CREDENTIALS]}
    rendered = render(own_plane, write(sources / "team", kustomization, membership=membership(cloud)))
    assert rendered.only("NodePoolMembership")["spec"]["credentialsRef"]["name"] == "cce-credentials"
    assert rendered.only("Secret")["metadata"]["name"] != "cce-credentials"
