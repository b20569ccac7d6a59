"""The operator runs with the rights of `deploy/` and needs each of them: one taken away, it says which it misses.

Not for: what the rights are (`test_deploy`).
"""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from cce_simulator.config import Behaviour, SimulatorConfig
from controlplane import ControlPlane
from harness import Cluster, Object, Operator, Scene, wait_for
from harness.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE, condition
from harness.operator_process import FAST
from harness.scene import server_ids
from harness.sources import ROOT

Role = dict[str, Any]
"""As yaml reads it."""
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)
SHIPPED: Sequence[str] = (*FAST, "--leader-elect")
"""With the lease's own times: nobody takes over here, and a short deadline would end the operator on a busy machine."""
BASE = ROOT / "deploy" / "base"
ROLE = yaml.safe_load((BASE / "role.yaml").read_text())
LEASE_ROLE, _ = yaml.safe_load_all((BASE / "lease-role.yaml").read_text())
ROLES: Sequence[Role] = (ROLE, LEASE_ROLE)
IN_CLUSTER = Path(__file__).parent.parent / "harness" / "in_cluster.py"

Stage = Callable[..., Scene]
Operate = Callable[..., Operator]


@dataclass(frozen=True)
class Right:
    """One verb on one resource, as a rule of the role grants it."""

    role: str
    """The kind of the role that grants it."""
    group: str
    resource: str
    verb: str
    name: str = ""
    """Of the one object for which it is granted."""

    def __str__(self) -> str:
        return f"{self.verb}-{self.resource.replace('/', '-')}"

    @property
    def missed(self) -> str:
        """What the API server answers without it."""
        return f'cannot {self.verb} resource "{self.resource}" in API group "{self.group}"'


HOMES = (
    Right("ClusterRole", "", "namespaces", "get"),
    Right(
        "ClusterRole",
        "apiextensions.k8s.io",
        "customresourcedefinitions",
        "get",
        "nodepoolmemberships.cce.nodepools.dev",
    ),
)
"""Needed when a membership is deleted under `deletionPolicy: Remove` only."""
COUNTING = Right("ClusterRole", "", "events", "patch")


RIGHTS: Sequence[Right] = [
    Right(role["kind"], group, resource, verb, name)
    for role in ROLES
    for rule in role["rules"]
    for name in rule.get("resourceNames", [""])
    for group in rule["apiGroups"]
    for resource in rule["resources"]
    for verb in rule["verbs"]
]


def rules_without(right: Right, role: Role) -> list[Object]:
    rules: list[Object] = []
    for rule in role["rules"]:
        concerned = right.group in rule["apiGroups"] and right.resource in rule["resources"]
        verbs = [verb for verb in rule["verbs"] if not (concerned and verb == right.verb)]
        rules += [{**rule, "verbs": verbs}] if verbs else []
    return rules


def set_rules(control_plane: ControlPlane, role: Role, rules: list[Object]) -> None:
    patch = json.dumps({"rules": rules})
    which = (role["kind"], role["metadata"]["name"], f"--namespace={OPERATOR_NAMESPACE}")
    control_plane.kubectl("patch", *which, "--type=merge", "-p", patch)


def wait_until(cluster: Cluster, right: Right, *, granted: bool) -> None:
    """The API server follows a changed role after a moment."""
    resource, _, subresource = right.resource.partition("/")
    review: Object = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{OPERATOR_NAMESPACE}:{OPERATOR_ACCOUNT}",
            "resourceAttributes": {
                "group": right.group,
                "resource": resource,
                "subresource": subresource,
                "verb": right.verb,
                "namespace": OPERATOR_NAMESPACE,
                "name": right.name,
            },
        },
    }
    wait_for(f"{right}: {granted}", lambda: True if cluster.allows(review) is granted else None, seconds=10)


@pytest.fixture
def take_away(cluster: Cluster, control_plane: ControlPlane) -> Iterator[Callable[[Right], Callable[[], None]]]:
    """`take_away(right)` takes it from the role and returns what gives it back; so does the end of the test."""
    taken: list[Right] = []

    def take(right: Right) -> Callable[[], None]:
        taken.append(right)
        (role,) = (role for role in ROLES if role["kind"] == right.role)
        set_rules(control_plane, role, rules_without(right, role))
        wait_until(cluster, right, granted=False)
        return give_back

    def give_back() -> None:
        for role in ROLES:
            set_rules(control_plane, role, role["rules"])
        for right in taken:
            wait_until(cluster, right, granted=True)

    yield take
    give_back()


def join(scene: Scene) -> None:
    scene.create(server_ids(2))


def tell_twice(scene: Scene) -> None:
    """Ready, suspended and Ready again: the same Event for the second time."""
    scene.until_ready()
    scene.edit(suspend=True)
    scene.until_reason("Suspended")
    scene.edit(suspend=False)
    scene.until_ready()


def told_twice(scene: Scene) -> bool | None:
    found = [event for event in scene.cluster.events(scene.namespace) if event["reason"] == "Succeeded"]
    return True if any(int(str(event["deprecatedCount"])) >= 2 for event in found) else None


def check_done(scene: Scene) -> None:
    wait_for("Succeeded is counted", lambda: told_twice(scene))
    scene.until_joined(server_ids(2))


def says(scene: Scene, text: str) -> bool | None:
    """Whether the operator's log or Ready's message has the text."""
    scene.operator.check()
    told = scene.operator.output().replace('\\"', '"')
    if scene.cluster.exists(scene.namespace, scene.name):
        told += str(condition(scene.get()).get("message"))
    return True if text in told else None


@pytest.mark.usefixtures("free_lease")
def test_the_rights_are_enough(stage: Stage) -> None:
    scene = stage(QUICK, options=SHIPPED)
    join(scene)
    tell_twice(scene)
    check_done(scene)
    assert scene.operator.leads()
    assert "cannot" not in scene.operator.output()


def test_the_rights_that_are_tried_are_those_of_the_role() -> None:
    assert {COUNTING, *HOMES} <= set(RIGHTS)
    assert (
        len(RIGHTS)
        == len(set(RIGHTS))
        == sum(
            len(rule["apiGroups"]) * len(rule["resources"]) * len(rule["verbs"])
            for role in ROLES
            for rule in role["rules"]
        )
    )


@pytest.mark.parametrize("right", [right for right in RIGHTS if right not in HOMES], ids=str)
@pytest.mark.usefixtures("free_lease")
def test_each_right_is_needed(stage: Stage, take_away: Callable[[Right], Callable[[], None]], right: Right) -> None:
    give_back = take_away(right)
    scene = stage(QUICK, options=SHIPPED, wait=False)
    join(scene)
    if right == COUNTING:
        tell_twice(scene)
    wait_for(f"the operator says: {right.missed}", lambda: says(scene, right.missed))
    assert told_twice(scene) is None
    give_back()
    tell_twice(scene)
    check_done(scene)


@pytest.mark.parametrize("right", HOMES, ids=str)
def test_without_the_right_to_see_what_else_is_deleted_a_deletion_keeps_the_servers(
    stage: Stage, take_away: Callable[[Right], Callable[[], None]], right: Right
) -> None:
    take_away(right)
    scene = stage(QUICK)
    scene.create(server_ids(2), deletionPolicy="Remove")
    scene.until_ready()
    scene.cluster.delete(scene.namespace, scene.name)
    wait_for("it is gone", lambda: None if scene.cluster.exists(scene.namespace, scene.name) else True)
    assert says(scene, right.missed)
    assert scene.calls("removeNodes") == []


@pytest.mark.usefixtures("free_lease")
def test_it_runs_with_what_a_pod_is_given(control_plane: ControlPlane, stage: Stage, tmp_path: Path) -> None:
    account = tmp_path / "serviceaccount"
    account.mkdir()
    (account / "token").write_text(control_plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT))
    (account / "ca.crt").write_bytes(control_plane.ca_file.read_bytes())
    host, _, port = control_plane.url.removeprefix("https://").rpartition(":")
    scene = stage(
        QUICK,
        options=SHIPPED,
        kubeconfig=None,
        program=(str(IN_CLUSTER), str(account)),
        environment={"KUBERNETES_SERVICE_HOST": host, "KUBERNETES_SERVICE_PORT": port, "HOME": str(tmp_path)},
    )
    join(scene)
    tell_twice(scene)
    check_done(scene)
