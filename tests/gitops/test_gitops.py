"""kstatus, Flux and Argo CD understand every state that the operator wrote; what is shipped for them is safe."""

import re
from copy import deepcopy
from typing import Any, Final

import pytest
import yaml

from gitops.fixtures import ACTIONS, chosen, states
from gitops.judges import ARGO, ROOT, Object, act, actions, complaints, expected, health
from nodepool_membership.api.names import (
    API_VERSION,
    APPROVED_PLAN_ANNOTATION,
    GROUP,
    KIND,
    RECONCILE_ANNOTATIONS,
    RESET_ANNOTATIONS,
)
from nodepool_membership.api.reasons import FailureReason, Reason
from upgrade.frozen import CRD, schema

pytestmark = pytest.mark.gitops

GITOPS: Final = ROOT / "deploy" / "gitops"


def _documents(name: str) -> list[Any]:
    return [d for d in yaml.safe_load_all((GITOPS / name).read_text()) if d is not None]


def test_every_recorded_state_is_understood() -> None:
    assert complaints(states()) == []


def test_the_recorded_states_are_of_every_kind() -> None:
    kinds = {expected(state) for state in states()}
    assert {argo for _, argo in kinds} == {"Progressing", "Healthy", "Degraded", "Suspended"}
    assert {kstatus for kstatus, _ in kinds} == {"InProgress", "Current", "Failed", "Terminating"}


def test_the_recorded_reasons_are_the_codes() -> None:
    known = {str(reason) for reason in (*Reason, *FailureReason)}
    found = {str(c["reason"]) for state in states() for c in state["status"]["conditions"]}
    assert found - known == set(), "tests/gitops/states.json has reasons that the code has not: `make record`"


@pytest.mark.parametrize(
    ("kind", "status", "complaint"),
    [("Reconciling", "True", "kstatus says InProgress"), ("Stalled", "True", "Flux: ")],
)
def test_a_wrong_state_is_found(kind: str, status: str, complaint: str) -> None:
    wrong = chosen()["healthy"]
    wrong["status"]["conditions"].append({**wrong["status"]["conditions"][0], "type": kind, "status": status})
    assert any(complaint in found for found in complaints([wrong]))


def test_an_older_generation_is_never_healthy() -> None:
    stale = chosen()["healthy"]
    stale["metadata"]["generation"] += 1
    assert health(stale) == {"status": "Progressing", "message": "Waiting for the operator"}
    del stale["status"]
    assert health(stale)["status"] == "Progressing"


@pytest.mark.parametrize("name", chosen())
def test_the_fixtures_hold_for_argo_cds_own_tests(name: str) -> None:
    """As its repository runs them: health by `health_test.yaml`, actions by `actions/action_test.yaml`."""
    cases = yaml.safe_load((ARGO / "health_test.yaml").read_text())["tests"]
    (case,) = (c for c in cases if c["inputPath"] == f"testdata/{name}.yaml")
    assert health(yaml.safe_load((ARGO / case["inputPath"]).read_text())) == case["healthStatus"]


def _without_times(obj: Object) -> Object:
    made = deepcopy(obj)
    for key, value in made["metadata"].get("annotations", {}).items():
        if str(value).startswith("By Argo CD at: "):
            made["metadata"]["annotations"][key] = "now"
    return made


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_does_what_its_fixture_says(action: str) -> None:
    tests = yaml.safe_load((ARGO / "actions" / "action_test.yaml").read_text())["actionTests"]
    (case,) = (c for c in tests if c["action"] == action)
    before, after = (
        yaml.safe_load((ARGO / "actions" / case[p]).read_text()) for p in ("inputPath", "expectedOutputPath")
    )
    changed = act(action, before)
    # Lua knows no difference between an empty list and an empty table, and has floats only.
    assert _without_times(changed)["metadata"].get("annotations") == _without_times(after)["metadata"].get(
        "annotations"
    )
    assert changed["spec"].get("suspend") == after["spec"].get("suspend")
    assert before != after


def test_the_actions_set_the_annotations_that_the_operator_reads() -> None:
    healthy = chosen()["healthy"]
    assert RECONCILE_ANNOTATIONS[0] in act("reconcile", healthy)["metadata"]["annotations"]
    set_by_reset = act("reset", healthy)["metadata"]["annotations"]
    assert set_by_reset[RECONCILE_ANNOTATIONS[0]] == set_by_reset[RESET_ANNOTATIONS[0]]


def test_no_action_that_changes_nothing_is_offered() -> None:
    picked = chosen()
    always = {"reconcile": True, "reset": False, "approve": False}
    assert actions(picked["healthy"]) == {**always, "suspend": True, "resume": False}
    assert actions(picked["suspended"]) == {**always, "suspend": False, "resume": True}
    assert actions(picked["degraded"])["reset"]
    assert actions(picked["waiting"])["approve"]


def test_only_the_plan_that_waits_now_is_approved() -> None:
    waiting = chosen()["waiting"]
    approved = act("approve", waiting)
    assert approved["metadata"]["annotations"][APPROVED_PLAN_ANNOTATION] == waiting["status"]["plan"]["id"]
    assert not actions(approved)["approve"]
    waiting["metadata"]["generation"] += 1
    assert not actions(waiting)["approve"]
    assert not act("approve", chosen()["healthy"])["metadata"].get("annotations")


def _scripts() -> dict[str, str]:
    return {str(path.relative_to(ARGO)): path.read_text() for path in sorted(ARGO.rglob("*.lua"))}


@pytest.mark.parametrize(("name", "text"), _scripts().items(), ids=_scripts())
def test_the_scripts_name_only_fields_and_reasons_that_exist(name: str, text: str) -> None:
    properties = schema(CRD)["properties"]
    fields = re.findall(r"obj\.(spec|status)\.(\w+)", text)
    assert [f"{top}.{field}" for top, field in fields if field not in properties[top]["properties"]] == [], name
    reasons = re.findall(r'reason == "(\w+)"', text)
    assert [reason for reason in reasons if reason not in set(Reason)] == [], name
    types = re.findall(r'(?:conditions\["|type == ")(\w+)"', text)
    assert set(types) <= {"Ready", "Reconciling", "Stalled"}, name


def test_the_folder_is_named_as_argo_cd_looks_for_it() -> None:
    assert ARGO.parts[-3:] == ("resource_customizations", GROUP, KIND)


def test_argo_cd_applies_on_the_servers_side_and_deletes_nothing_unconfirmed() -> None:
    operator, team = _documents("argocd/application.yaml")
    for application in (operator, team):
        assert "ServerSideApply=true" in application["spec"]["syncPolicy"]["syncOptions"]
    assert operator["spec"]["syncPolicy"]["automated"]["prune"] is False
    assert {"Prune=confirm", "Delete=confirm"} <= set(team["spec"]["syncPolicy"]["syncOptions"])
    (membership,) = _documents("argocd/membership.yaml")
    assert membership["apiVersion"] == API_VERSION
    annotations = membership["metadata"]["annotations"]
    assert annotations["argocd.argoproj.io/sync-options"] == "Prune=confirm,Delete=confirm"


def test_flux_waits_for_the_operator_and_forces_nothing() -> None:
    operator, team = _documents("flux/kustomizations.yaml")
    assert operator["spec"]["wait"] is True
    assert operator["spec"]["prune"] is False
    assert team["spec"]["dependsOn"] == [{"name": operator["metadata"]["name"]}]
    (check,) = team["spec"]["healthChecks"]
    assert (check["apiVersion"], check["kind"]) == (API_VERSION, KIND)
    for kustomization in (operator, team):
        assert "force" not in kustomization["spec"]
        assert "timeout" in kustomization["spec"]
