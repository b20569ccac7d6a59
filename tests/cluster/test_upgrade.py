"""An upgrade on a real API server, in the order of docs/upgrade.md: what an older release stored, under this version's
definition. And in the other order: this version's operator, under an older definition.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from controlplane import ControlPlane
from harness import Cluster, MembershipSpec, SimulatorProcess, wait_for
from harness.cluster import is_ready
from harness.kustomize import QUICK, TEAM, render
from harness.scene import server_ids
from upgrade.frozen import CRD, Release, releases


@pytest.fixture
def empty() -> Iterator[ControlPlane]:
    """A control plane of the test's own: the others have this version's definition already."""
    with ControlPlane() as running:
        running.ensure_namespace("team")
        yield running


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.version)
def test_stored_objects_outlast_an_upgrade(empty: ControlPlane, release: Release) -> None:
    name = empty.install_crd(release.crd)
    for stored in release.objects():
        empty.kubectl("create", "-f", "-", "--validate=strict", input=json.dumps(stored))
        which = str(stored["metadata"]["name"])
        there = json.loads(empty.kubectl("get", name, which, "-n", "team", "-o", "json").stdout)
        whole = json.dumps({**there, "status": stored["status"]})
        empty.kubectl("replace", "--subresource=status", "-f", "-", input=whole)

    def all_of_them() -> list[dict[str, object]]:
        answer = empty.kubectl("get", name, "-n", "team", "-o", "json")
        items: list[dict[str, object]] = json.loads(answer.stdout)["items"]
        return [{part: item[part] for part in ("spec", "status")} for item in items]

    before = all_of_them()
    assert len(before) == len(release.objects())
    empty.install_crd(CRD)
    assert all_of_them() == before
    # A write of the status is what a rule that got tighter would refuse.
    patch = json.dumps({"status": {"lastHandledReconcileAt": "after the upgrade"}})
    for stored in release.objects():
        which = str(stored["metadata"]["name"])
        empty.kubectl("patch", name, which, "-n", "team", "--subresource=status", "--type=merge", "-p", patch)


@pytest.mark.parametrize(("field", "calls"), [("submitTime", 0), ("calledIDs", 1)], ids=["of an intent", "of a record"])
def test_under_an_older_definition_nothing_more_is_called_and_it_is_said_until_the_definition_comes(
    own_plane: ControlPlane,
    own_cluster: Cluster,
    cloud: SimulatorProcess,
    sources: Path,
    tmp_path: Path,
    field: str,
    calls: int,
) -> None:
    """An intent that cannot be stored is not called. A record that cannot be leaves its intent, which is looked for."""
    rendered = render(own_plane, sources / "deploy")
    this = rendered.only("CustomResourceDefinition")
    older = copy.deepcopy(this)
    (version,) = older["spec"]["versions"]
    job = version["schema"]["openAPIV3Schema"]["properties"]["status"]["properties"]["jobs"]["items"]
    del job["properties"][field]
    rendered.objects = [older if found is this else found for found in rendered]
    rendered.apply(own_plane)
    own_cluster.create_secret(TEAM, QUICK)
    with rendered.operator(own_plane, tmp_path, [cloud.url]) as operator:
        operator.wait_ready()
        own_cluster.create(MembershipSpec("pool", server_ids(2), cloud.url, TEAM))

        def refused() -> bool | None:
            told = operator.get("/metrics").text
            (line,) = (one for one in told.splitlines() if 'kind="status",outcome="Rejected"' in one)
            return float(line.rpartition(" ")[2]) >= 3 or None

        wait_for("the write is refused, and again", refused)
        assert field in operator.output()
        assert len(cloud.entries("addNodes")) == calls
        own_plane.apply(json.dumps(this))
        # It may have waited for a minute between two attempts by then.
        own_cluster.wait(TEAM, "pool", "Ready", is_ready, seconds=150)
    assert len(cloud.entries("addNodes")) == 1
    assert cloud.get("summary")["double_adds"] == 0
