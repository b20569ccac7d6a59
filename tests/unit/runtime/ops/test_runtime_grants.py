"""The file of `--grants`: which namespaces may name which pools, and what is said of one that cannot be used."""

from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from nodepool_membership.api.reasons import Reason
from nodepool_membership.runtime.cloud.error_mapping import TroubleError
from nodepool_membership.runtime.ops.grants import ANY, Grants, GrantsFileError, read_grants_file
from unit.core_builders import a_spec, an_object, server
from unit.runtime.cloud.test_runtime_clouds import Site, site

__all__ = ["site"]

MEMBERSHIP: Final = an_object(a_spec(server(1)))
NAMESPACE: Final = MEMBERSHIP.metadata.namespace
POOL: Final = MEMBERSHIP.spec.node_pool
OTHER: Final = "99999999-2222-3333-4444-555555555555"


def grants(tmp_path: Path, *entries: str) -> Grants:
    file = tmp_path / "grants.yaml"
    file.write_text("\n".join(f"- {{{entry}}}" for entry in entries) or "[]")
    return read_grants_file(file)


def granted(tmp_path: Path, *entries: str, namespace: str = NAMESPACE) -> bool:
    return grants(tmp_path, *entries).why_not(namespace, POOL) is None


def test_without_a_file_any_namespace_may_name_any_pool() -> None:
    assert ANY.why_not(NAMESPACE, POOL) is None


def test_what_is_listed_may_be_named_and_nothing_else(tmp_path: Path) -> None:
    project = f"namespace: {NAMESPACE}, projectID: '{POOL.project_id}'"
    cluster, pool = f"clusterIDs: [{POOL.cluster_id}]", f"nodePoolIDs: [{POOL.node_pool_id}]"
    for entry in (project, f"{project}, {cluster}", f"{project}, {pool}", f"{project}, {cluster}, {pool}"):
        assert granted(tmp_path, entry)
        assert not granted(tmp_path, entry, namespace="other")
    assert not granted(tmp_path)
    assert not granted(tmp_path, f"namespace: {NAMESPACE}, projectID: '{'f' * 32}'")
    assert not granted(tmp_path, f"{project}, clusterIDs: [{OTHER}]")
    assert not granted(tmp_path, f"{project}, {cluster}, nodePoolIDs: [{OTHER}]")
    assert granted(tmp_path, f"{project}, clusterIDs: [{OTHER}]", f"{project}, {cluster}")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("namespace: a", "is not a list"),
        ("[", "is not YAML"),
        ("- a", "entry 1 is not a mapping"),
        ("- {namespace: a, projectID: '%s', clusterIDs: []}" % ("0" * 32), "leave it out for all"),
        ("- {namespace: a, projectID: %s}" % ("1" * 32), "write it in quotes"),
        ("- {namespace: a}", "entry 1: projectID None"),
        ("- {namespace: A_B, projectID: '%s'}" % ("0" * 32), "entry 1: namespace 'A_B'"),
        ("- {namespace: a, projectID: short}", "entry 1: projectID 'short'"),
        ("- {namespace: a, projectID: '%s', clusterID: x}" % ("0" * 32), "entry 1: 'clusterID' is not known"),
        ("- {namespace: a, projectID: '%s', clusterIDs: [x]}" % ("0" * 32), "entry 1: clusterIDs 'x'"),
        ("x" * (1 << 21), "more than 1 MiB"),
    ],
)
def test_a_file_that_cannot_be_used_names_entry_field_and_remedy(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "grants.yaml"
    file.write_text(text)
    with pytest.raises(GrantsFileError, match="write a YAML list of mappings: namespace, projectID") as caught:
        read_grants_file(file)
    assert says in str(caught.value)
    assert str(file) in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(GrantsFileError, match="cannot be read: No such file"):
        read_grants_file(tmp_path / "missing.yaml")


async def test_what_is_not_granted_is_refused_before_anything_is_read(site: Site) -> None:
    site.clouds._grants = Grants(())
    with pytest.raises(TroubleError) as caught:
        await site.clouds.access(MEMBERSHIP)
    trouble = caught.value.trouble
    assert trouble.reason is Reason.NOT_GRANTED
    for said in (NAMESPACE, POOL.project_id, POOL.cluster_id, POOL.node_pool_id, "--grants"):
        assert said in trouble.message
    assert (site.secrets.asked, site.connected) == ([], [])
    other = replace(
        MEMBERSHIP, spec=replace(MEMBERSHIP.spec, node_pool=replace(POOL, region=None, endpoint="nonsense"))
    )
    with pytest.raises(TroubleError) as caught:
        await site.clouds.access(other)
    assert caught.value.trouble.reason is Reason.NOT_GRANTED
