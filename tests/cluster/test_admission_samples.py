"""The samples of ValidatingAdmissionPolicy do what their comments say.

Not for the policy that is part of the installation (`test_admission`).
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from cce_simulator.config import CLUSTER_ID
from controlplane import ControlPlane
from harness import MembershipSpec, wait_for
from harness.scene import server_ids
from harness.sources import ADMISSION_POLICY_SINCE, ROOT

pytestmark = pytest.mark.since_kubernetes(ADMISSION_POLICY_SINCE)

SAMPLES: Final = ROOT / "deploy" / "samples" / "admission"
TEAM: Final = "team"
FREE: Final = "team-that-may"
OTHER_CLUSTER: Final = "99999999-9999-9999-9999-999999999999"


@pytest.fixture(scope="module")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane() as running:
        running.kubectl("apply", "-k", str(ROOT / "deploy"))
        running.ensure_namespace(TEAM, {"cce.nodepools.dev/cluster-id": CLUSTER_ID.upper()})
        labels = {"cce.nodepools.dev/cluster-id": CLUSTER_ID, "cce.nodepools.dev/allow-removal": "true"}
        running.ensure_namespace(FREE, labels)
        running.ensure_namespace("unlabelled")
        yield running


def refusal(
    control_plane: ControlPlane, servers: list[str], namespace: str = TEAM, *, store: bool = True, **spec: object
) -> str:
    """What an apply of this membership is refused with; empty if it is not."""
    pool = {"cluster_id": str(spec.pop("clusterID", CLUSTER_ID))}
    manifest = MembershipSpec("pool", servers, "https://cce.example", namespace, more=spec, **pool).manifest()
    command = ("apply", "--server-side", "--force-conflicts", "--filename=-")
    dry = () if store else ("--dry-run=server",)
    result = control_plane.kubectl(*command, *dry, input=json.dumps(manifest), check=False)
    return "" if result.returncode == 0 else result.stderr


@pytest.fixture
def sample(control_plane: ControlPlane, request: pytest.FixtureRequest) -> Iterator[Path]:
    """The sample of this name, applied for the test."""
    path = SAMPLES / f"{request.param}.yaml"
    control_plane.kubectl("apply", f"--filename={path}")
    yield path
    control_plane.kubectl("delete", f"--filename={path}")
    control_plane.kubectl("delete", "npmem", "--all", "-A")


def until_refused(control_plane: ControlPlane, says: str, servers: list[str], namespace: str, **spec: object) -> None:
    """The API server follows a new policy after a moment."""

    def refused() -> bool | None:
        return True if says in refusal(control_plane, servers, namespace, store=False, **spec) else None

    wait_for(f"it is refused: {says}", refused, every=0.5)


@pytest.mark.parametrize("sample", ["removal-by-namespace"], indirect=True)
@pytest.mark.usefixtures("sample")
def test_remove_and_rejoin_are_for_labelled_namespaces(control_plane: ControlPlane) -> None:
    ids = server_ids(2)
    says = "only"
    until_refused(control_plane, says, ids, TEAM, removalPolicy="Remove")
    assert "cce.nodepools.dev/allow-removal=true" in refusal(control_plane, ids, deletionPolicy="Remove")
    assert says in refusal(control_plane, ids, driftPolicy="Rejoin")
    assert refusal(control_plane, ids) == ""
    assert says in refusal(control_plane, ids, driftPolicy="Rejoin"), "an edit is looked at, too"
    assert refusal(control_plane, ids, removalPolicy="Retain", deletionPolicy="Retain", driftPolicy="Report") == ""
    allowed = refusal(control_plane, ids, FREE, removalPolicy="Remove", deletionPolicy="Remove", driftPolicy="Rejoin")
    assert allowed == ""


@pytest.mark.parametrize("sample", ["growth"], indirect=True)
def test_one_edit_adds_so_many_servers_at_most(control_plane: ControlPlane, sample: Path) -> None:
    assert 'most: "50"' in sample.read_text()
    says = "one edit adds at most 50 servers"
    until_refused(control_plane, says, server_ids(51), TEAM)
    assert refusal(control_plane, server_ids(50)) == ""
    hundred = [*server_ids(50), *server_ids(50, "more")]
    assert says in refusal(control_plane, [*hundred, *server_ids(1, "one")])
    assert refusal(control_plane, hundred) == ""
    exchanged = [*server_ids(49), *server_ids(51, "others")]
    assert says in refusal(control_plane, exchanged), "as many ids, but 51 of them are new"
    assert refusal(control_plane, server_ids(3)) == ""
    control_plane.kubectl("delete", "npmem", "--all", f"-n={TEAM}")
    raised = json.dumps({"data": {"most": "10000"}})
    growth = ("configmap", "nodepool-membership-growth", "-n=nodepool-membership")
    control_plane.kubectl("patch", *growth, "--type=merge", "-p", raised)
    large = server_ids(10_000, "large")
    wait_for(
        "the number is in force", lambda: True if refusal(control_plane, large, store=False) == "" else None, every=0.5
    )
    # Within what the API server lets an expression cost, whatever the size of the list.
    assert refusal(control_plane, large) == ""
    control_plane.kubectl("delete", "npmem", "--all", f"-n={TEAM}")
    assert refusal(control_plane, large[:1000]) == ""
    assert refusal(control_plane, large[1000:2000]) == ""


@pytest.mark.parametrize("sample", ["clusters"], indirect=True)
@pytest.mark.usefixtures("sample")
def test_a_namespace_names_its_own_cluster_only(control_plane: ControlPlane) -> None:
    ids = server_ids(1)
    until_refused(control_plane, "and it has none", ids, "unlabelled")
    says = refusal(control_plane, ids, clusterID=OTHER_CLUSTER)
    assert f"memberships of namespace {TEAM} may name the cluster of its label" in says
    assert CLUSTER_ID.upper() in says
    assert refusal(control_plane, ids) == ""
    assert refusal(control_plane, ids, FREE, clusterID=CLUSTER_ID.upper()) == ""
