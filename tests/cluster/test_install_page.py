"""docs/install.md and README.md are followed, as far as no container engine is needed.

Not for what the objects do then (`test_kustomize`, `test_installations`).
"""

import json
import re
import shlex
from pathlib import Path
from typing import Final

import pytest
import yaml

from controlplane import ControlPlane
from harness import MembershipSpec, Rendered
from harness.kustomize import KEY, TEAM, render
from harness.sources import ROOT

PAGE: Final = (ROOT / "docs" / "install.md").read_text()
FOLDERS: Final = dict(re.findall(r"```yaml\n# (\w+)/kustomization\.yaml\n(.*?)```", PAGE, re.DOTALL))


@pytest.fixture
def page(sources: Path) -> Path:
    """The folders of the page beside `deploy`, and the files that it leaves to the reader."""
    for name, text in FOLDERS.items():
        (sources / name).mkdir()
        (sources / name / "kustomization.yaml").write_text(text)
    membership = MembershipSpec("pool", [], "https://cce.example", TEAM).manifest()
    (sources / "team" / "membership.yaml").write_text(yaml.safe_dump(membership))
    (sources / "team" / "accessKey").write_text(KEY.access_key)
    (sources / "team" / "secretKey").write_text(KEY.secret_key)
    shipped = (ROOT / "deploy/overlays/namespaced/role-bindings.yaml").read_text()
    bindings = shipped.replace("namespace: nodepool-membership\n", "namespace: infra\n").replace(TEAM, "team-a")
    (sources / "top" / "role-bindings.yaml").write_text(bindings)
    return sources


def test_every_kustomization_is_rendered_and_taken(own_plane: ControlPlane, page: Path) -> None:
    assert sorted(FOLDERS) == ["operator", "prod", "team", "top"]
    own_plane.kubectl("apply", "-k", str(page / "prod"))
    for name in ("infra", "team-a"):
        own_plane.ensure_namespace(name)
    for name in FOLDERS:
        own_plane.kubectl("apply", "-k", str(page / name), "--dry-run=server")


def test_they_say_what_the_page_says(own_plane: ControlPlane, page: Path) -> None:
    prod = render(own_plane, page / "prod")
    assert prod.container["image"] == "swr.cn-north-4.myhuaweicloud.com/TEAM/nodepool-membership:0.1.0"
    assert prod.pod["spec"]["imagePullSecrets"] == [{"name": "default-secret"}]
    team = render(own_plane, page / "team")
    secret = team.only("Secret")
    assert team.only("NodePoolMembership")["spec"]["credentialsRef"]["name"] == secret["metadata"]["name"]
    assert (secret["type"], sorted(secret["data"])) == ("cce.nodepools.dev/credentials", ["accessKey", "secretKey"])
    top = render(own_plane, page / "top")
    assert list(top.arguments()) == ["--namespace=team-a", "--namespace=team-b"]
    assert (top.namespace, top.service_account) == ("infra", "prod-nodepool-membership-operator")
    (binding,) = (found for found in top if found["metadata"].get("namespace") == "team-a")
    subject = {"kind": "ServiceAccount", "name": top.service_account, "namespace": "infra"}
    assert (binding["subjects"], binding["roleRef"]["name"]) == ([subject], top.service_account)


def test_the_shipped_kustomization_may_be_edited_as_the_readme_says(own_plane: ControlPlane, sources: Path) -> None:
    (line,) = re.findall(r"`(components: \[.*\])` there", (ROOT / "README.md").read_text())
    file = sources / "deploy" / "kustomization.yaml"
    mine = "registry.example.com/nodepool-membership"
    file.write_text(file.read_text().replace("newName: nodepool-membership", f"newName: {mine}") + f"{line}\n")
    rendered = render(own_plane, sources / "deploy")
    assert rendered.container["image"].partition(":")[0] == mine
    assert rendered.pod["spec"]["imagePullSecrets"] == [{"name": "default-secret"}]
    own_plane.kubectl("apply", "-k", str(sources / "deploy"))


def test_every_component_is_on_the_page() -> None:
    listed = set(re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.MULTILINE))
    assert {folder.name for folder in (ROOT / "deploy" / "components").iterdir()} == listed


@pytest.mark.parametrize("page", ["README.md", "docs/install.md", "docs/air-gap.md"])
def test_the_image_is_built_as_the_registry_takes_it(page: str) -> None:
    text = (ROOT / page).read_text()
    one_line = text.replace("\\\n", " ")
    builds = [shlex.split(line, comments=True) for line in re.findall(r"docker buildx build .*", one_line)]
    assert builds
    for command in builds:
        assert {"--provenance=false", "--sbom=false", "--platform", "--push"} <= set(command)
        assert re.fullmatch(r"linux/(amd64|arm64)(,linux/arm64)?", command[command.index("--platform") + 1])
    assert "docker build " not in text


def test_what_the_page_sets_for_helm_is_known_to_the_chart() -> None:
    values = json.loads((ROOT / "deploy/charts/nodepool-membership/values.schema.json").read_text())["properties"]
    set_on_the_page = re.findall(r"--set '?([A-Za-z.]+)=", PAGE) + re.findall(r"`([a-z]\w+\.[a-z]+)=\w+`", PAGE)
    assert len(set_on_the_page) >= 4
    for path in set_on_the_page:
        name, _, inner = path.partition(".")
        assert name in values
        assert not inner or inner in values[name]["properties"]


def test_the_samples_stand_for_a_membership_and_its_secret(own_plane: ControlPlane, sources: Path) -> None:
    own_plane.kubectl("apply", "-k", str(sources / "deploy"))
    samples = Rendered("---\n".join(file.read_text() for file in sorted((ROOT / "deploy/samples").glob("*.yaml"))))
    own_plane.kubectl("apply", "--filename=-", input=samples.yaml())
