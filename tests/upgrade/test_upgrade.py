"""This version reads what each release stored, and its definition takes what theirs took."""

import copy
import json
from datetime import UTC, datetime

import pytest

from nodepool_membership import __version__
from nodepool_membership.api.membership import Membership, parse_membership
from upgrade.frozen import CRD, Release, releases, schema, tightened

STORED_BY_THE_SERVER = {
    "uid": "00000000-0000-0000-0000-000000000001",
    "resourceVersion": "1",
    "generation": 1,
    "creationTimestamp": datetime(2026, 1, 2, tzinfo=UTC).isoformat(),
}


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.version)
def test_every_stored_object_is_read(release: Release) -> None:
    objects = release.objects()
    assert objects
    for stored in objects:
        raw = json.dumps({**stored, "metadata": {**STORED_BY_THE_SERVER, **stored["metadata"]}}).encode()
        assert isinstance(parse_membership(raw), Membership), f"{stored['metadata']['name']} is not read"


@pytest.mark.parametrize("release", releases(), ids=lambda release: release.version)
def test_the_definition_refuses_nothing_that_was_stored(release: Release) -> None:
    """Before Kubernetes 1.30 a stored object that breaks a rule can have no status written any more."""
    assert list(tightened(schema(release.crd), schema(CRD))) == []


def test_this_version_is_frozen() -> None:
    """Only until it is released: after that, a change of the definition is one of the next version."""
    (this,) = (release for release in releases() if release.version == __version__)
    assert this.crd.read_text() == CRD.read_text(), "run `make freeze` (`make record` first, where the status changed)"


def test_a_tightened_definition_is_found() -> None:
    old = schema(CRD)
    new = copy.deepcopy(old)
    spec = new["properties"]["spec"]
    spec["properties"]["batchSize"]["maximum"] = 100
    spec["required"] = [*spec["required"], "batchSize"]
    del spec["properties"]["suspend"]
    spec["properties"]["driftPolicy"]["enum"] = ["Report"]
    spec["x-kubernetes-validations"] = [{"rule": "false", "message": "no"}]
    found = {line.partition(":")[0] for line in tightened(old, new)}
    assert found == {"spec", "spec.batchSize", "spec.driftPolicy", "spec.suspend"}
