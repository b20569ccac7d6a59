"""An upgrade on a real API server: objects that an older release stored, under this version's definition."""

import json
from collections.abc import Iterator

import pytest

from controlplane import ControlPlane
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
