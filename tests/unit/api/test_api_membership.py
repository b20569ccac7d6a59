"""An object read from the API server and its status written back."""

import json
import sys
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import pytest

from nodepool_membership.api.membership import (
    InvalidObjectError,
    Json,
    Membership,
    UnreadableStatus,
    parse_membership,
    parse_page,
    status_json,
)
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import FederationRef, IdentityMethod, IdentityRef, SecretRef, STSRef
from nodepool_membership.api.status import (
    Batch,
    Condition,
    Failure,
    Halt,
    Hold,
    Operation,
    Phase,
    Plan,
    Recovery,
    Search,
    Status,
    Wait,
)

A: Final = "00000001-1111-4222-8333-444444444444"
B: Final = "0000000b-1111-4222-8333-444444444444"
THEN: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

METADATA: Final[dict[str, Json]] = {
    "name": "gpu-workers",
    "namespace": "cce-system",
    "uid": "f0000000-0000-4000-8000-000000000000",
    "resourceVersion": "7",
    "generation": 3,
    "creationTimestamp": "2026-01-02T03:04:05Z",
    "labels": {"ignored": "yes"},
}
SPEC: Final[dict[str, Json]] = {
    "nodePool": {"region": "cn-north-4", "projectID": "AB" * 16, "clusterID": A.upper(), "nodePoolID": B.upper()},
    "credentialsRef": {"name": "cce-credentials"},
    "serverIDs": [A, B.upper(), B],
    "batchSize": 50,
    "maxParallelJobs": 2,
    "maxAttempts": 4,
    "joinTimeoutSeconds": 60,
    "suspend": True,
}

FULL: Final = Status(
    observed_generation=3,
    conditions=(
        Condition("Ready", "False", FailureReason.DISK_PARTITIONED, "why", 3, THEN),
        Condition("Stalled", "True", Reason.SERVERS_FAILED, "why", 3, THEN),
    ),
    desired=5,
    joined=1,
    joining=2,
    failed=1,
    pending=1,
    last_batch=2,
    last_job_id="job-2",
    jobs=(
        Batch(1, Operation.ADD, 1, Phase.PARTLY_FAILED, 2, "job-1", submit_time=THEN, finish_time=THEN, message="m"),
        Batch(2, Operation.ADD, 1, Phase.RUNNING, 1, "job-2", server_ids=(A,), submit_time=THEN),
    ),
    members=(A,),
    failures=(Failure(FailureReason.REFUSED, "no", 2, 1, (B,)),),
    surplus_since=THEN,
    waits=(Wait(Operation.ADD, Reason.LOCKED, "busy", THEN),),
    holds=(Hold((B,), THEN),),
    halt=Halt(Reason.POOL_REFUSES, "no", THEN),
    recovery=Recovery(THEN, THEN),
    search=Search("0123"),
    plan=Plan("p", 1, 1, 0, 0),
    last_handled_reconcile_at="one",
    last_handled_reset_at="two",
)


def raw(status: Json = None, metadata: dict[str, Json] | None = None, spec: dict[str, Json] | None = None) -> bytes:
    document: dict[str, Json] = {"apiVersion": "cce.nodepools.dev/v1alpha1", "kind": "NodePoolMembership"}
    document["metadata"] = {**METADATA, **(metadata or {})}
    document["spec"] = {**SPEC, **(spec or {})}
    if status is not None:
        document["status"] = status
    return json.dumps(document).encode()


def read(data: bytes) -> Membership:
    found = parse_membership(data)
    assert isinstance(found, Membership)
    return found


def test_metadata_and_spec_are_read_and_ids_are_a_set_in_lower_case() -> None:
    data = raw(metadata={"finalizers": ["x/y"], "annotations": {"a": "b"}})
    found = read(data)
    meta, spec = found.metadata, found.spec
    assert (meta.name, meta.namespace, meta.resource_version, meta.generation) == ("gpu-workers", "cce-system", "7", 3)
    assert (meta.finalizers, meta.annotations, meta.creation_timestamp) == (("x/y",), {"a": "b"}, THEN)
    assert (meta.deleting, found.wire_bytes) == (False, len(data))
    assert spec.server_ids == {A, B}
    assert (spec.node_pool.project_id, spec.node_pool.cluster_id, spec.node_pool.node_pool_id) == ("ab" * 16, A, B)
    assert (spec.node_pool.region, spec.node_pool.endpoint) == ("cn-north-4", None)
    assert (spec.batch_size, spec.max_parallel_jobs, spec.max_attempts) == (50, 2, 4)
    assert (spec.join_timeout_seconds, spec.suspend) == (60, True)
    assert (spec.credentials_ref, spec.identity_ref) == (SecretRef("cce-credentials"), None)


@pytest.mark.parametrize(
    ("method", "settings", "read_as"),
    [
        ("Federation", {"federation": {"identityProvider": "cce"}}, (FederationRef("cce"), None)),
        ("STS", {"sts": {"providerURN": "p", "agencyURN": "a"}}, (None, STSRef("p", "a", 3600))),
    ],
)
def test_an_identity_is_read(
    method: str, settings: dict[str, Json], read_as: tuple[FederationRef | None, STSRef | None]
) -> None:
    data = json.loads(raw())
    del data["spec"]["credentialsRef"]
    data["spec"]["identityRef"] = {"serviceAccountName": "a", "audience": "b", "method": method, **settings}
    spec = read(json.dumps(data).encode()).spec
    assert (spec.credentials_ref, spec.identity_ref) == (None, IdentityRef("a", "b", IdentityMethod(method), *read_as))


def test_a_long_list_takes_no_more_memory_than_its_ids_need() -> None:
    """A set that grew id by id may be twice as large, and every worker holds one while it waits for a listing."""
    ids: list[Json] = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(5_000)]
    found = read(raw(spec={"serverIDs": ids})).spec.server_ids
    assert len(found) == len(ids)
    assert sys.getsizeof(found) == sys.getsizeof(frozenset().union(found))


def test_an_object_under_deletion_says_so() -> None:
    assert read(raw(metadata={"deletionTimestamp": "2026-01-02T03:04:05Z"})).metadata.deleting


def test_an_object_without_a_status_has_the_default() -> None:
    assert read(raw()).status == Status()


@pytest.mark.parametrize("status", [Status(), Status(last_batch=0), FULL], ids=["new", "acknowledged", "full"])
def test_a_status_survives_the_way_to_the_api_server_and_back(status: Status) -> None:
    assert read(raw(status_json(status))).status == status


def test_a_status_is_written_in_the_fields_of_the_resource() -> None:
    wire = status_json(FULL)
    assert json.loads(json.dumps(wire)) == wire
    assert (wire["observedGeneration"], wire["lastBatch"], wire["lastJobID"]) == (3, 2, "job-2")
    assert wire["recovery"] == {"since": "2026-01-02T03:04:05Z", "until": "2026-01-02T03:04:05Z"}
    assert (wire["lastHandledReconcileAt"], wire["surplus"]) == ("one", 0)
    assert wire["failures"] == [{"reason": "Refused", "message": "no", "attempts": 2, "count": 1, "serverIDs": [B]}]


def test_what_is_absent_is_left_out() -> None:
    wire = status_json(FULL)
    assert isinstance(wire["jobs"], list)
    finished, running = wire["jobs"]
    assert isinstance(finished, dict)
    assert isinstance(running, dict)
    assert {"serverIDs", "nodeIDs"}.isdisjoint(finished)
    assert running["serverIDs"] == [A]
    assert {"nodeIDs", "finishTime", "message"}.isdisjoint(running)
    assert status_json(Status()) == {"observedGeneration": -1}
    written = status_json(Status(last_batch=0))
    assert (written["lastBatch"], written["desired"], written["members"]) == (0, 0, [])
    assert "lastJobID" not in written


@pytest.mark.parametrize(
    ("status", "field"),
    [
        ({"jobs": [{"batch": "many"}]}, "status.jobs.0.batch"),
        ({"members": "none"}, "status.members"),
        (
            {"jobs": [{"batch": 1, "operation": "Add", "attempt": 1, "phase": "Dreaming", "servers": 1}]},
            "status.jobs.0.phase",
        ),
        ({"surplusSince": "soon"}, "status.surplusSince"),
        ({"failures": [{"reason": "NoSuch"}]}, "status.failures.0.reason"),
    ],
)
def test_a_status_that_cannot_be_understood_names_the_field_and_keeps_the_rest(
    status: dict[str, Json], field: str
) -> None:
    found = parse_membership(raw(status))
    assert isinstance(found, UnreadableStatus)
    assert found.problem.startswith(field)
    assert (found.metadata.name, found.spec.server_ids) == ("gpu-workers", frozenset({A, B}))


@pytest.mark.parametrize(
    ("handled", "known"), [("one", "one"), (7, None), (None, None)], ids=["a text", "no text", "absent"]
)
def test_of_a_status_that_cannot_be_understood_the_answered_reset_is_known(handled: Json, known: str | None) -> None:
    found = parse_membership(raw({"lastBatch": "many", "lastHandledResetAt": handled}))
    assert isinstance(found, UnreadableStatus)
    assert found.handled_reset == known


def test_a_problem_never_shows_a_value() -> None:
    found = parse_membership(raw({"lastBatch": "s3cr3t-value"}))
    assert isinstance(found, UnreadableStatus)
    assert "s3cr3t" not in found.problem


@pytest.mark.parametrize(
    ("data", "field"),
    [
        (raw(spec={"serverIDs": 7}), "spec.serverIDs"),
        (raw(metadata={"generation": "x"}), "metadata.generation"),
        (raw({"members": 1}, spec={"batchSize": "x"}), "spec.batchSize"),
        (b"{}", "metadata"),
    ],
)
def test_an_object_that_does_not_read_is_an_error_with_its_field(data: bytes, field: str) -> None:
    with pytest.raises(InvalidObjectError, match=field):
        parse_membership(data)


@pytest.mark.parametrize("data", [b"", b"<html>", raw()[:-5]])
def test_a_body_that_is_not_json_is_an_error(data: bytes) -> None:
    with pytest.raises(InvalidObjectError, match="JSON"):
        parse_membership(data)


def test_a_page_has_all_that_can_be_read_and_what_the_next_one_is_asked_for_with() -> None:
    whole, odd, broken = raw({"joined": 1}), raw({"joined": "many"}), raw(spec={"serverIDs": 3})
    items = ",".join(item.decode() for item in (whole, odd, broken, whole))
    found, token = parse_page(f'{{"metadata": {{"continue": "more"}}, "items": [{items}]}}'.encode())
    listed = replace(read(whole), wire_bytes=0)
    assert [*found] == [listed, parse_membership(odd), listed]
    assert token == "more"
    assert parse_page(b'{"metadata": {}, "items": []}')[1] == ""
