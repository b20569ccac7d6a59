"""`kubectl apply -k deploy` on an empty API server: it installs, changes nothing the second time, and grants no more
than it says.

Not for the operator at work with these rights: the tests of the operator run as its service account.
"""

import json
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeAlias

import pytest
import yaml

from controlplane import ControlPlane
from harness import wait_for
from harness.kustomize import render
from harness.sources import ROOT, copy_sources
from nodepool_membership.api.names import API_VERSION, COMPONENT

DEPLOY: Final = ROOT / "deploy"
NAMESPACE: Final = "nodepool-membership"
TEAM: Final = "cce-system"

Json: TypeAlias = "dict[str, Json] | list[Json] | str | int | bool | None"
Object: TypeAlias = "dict[str, Json]"


def at(value: Json, *path: str | int) -> Json:
    """What is found at this path of names and positions."""
    for step in path:
        if isinstance(step, int):
            assert isinstance(value, list)
            value = value[step]
        else:
            assert isinstance(value, dict)
            value = value[step]
    return value


def child(value: Json, *path: str | int) -> Object:
    """The object that is found at this path."""
    found = at(value, *path)
    assert isinstance(found, dict)
    return found


@contextmanager
def _installed(kustomization: Path) -> Iterator[ControlPlane]:
    """A control plane of its own: what is left from other tests could hide that something is missing."""
    with ControlPlane() as running:
        running.ensure_namespace(TEAM)
        running.kubectl("apply", "-k", str(kustomization))
        yield running


@pytest.fixture(scope="module")
def deploy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that is applied."""
    return copy_sources(tmp_path_factory.mktemp("sources")) / "deploy"


@pytest.fixture(scope="module")
def installed(deploy: Path) -> Iterator[ControlPlane]:
    with _installed(deploy) as running:
        yield running


@pytest.fixture(scope="module")
def installed_for_one_namespace(deploy: Path) -> Iterator[ControlPlane]:
    with _installed(deploy / "overlays" / "namespaced") as running:
        yield running


def _operator(control_plane: ControlPlane) -> Path:
    """A kubeconfig with the operator's own token."""
    token = control_plane.service_account_token(NAMESPACE, COMPONENT)
    kubeconfig = control_plane.kubeconfig_for_token(token, name=COMPONENT)

    def granted() -> bool | None:
        everywhere = {TEAM: OWN, NAMESPACE: OWN_LEASE}
        return all(own <= _rights(control_plane, kubeconfig, space) for space, own in everywhere.items()) or None

    # The API server follows applied roles after a moment. Which right is missing for good, the tests say better.
    with suppress(TimeoutError):
        wait_for("the rights are granted", granted, seconds=10)
    return kubeconfig


@pytest.fixture(scope="module")
def operator(installed: ControlPlane) -> Path:
    return _operator(installed)


@pytest.fixture(scope="module")
def template(installed: ControlPlane) -> Object:
    """The pod template of the Deployment."""
    command = ("get", "deployment", COMPONENT, f"--namespace={NAMESPACE}", "--output=json")
    return child(json.loads(installed.kubectl(*command).stdout), "spec", "template")


def _can(control_plane: ControlPlane, kubeconfig: Path, verb: str, resource: str, *options: str) -> bool:
    result = control_plane.kubectl("auth", "can-i", verb, resource, *options, kubeconfig=kubeconfig, check=False)
    answer = result.stdout.strip()
    assert answer in {"yes", "no"}, result.stderr
    return answer == "yes"


def test_a_second_apply_changes_nothing(installed: ControlPlane, deploy: Path) -> None:
    again = installed.kubectl("apply", "-k", str(deploy), "--dry-run=server").stdout.splitlines()
    # kubectl sends the selector of a PodDisruptionBudget every time: that it does not differ is the next test.
    budget = f"poddisruptionbudget.policy/{COMPONENT} configured (server dry run)"
    assert [line for line in again if not line.endswith(" unchanged (server dry run)")] == [budget]
    assert len(again) == len(render(installed, deploy).objects)


def test_nothing_differs_from_what_was_applied(installed: ControlPlane, deploy: Path) -> None:
    difference = installed.kubectl("diff", "-k", str(deploy), check=False)
    assert (difference.returncode, difference.stdout, difference.stderr) == (0, "", "")


def _rules(answer: Json) -> set[tuple[str, str, str]]:
    """(group, resource, verb) of each right; `resource/name` where it is restricted to a name."""
    rules = at(answer, "status", "resourceRules")
    assert isinstance(rules, list)
    granted: set[tuple[str, str, str]] = set()
    for rule in rules:
        groups, resources, verbs = (at(rule, key) for key in ("apiGroups", "resources", "verbs"))
        names = child(rule).get("resourceNames") or [""]
        assert isinstance(names, list)
        assert isinstance(groups, list)
        assert isinstance(resources, list)
        assert isinstance(verbs, list)
        full = [f"{resource}/{name}".rstrip("/") for resource in resources for name in names]
        granted |= {(str(g), r, str(v)) for g in groups for r in full for v in verbs}
    return granted


DEFINITION: Final = (
    "apiextensions.k8s.io",
    "customresourcedefinitions/nodepoolmemberships.cce.nodepools.dev",
    "get",
)
OWN: Final = {
    DEFINITION,
    ("cce.nodepools.dev", "nodepoolmemberships", "get"),
    ("cce.nodepools.dev", "nodepoolmemberships", "list"),
    ("cce.nodepools.dev", "nodepoolmemberships", "watch"),
    ("cce.nodepools.dev", "nodepoolmemberships", "patch"),
    ("cce.nodepools.dev", "nodepoolmemberships/status", "patch"),
    ("", "secrets", "get"),
    ("", "namespaces", "get"),
    ("", "events", "create"),
    ("", "events", "patch"),
}

OWN_LEASE: Final = {
    ("coordination.k8s.io", f"leases/{COMPONENT}", "get"),
    ("coordination.k8s.io", f"leases/{COMPONENT}", "patch"),
    ("coordination.k8s.io", "leases", "create"),
}


def _rights(control_plane: ControlPlane, kubeconfig: Path, namespace: str) -> set[tuple[str, str, str]]:
    """What the API server itself says this user may do there, less what it lets everybody ask about themselves."""
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": namespace},
    }
    # Unvalidated: kubectl would list the CRDs first, which this user may not.
    command = ("create", "--filename=-", "--output=json", "--validate=false")
    answer = json.loads(control_plane.kubectl(*command, input=json.dumps(review), kubeconfig=kubeconfig).stdout)
    assert not at(answer, "status", "incomplete")
    return {right for right in _rules(answer) if not right[1].startswith("selfsubject")}


def test_the_rights_are_exactly_these(installed: ControlPlane, operator: Path) -> None:
    assert _rights(installed, operator, TEAM) == OWN
    assert _rights(installed, operator, NAMESPACE) == OWN | OWN_LEASE


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("list", "secrets"),
        ("watch", "secrets"),
        ("create", "secrets"),
        ("get", "pods"),
        ("create", "pods"),
        ("delete", "pods"),
        ("create", "nodepoolmemberships"),
        ("update", "nodepoolmemberships"),
        ("delete", "nodepoolmemberships"),
        ("deletecollection", "nodepoolmemberships"),
        ("delete", "events"),
        ("list", "namespaces"),
        ("list", "nodes"),
        ("get", "customresourcedefinitions"),
        ("create", "leases.coordination.k8s.io"),
        ("impersonate", "users"),
        ("escalate", "clusterroles"),
    ],
)
def test_what_the_operator_may_not_do(installed: ControlPlane, operator: Path, verb: str, resource: str) -> None:
    assert not _can(installed, operator, verb, resource, "--all-namespaces")


@pytest.mark.parametrize("verb", ["list", "watch"])
def test_the_operator_sees_memberships_in_all_namespaces(installed: ControlPlane, operator: Path, verb: str) -> None:
    assert _can(installed, operator, verb, "nodepoolmemberships", "--all-namespaces")


def test_the_operator_may_look_whether_the_resource_is_served(installed: ControlPlane, operator: Path) -> None:
    listing = json.loads(installed.kubectl("get", "--raw", f"/apis/{API_VERSION}", kubeconfig=operator).stdout)
    assert "nodepoolmemberships/status" in [child(resource)["name"] for resource in listing["resources"]]


def _pod(template: Object) -> Object:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "operator"}, "spec": template["spec"]}


def _create_pod(control_plane: ControlPlane, pod: Object) -> str:
    command = ("create", "--filename=-", f"--namespace={NAMESPACE}", "--dry-run=server")
    result = control_plane.kubectl(*command, input=json.dumps(pod), check=False)
    return "" if result.returncode == 0 else result.stderr


def test_the_pod_is_admitted_at_the_restricted_level(installed: ControlPlane, template: Object) -> None:
    assert _create_pod(installed, _pod(template)) == ""


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("allowPrivilegeEscalation", "allowPrivilegeEscalation != false"),
        ("capabilities", "unrestricted capabilities"),
    ],
)
def test_its_namespace_refuses_a_pod_with_less(
    installed: ControlPlane, template: Object, name: str, complaint: str
) -> None:
    pod = _pod(child(json.loads(json.dumps(template))))
    del child(pod, "spec", "containers", 0, "securityContext")[name]
    assert complaint in _create_pod(installed, pod)


def test_the_container_can_neither_write_nor_grow_without_end(template: Object) -> None:
    container = child(template, "spec", "containers", 0)
    assert child(container, "securityContext")["readOnlyRootFilesystem"] is True
    assert child(container, "resources") == {
        "requests": {"cpu": "50m", "memory": "128Mi"},
        "limits": {"memory": "256Mi"},
    }


def test_the_pod_is_given_time_for_a_call_under_way(template: Object) -> None:
    """Longer than the default of `--http-timeout`, 60 s."""
    assert at(template, "spec", "terminationGracePeriodSeconds") == 90


def _stored(control_plane: ControlPlane, kind: str) -> Object:
    """The object of the operator's that has its name."""
    command = ("get", kind, COMPONENT, f"--namespace={NAMESPACE}", "--output=json")
    return child(json.loads(control_plane.kubectl(*command).stdout))


LEASES: Final = "leases.coordination.k8s.io"


@pytest.mark.parametrize("verb", ["get", "patch"])
def test_the_operator_may_take_its_own_lease_and_no_other(installed: ControlPlane, operator: Path, verb: str) -> None:
    here = f"--namespace={NAMESPACE}"
    assert _can(installed, operator, verb, f"{LEASES}/{COMPONENT}", here)
    assert not _can(installed, operator, verb, f"{LEASES}/other", here)
    assert not _can(installed, operator, verb, LEASES, here)
    assert not _can(installed, operator, verb, f"{LEASES}/{COMPONENT}", f"--namespace={TEAM}")


def test_the_operator_may_make_a_lease_in_its_own_namespace_only(installed: ControlPlane, operator: Path) -> None:
    assert _can(installed, operator, "create", LEASES, f"--namespace={NAMESPACE}")
    assert not _can(installed, operator, "create", LEASES, f"--namespace={TEAM}")


@pytest.mark.parametrize("verb", ["update", "delete", "watch", "list"])
def test_the_operator_may_do_nothing_else_with_its_lease(installed: ControlPlane, operator: Path, verb: str) -> None:
    assert not _can(installed, operator, verb, f"{LEASES}/{COMPONENT}", f"--namespace={NAMESPACE}")


def test_two_replicas_run_apart_and_one_of_them_always(installed: ControlPlane, template: Object) -> None:
    spec = child(_stored(installed, "deployment"), "spec")
    assert spec["replicas"] == 2
    assert spec["strategy"] == {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}
    labels = child(spec, "selector", "matchLabels")
    budget = child(_stored(installed, "poddisruptionbudget"), "spec")
    assert (budget["maxUnavailable"], child(budget, "selector")["matchLabels"]) == (1, labels)
    apart = at(template, "spec", "affinity", "podAntiAffinity", "preferredDuringSchedulingIgnoredDuringExecution", 0)
    assert at(apart, "podAffinityTerm", "topologyKey") == "kubernetes.io/hostname"
    assert at(apart, "podAffinityTerm", "labelSelector", "matchLabels") == labels
    assert labels.items() <= child(template, "metadata", "labels").items()


def test_the_probes_ask_the_port_that_is_served(template: Object) -> None:
    container = child(template, "spec", "containers", 0)
    assert at(container, "ports", 0, "containerPort") == 8080
    for probe, path in (("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert at(container, probe, "httpGet", "path") == path
        assert at(container, probe, "httpGet", "port") == at(container, "ports", 0, "name")


@pytest.mark.parametrize("folder", [".", "overlays/namespaced"])
def test_the_version_is_that_of_the_project(installed: ControlPlane, folder: str) -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    rendered = list(yaml.safe_load_all(installed.kubectl("kustomize", str(DEPLOY / folder)).stdout))
    (deployment,) = (found for found in rendered if found["kind"] == "Deployment")
    pod = at(deployment, "spec", "template")
    assert at(pod, "spec", "containers", 0, "image") == f"nodepool-membership:{version}"
    for labelled in (deployment, pod):
        assert at(labelled, "metadata", "labels", "app.kubernetes.io/version") == version


@pytest.mark.parametrize(
    ("role", "label", "verbs"),
    [
        ("nodepoolmembership-viewer", "aggregate-to-view", {"get", "list", "watch"}),
        ("nodepoolmembership-editor", "aggregate-to-edit", {"create", "update", "patch", "delete", "deletecollection"}),
    ],
)
def test_people_get_rights_by_the_roles_they_have(
    installed: ControlPlane, role: str, label: str, verbs: set[str]
) -> None:
    stored = json.loads(installed.kubectl("get", "clusterrole", role, "--output=json").stdout)
    assert at(stored, "metadata", "labels", f"rbac.authorization.k8s.io/{label}") == "true"
    (rule,) = stored["rules"]
    assert set(rule["verbs"]) == verbs


def test_who_may_edit_memberships_may_not_write_their_status(installed: ControlPlane) -> None:
    stored = json.loads(installed.kubectl("get", "clusterrole", "nodepoolmembership-editor", "--output=json").stdout)
    assert stored["rules"][0]["resources"] == ["nodepoolmemberships"]


def test_the_samples_are_accepted_and_hold_no_secret(installed: ControlPlane) -> None:
    installed.kubectl("apply", f"--filename={DEPLOY / 'samples'}", "--dry-run=server")
    secret = yaml.safe_load((DEPLOY / "samples" / "secret.yaml").read_text())
    assert [value for value in secret["stringData"].values() if not value.startswith("REPLACE-WITH-")] == []
    membership = yaml.safe_load((DEPLOY / "samples" / "nodepoolmembership.yaml").read_text())
    assert membership["spec"]["suspend"] is True
    assert membership["spec"]["credentialsRef"]["name"] == secret["metadata"]["name"]


def test_the_overlay_gives_rights_in_its_namespaces_only(installed_for_one_namespace: ControlPlane) -> None:
    kubeconfig = _operator(installed_for_one_namespace)
    assert _rights(installed_for_one_namespace, kubeconfig, TEAM) == OWN
    assert _rights(installed_for_one_namespace, kubeconfig, NAMESPACE) == OWN_LEASE | {DEFINITION}
    assert _rights(installed_for_one_namespace, kubeconfig, "default") == {DEFINITION}


def test_the_overlay_tells_the_operator_the_namespaces(installed_for_one_namespace: ControlPlane) -> None:
    command = ("get", "deployment", COMPONENT, f"--namespace={NAMESPACE}", "--output=json")
    deployment = json.loads(installed_for_one_namespace.kubectl(*command).stdout)
    arguments = at(deployment, "spec", "template", "spec", "containers", 0, "args")
    assert arguments == ["run", f"--namespace={TEAM}"]
