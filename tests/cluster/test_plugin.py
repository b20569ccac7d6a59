"""`kubectl npmem` about a membership in a cluster, with the rights that a namespace's editor has, and without.

Not for: every state that can be explained (`unit.plugin.test_plugin_explain`), or what a request leads to.
"""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from cce_simulator.config import BadServer, Behaviour, SimulatorConfig
from controlplane import ControlPlane
from controlplane.ports import free_ports
from harness import Cluster, Scene
from harness.cluster import MembershipSpec, status
from harness.editor import EDITOR, VIEWER, Person
from harness.scene import server_ids

IDS = server_ids(5)
SLOW = SimulatorConfig(behaviour=Behaviour(job_seconds=3600), writes_per_minute=0)
BROKEN = SimulatorConfig(
    behaviour=Behaviour(job_seconds=0.2), writes_per_minute=0, bad_servers=(BadServer(servers=tuple(IDS)),)
)
Stage = Callable[..., Scene]


@pytest.fixture
def editor(cluster: Cluster, control_plane: ControlPlane, namespace: str) -> Person:
    assert cluster.control_plane is control_plane
    return Person.with_rights(control_plane, namespace, EDITOR)


def test_an_editor_stops_a_membership_and_lets_it_go_on(stage: Stage, editor: Person) -> None:
    scene = stage()
    scene.create(IDS, suspend=True)
    scene.until_reason("Suspended")
    told = editor.npmem("explain", "m")
    assert (told.returncode, told.stderr) == (0, "")
    assert "would add 5 in 1 call, which WIPES them" in told.stdout
    assert f"kubectl npmem resume -n {editor.namespace} m" in told.stdout
    assert scene.calls("addNodes") == []
    done = editor.npmem("resume", "m")
    assert (done.returncode, done.stdout) == (0, f"{editor.namespace}/m resumed\n")
    assert "note: by the last look 5 servers will be added, which WIPES them" in done.stderr
    scene.until_joined(IDS)
    told = editor.npmem("explain", "m")
    assert "Doing:     Ready: 5 of 5 servers are Active members of the pool" in told.stdout
    assert "Wiped:     yes, 5 servers by calls that were accepted" in told.stdout
    assert len(told.stdout.splitlines()) <= 10
    assert editor.npmem("suspend", "m").stdout == f"{editor.namespace}/m suspended: no call is made\n"
    assert "already suspended" in editor.npmem("suspend", "m").stdout
    scene.until_reason("Suspended")


def test_a_membership_at_work_is_explained_by_its_state_alone(stage: Stage, editor: Person) -> None:
    scene = stage(SLOW)
    scene.create(IDS, batchSize=3)
    scene.until("a job", lambda m: bool(status(m).get("lastJobID")))
    scene.operator.kill()
    job = str(status(scene.get())["lastJobID"])
    before = json.loads(editor.npmem("explain", "m", "-o", "json").stdout)
    assert (before["doing"], before["wiped"]["certainly"]) == ("Working", 3)
    assert job in before["waits"][0]["what"]
    moment = "2026-01-01T00:00:00Z"
    ready = {"type": "Ready", "status": "Unknown", "reason": "Pending", "message": "", "lastTransitionTime": moment}
    scene.edit_status(conditions=[ready])
    after = json.loads(editor.npmem("explain", "m", "-o", "json").stdout)
    assert after.pop("told") != before.pop("told")
    assert after == before
    rows = yaml.safe_load(editor.npmem("servers", "m", "-o", "yaml").stdout)
    assert [row["state"] for row in rows] == ["Joining"] * 3 + ["Pending"] * 2
    one = editor.npmem("servers", "m", IDS[4].upper()).stdout.splitlines()
    assert [line.split() for line in one] == [
        ["SERVER", "STATE", "BATCH", "ATTEMPTS", "RETRY", "REASON", "MESSAGE"],
        [IDS[4], "Pending"],
    ]


def test_an_editor_resets_what_failed_for_one_reason(stage: Stage, editor: Person) -> None:
    scene = stage(BROKEN)
    scene.create(IDS[:2], maxAttempts=1)
    failed = scene.until("2 failed", lambda m: status(m).get("failed") == 2)
    groups = status(failed)["failures"]
    assert isinstance(groups, list)
    reason = str(groups[0]["reason"])
    wrong = editor.npmem("reset", "m", "--only", "NeverAppeared")
    assert wrong.returncode == 1
    assert f"no server failed with NeverAppeared: the reasons are {reason}" in wrong.stderr
    done = editor.npmem("reset", "m", "--only", reason)
    assert done.returncode == 0, done.stderr
    token = done.stdout.split()[-1]
    scene.until("the reset is answered", lambda m: status(m).get("lastHandledResetAt") == token)
    # The narrowing stays on the object until a reset without one.
    whole = editor.npmem("reset", "m")
    assert "reset-only, which would have narrowed it, is taken off" in whole.stderr
    annotations = scene.get()["metadata"]["annotations"]  # type: ignore[index]
    assert "cce.nodepools.dev/reset-only" not in annotations


def test_a_request_uses_the_annotation_that_counts(stage: Stage, editor: Person) -> None:
    scene = stage()
    scene.create(IDS[:1])
    scene.until_ready()
    flux = {"reconcile.fluxcd.io/requestedAt": "by Flux"}
    scene.cluster.patch(scene.namespace, "m", {"metadata": {"annotations": flux}})
    done = editor.npmem("reconcile", "m")
    token = done.stdout.split()[-1]
    scene.until("it is answered", lambda m: status(m).get("lastHandledReconcileAt") == token)


def test_who_may_only_look_is_told_the_verb_that_is_missing(
    cluster: Cluster, control_plane: ControlPlane, namespace: str
) -> None:
    cluster.create(MembershipSpec("m", IDS, "https://cce.example.com", namespace))
    viewer = Person.with_rights(control_plane, namespace, VIEWER)
    assert viewer.npmem("explain", "m").returncode == 0
    for verb in ("suspend", "reconcile", "reset"):
        refused = viewer.npmem(verb, "m")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert 'cannot patch resource "nodepoolmemberships" in API group "cce.nodepools.dev"' in refused.stderr
        assert "nodepoolmembership-editor" in refused.stderr
    nobody = Person.with_rights(control_plane, namespace, ("system:discovery",))
    assert 'cannot get resource "nodepoolmemberships"' in nobody.npmem("explain", "m").stderr


def test_what_is_not_there_is_said(editor: Person, cluster: Cluster, tmp_path: Path) -> None:
    cluster.create(MembershipSpec("gpu-workers", IDS, "https://cce.example.com", editor.namespace))
    typo = editor.npmem("explain", "gpu-worker")
    assert (typo.returncode, typo.stdout) == (1, "")
    assert f"no NodePoolMembership 'gpu-worker' in namespace '{editor.namespace}'; there is gpu-workers" in typo.stderr
    # A wrong word must not end with the code of a plan that wipes.
    assert editor.npmem("explain").returncode == 1
    assert editor.npmem("explain", "gpu-workers", "--loud").returncode == 1
    no_login = Person(tmp_path / "none", editor.namespace)
    assert "no login for the cluster" in no_login.npmem("explain", "m").stderr
    away = tmp_path / "away"
    (port,) = free_ports(1)
    url = cluster.control_plane.url
    away.write_text(editor.kubeconfig.read_text().replace(url, f"https://127.0.0.1:{port}"))
    asked = Person(away, editor.namespace).npmem("explain", "m")
    assert asked.returncode == 1
    assert f"the API server https://127.0.0.1:{port} does not answer" in asked.stderr


def test_a_cluster_without_the_definition_is_named_as_such(control_plane: ControlPlane, namespace: str) -> None:
    """On a control plane of its own: the others need the definition."""
    assert namespace
    with ControlPlane() as bare:
        bare.ensure_namespace("team")
        asked = Person(bare.admin_kubeconfig, "team").npmem("suspend", "m")
    assert asked.returncode == 1
    assert (
        "the cluster does not know nodepoolmemberships.cce.nodepools.dev/v1alpha1: install the operator" in asked.stderr
    )
    assert control_plane.url
