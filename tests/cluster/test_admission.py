"""The shipped ValidatingAdmissionPolicy: nobody but the operator writes the finalizer and the status where it works.

Not for the rights by role (`test_deploy`): here everybody has the role, and is refused nevertheless.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

import pytest
import yaml

from controlplane import ControlPlane
from harness import Rendered, wait_for
from harness.cluster import MembershipSpec
from harness.sources import ADMISSION_POLICY_SINCE, ROOT
from nodepool_membership.api.names import FINALIZER

pytestmark = pytest.mark.since_kubernetes(ADMISSION_POLICY_SINCE)

TEAM: Final = "team"
STATUS: Final = json.dumps({"status": {"phase": "Forged"}})


@dataclass(frozen=True)
class User:
    """Somebody with a login."""

    control_plane: ControlPlane
    kubeconfig: Path

    def does(self, *command: str, input: str | None = None) -> str:  # noqa: A002 - as in ControlPlane
        """What it was refused with; empty if it was not."""
        result = self.control_plane.kubectl(*command, input=input, kubeconfig=self.kubeconfig, check=False)
        return "" if result.returncode == 0 else result.stderr

    def finalizers(self, *names: str) -> str:
        patch = json.dumps({"metadata": {"finalizers": list(names)}})
        return self.does("patch", "npmem", "held", f"-n={TEAM}", "--type=merge", "-p", patch)

    def status(self) -> str:
        return self.does("patch", "npmem", "held", f"-n={TEAM}", "--type=merge", "--subresource=status", "-p", STATUS)


def _manifest(name: str, **metadata: object) -> str:
    found = MembershipSpec(name, ["0e3b1c9a-6a43-4a57-9a0e-3b4f6f0f7a11"], "https://cce.example", TEAM).manifest()
    inner = found["metadata"]
    assert isinstance(inner, dict)
    return json.dumps({**found, "metadata": {**inner, **metadata}})


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        running.ensure_namespace(TEAM)
        running.kubectl("create", "serviceaccount", "editor", f"-n={TEAM}")
        grant = ("--verb=*", "--resource=nodepoolmemberships.cce.nodepools.dev,nodepoolmemberships/status")
        running.kubectl("apply", "-k", str(ROOT / "deploy"))
        running.kubectl("create", "role", "all", *grant, f"-n={TEAM}")
        bound = ("create", "rolebinding", "editor", "--role=all", f"--serviceaccount={TEAM}:editor", f"-n={TEAM}")
        running.kubectl(*bound)
        running.kubectl("create", "clusterrole", "whole-cluster", *grant)
        yield running


@pytest.fixture(scope="module")
def installed(control_plane: ControlPlane) -> Rendered:
    return Rendered(control_plane.kubectl("kustomize", str(ROOT / "deploy")).stdout)


@pytest.fixture(scope="module")
def operator(control_plane: ControlPlane, installed: Rendered) -> User:
    return User(control_plane, installed.kubeconfig(control_plane))


@pytest.fixture(scope="module")
def editor(control_plane: ControlPlane) -> User:
    """A service account that may do all with memberships in its namespace, status included."""
    token = control_plane.service_account_token(TEAM, "editor")
    return User(control_plane, control_plane.kubeconfig_for_token(token, name="editor"))


@pytest.fixture(scope="module")
def admin(control_plane: ControlPlane) -> User:
    return User(control_plane, control_plane.admin_kubeconfig)


@pytest.fixture
def held(control_plane: ControlPlane, admin: User, editor: User) -> Iterator[None]:
    """A membership with the finalizer of the operator, and a policy that is in force."""
    assert admin.does("apply", "-f", "-", input=_manifest("held", finalizers=[FINALIZER, "example.com/other"])) == ""
    # The API server follows a new policy, and new roles, after a moment.
    wait_for("the policy is in force", lambda: True if "is put on" in editor.finalizers() else None)
    yield
    admin.finalizers()
    control_plane.kubectl("delete", "npmem", "--all", f"-n={TEAM}")


@pytest.mark.usefixtures("held")
def test_who_may_edit_neither_takes_the_finalizer_off_nor_puts_it_on(editor: User, admin: User) -> None:
    refusal = editor.finalizers("example.com/other")
    account = "system:serviceaccount:nodepool-membership:nodepool-membership-operator"
    assert f"the finalizer {FINALIZER} is put on and taken off by {account} only" in refusal
    assert "is put on" in editor.does("replace", "-f", "-", input=_manifest("held"))
    assert "is put on" in editor.does("create", "-f", "-", input=_manifest("forged", finalizers=[FINALIZER]))
    assert admin.finalizers() == ""
    assert "is put on" in editor.finalizers(FINALIZER)


@pytest.mark.usefixtures("held")
def test_who_may_edit_may_do_everything_else(editor: User) -> None:
    assert editor.finalizers(FINALIZER, "example.com/mine") == ""
    assert editor.does("annotate", "npmem", "held", f"-n={TEAM}", "a=b") == ""
    assert editor.does("patch", "npmem", "held", f"-n={TEAM}", "--type=merge", "-p", '{"spec":{"suspend":true}}') == ""
    assert editor.does("create", "-f", "-", input=_manifest("free", finalizers=["example.com/other"])) == ""
    assert (
        editor.does("patch", "npmem", "free", f"-n={TEAM}", "--type=merge", "-p", '{"metadata":{"finalizers":[]}}')
        == ""
    )
    assert editor.does("delete", "npmem", "free", f"-n={TEAM}") == ""
    assert editor.does("delete", "npmem", "held", f"-n={TEAM}", "--wait=false") == ""


@pytest.mark.usefixtures("held")
def test_nobody_else_writes_the_status_even_with_the_right(editor: User, admin: User) -> None:
    """That the operator does, every test shows in which it joins a server."""
    assert "give each namespace to one installation" in editor.status()
    assert admin.status() == ""


@pytest.mark.usefixtures("held")
def test_the_operator_and_the_administrator_write_the_finalizer(operator: User, admin: User) -> None:
    assert operator.finalizers() == ""
    assert operator.finalizers(FINALIZER) == ""
    assert admin.finalizers() == ""


@pytest.mark.usefixtures("held")
def test_a_right_in_one_namespace_makes_no_administrator(control_plane: ControlPlane, editor: User) -> None:
    wildcard = ("create", "role", "wildcard", "--verb=*", "--resource=*.*", f"-n={TEAM}")
    control_plane.kubectl(*wildcard)
    bind = ("create", "rolebinding", "wildcard", "--role=wildcard", f"--serviceaccount={TEAM}:editor", f"-n={TEAM}")
    control_plane.kubectl(*bind)
    can = ("auth", "can-i", "update", "nodepoolmemberships/finalizers", f"-n={TEAM}")
    wait_for("the right is there", lambda: True if editor.does(*can) == "" else None)
    assert "is put on" in editor.finalizers()


@pytest.mark.usefixtures("held")
def test_metadata_of_any_kind_is_bounded_and_what_is_there_may_stay(
    control_plane: ControlPlane, editor: User, admin: User
) -> None:
    most = {f"example.com/{number}": "" for number in range(128)}
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "n", "uid": "u"}
    for wrong in (
        {"labels": {**most, "one-more": ""}},
        {"annotations": {**most, "one-more": ""}},
        {"finalizers": [*most, "example.com/one-more"]},
        {"labels": most, "ownerReferences": [owner]},
    ):
        told = editor.does("create", "-f", "-", input=_manifest("large", **wrong))
        assert "metadata has 129 labels, annotations, finalizers and owner references: have at most 128 in all" in told
    long = {"ownerReferences": [{**owner, "name": "n" * 254}]}
    assert "an owner reference is longer" in editor.does("create", "-f", "-", input=_manifest("large", **long))
    assert editor.does("create", "-f", "-", input=_manifest("large", labels=most)) == ""
    # Made before the policy was: it can be worked, changed and made smaller.
    policy = "validatingadmissionpolicybinding/nodepool-membership-operator"
    binding = control_plane.kubectl("get", policy, "-o=yaml").stdout
    control_plane.kubectl("delete", policy)
    grow = ("label", "npmem", "large", f"-n={TEAM}", "a=b", "c=d", "--overwrite")
    wait_for("it is let", lambda: True if editor.does(*grow) == "" else None)
    control_plane.kubectl("apply", "-f", "-", input=binding)
    more = (editor.does("label", "npmem", "large", f"-n={TEAM}", f"more-{number}=") for number in count())
    wait_for("it is in force", lambda: True if "have at most 128 in all" in next(more) else None)
    assert editor.does("patch", "npmem", "large", f"-n={TEAM}", "--type=merge", "-p", '{"spec":{"suspend":true}}') == ""
    assert editor.does("label", "npmem", "large", f"-n={TEAM}", "a-") == ""
    assert admin.does("delete", "npmem", "large", f"-n={TEAM}") == ""


@pytest.mark.usefixtures("held")
def test_the_right_to_finalizers_in_the_whole_cluster_makes_one(control_plane: ControlPlane, editor: User) -> None:
    """Breaking glass without `cluster-admin`."""
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "breaks-glass"},
        "rules": [
            {"apiGroups": ["cce.nodepools.dev"], "resources": ["nodepoolmemberships/finalizers"], "verbs": ["update"]}
        ],
    }
    control_plane.kubectl("create", "-f", "-", input=yaml.safe_dump(role))
    bind = ("create", "clusterrolebinding", "breaks-glass", "--clusterrole=breaks-glass")
    control_plane.kubectl(*bind, f"--serviceaccount={TEAM}:editor")
    try:
        wait_for("it is let", lambda: True if editor.finalizers() == "" else None)
    finally:
        control_plane.kubectl("delete", "clusterrolebinding", "breaks-glass")


@pytest.mark.usefixtures("held")
def test_where_the_operator_has_no_rights_the_policy_does_not_apply(control_plane: ControlPlane, editor: User) -> None:
    binding = "clusterrolebinding/nodepool-membership-operator"
    stored = control_plane.kubectl("get", binding, "--output=yaml").stdout
    control_plane.kubectl("delete", binding)
    try:
        wait_for("it is let", lambda: True if editor.finalizers() == "" else None)
    finally:
        control_plane.kubectl("create", "-f", "-", input=stored)


@pytest.mark.usefixtures("held")
def test_without_the_service_account_nothing_is_held_up(control_plane: ControlPlane, editor: User) -> None:
    account = ("serviceaccount", "nodepool-membership-operator", "-n=nodepool-membership")
    stored = control_plane.kubectl("get", *account, "--output=yaml").stdout
    control_plane.kubectl("delete", *account)
    try:
        wait_for("it is let", lambda: True if editor.finalizers() == "" else None)
    finally:
        control_plane.kubectl("create", "-f", "-", input=stored)


def test_the_expressions_have_the_types_that_they_need(control_plane: ControlPlane, installed: Rendered) -> None:
    """The controller that checks types does not run here: a wrong field name would show as a refusal of everything."""
    policy = installed.only("ValidatingAdmissionPolicy")
    stored = control_plane.kubectl(
        "get", "validatingadmissionpolicy", policy["metadata"]["name"], "--output=json"
    ).stdout
    assert json.loads(stored)["spec"] == policy["spec"]
