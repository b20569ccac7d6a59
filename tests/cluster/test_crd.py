"""What a real API server makes of the CRD: what it accepts, fills in, refuses and in which words, stores, prints."""

import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Final
from uuid import UUID

import pytest

from controlplane import ControlPlane
from harness.typist import Typist
from nodepool_membership.api.membership import Membership, parse_membership, status_json
from nodepool_membership.api.names import API_VERSION, KIND, MAX_BATCH, MAX_OBJECT_BYTES, MAX_SERVERS
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.api.spec import RemovalPolicy
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

pytestmark = pytest.mark.usefixtures("crd")

POOL: Final = {
    "region": "cn-north-4",
    "projectID": "0123456789abcdef0123456789abcdef",
    "clusterID": "11111111-2222-3333-4444-555555555555",
    "nodePoolID": "66666666-7777-8888-9999-000000000000",
}
ABSENT: Final = None
NOW: Final = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def server_ids(count: int) -> list[str]:
    """Distinct ids in ascending order."""
    return [str(UUID(int=(0xABC << 100) + number)) for number in range(count)]


IDS: Final = server_ids(3)


def present(fields: dict[str, object]) -> dict[str, object]:
    """These fields without those that are ABSENT."""
    return {name: value for name, value in fields.items() if value is not ABSENT}


def pool(**changes: object) -> dict[str, object]:
    """A good spec.nodePool, changed."""
    return present({**POOL, **changes})


def manifest(name: str, **changes: object) -> str:
    """A good membership whose spec is changed."""
    spec = {"nodePool": pool(), "credentialsRef": {"name": "cce-credentials"}, "serverIDs": IDS, **changes}
    return json.dumps({"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": name}, "spec": present(spec)})


class Client(Typist):
    """What a user types, in one namespace."""

    def create(self, name: str, **changes: object) -> None:
        self.kubectl("create", "--filename=-", stdin=manifest(name, **changes))

    def refused(self, **changes: object) -> str:
        return self.refusal("create", "--filename=-", stdin=manifest("bad", **changes))

    def stored(self, name: str) -> bytes:
        """The object as the API server sends it, which is how it stores it."""
        path = f"/apis/{API_VERSION}/namespaces/{self._namespace}/nodepoolmemberships/{name}"
        return self.kubectl("get", "--raw", path).encode()

    def read(self, name: str) -> Membership:
        membership = parse_membership(self.stored(name))
        assert isinstance(membership, Membership)
        return membership

    def write_status(self, name: str, status: dict[str, object], *options: str) -> None:
        self.kubectl(*self._replace_status(*options), stdin=self._with_status(name, status))

    def status_refused(self, name: str, status: dict[str, object], *options: str) -> str:
        return self.refusal(*self._replace_status(*options), stdin=self._with_status(name, status))

    def _replace_status(self, *options: str) -> Sequence[str]:
        return ("replace", "--subresource=status", "--filename=-", *options)

    def _with_status(self, name: str, status: dict[str, object]) -> str:
        return json.dumps({**json.loads(self.stored(name)), "status": status})


@pytest.fixture
def client(control_plane: ControlPlane, namespace: str) -> Client:
    return Client(control_plane, namespace)


def wire(status: Status) -> dict[str, object]:
    """A status as the operator writes it."""
    return dict(status_json(status))


def running(job_id: str | None) -> Status:
    """A status with one batch under way."""
    batch = Batch(7, Operation.ADD, 1, Phase.RUNNING, len(IDS), job_id=job_id, server_ids=tuple(IDS), submit_time=NOW)
    ready = Condition("Ready", "False", Reason.PROGRESSING, "1 batch under way", 1, NOW)
    return Status(1, conditions=(ready,), desired=3, joining=3, last_batch=7, last_job_id=job_id, jobs=(batch,))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="as it is"),
        pytest.param({"serverIDs": []}, id="empty list"),
        pytest.param({"serverIDs": [*IDS, *IDS]}, id="duplicates"),
        pytest.param({"serverIDs": [IDS[0].upper(), IDS[1]]}, id="upper case"),
        pytest.param({"nodePool": pool(region=ABSENT, endpoint="https://cce.example.com")}, id="endpoint only"),
        pytest.param({"nodePool": pool(endpoint="http://127.0.0.1:8443")}, id="endpoint with a port"),
        pytest.param({"nodePool": pool(endpoint="https://[2001:db8::1]:8443")}, id="endpoint by IPv6 address"),
        pytest.param({"nodePool": pool(region="eu-west-101")}, id="another region"),
        pytest.param({"credentialsRef": {"name": "a.b-c.9"}}, id="dots in the Secret's name"),
        pytest.param({"batchSize": 1, "maxParallelJobs": 10, "maxAttempts": 10, "joinTimeoutSeconds": 1}, id="bounds"),
        pytest.param({"joinTimeoutSeconds": 86400, "suspend": True}, id="upper bound"),
    ],
)
def test_good_resource_is_accepted(client: Client, changes: dict[str, object]) -> None:
    client.create("good", **changes)
    assert client.read("good").metadata.name == "good"


UUID_SHAPE: Final = "should match '^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"serverIDs": ["nope"]}, ["spec.serverIDs[0]", '"nope"', UUID_SHAPE]),
        ({"serverIDs": [IDS[0], IDS[1].replace("-", "")]}, ["spec.serverIDs[1]", UUID_SHAPE]),
        ({"serverIDs": [f"{IDS[0]}\n"]}, ["spec.serverIDs[0]", "Too long", "36"]),
        ({"serverIDs": [f"{IDS[0]}0"]}, ["spec.serverIDs[0]", "Too long", "36"]),
        ({"serverIDs": [7]}, ["spec.serverIDs[0]", "must be of type string"]),
        ({"serverIDs": ABSENT}, ["spec.serverIDs", "Required value"]),
        ({"nodePool": ABSENT}, ["spec.nodePool", "Required value"]),
        ({"nodePool": pool(region=ABSENT)}, ["spec.nodePool", "needs region or endpoint", "cn-north-4"]),
        ({"nodePool": pool(region="CN North")}, ["spec.nodePool.region", "region's id, such as cn-north-4"]),
        ({"nodePool": pool(region="r" * 64)}, ["spec.nodePool.region", "Too long", "63"]),
        ({"nodePool": pool(endpoint="cce.example.com")}, ["spec.nodePool.endpoint", "must be https://host"]),
        ({"nodePool": pool(endpoint="https://cce.example.com/")}, ["spec.nodePool.endpoint", "a slash at the end"]),
        ({"nodePool": pool(endpoint="https://user@host")}, ["spec.nodePool.endpoint", "must be https://host"]),
        ({"nodePool": pool(endpoint="ftp://cce.example.com")}, ["spec.nodePool.endpoint", "must be https://host"]),
        ({"nodePool": pool(endpoint="https://" + "h" * 263)}, ["spec.nodePool.endpoint", "Too long", "270"]),
        ({"nodePool": pool(projectID=ABSENT)}, ["spec.nodePool.projectID", "Required value"]),
        ({"nodePool": pool(projectID="cn-north-4")}, ["spec.nodePool.projectID", "32 lower-case hexadecimal digits"]),
        ({"nodePool": pool(projectID="A" * 32)}, ["spec.nodePool.projectID", "32 lower-case hexadecimal digits"]),
        ({"nodePool": pool(projectID=IDS[0])}, ["spec.nodePool.projectID", "Too long", "32"]),
        ({"nodePool": pool(clusterID="my-cluster")}, ["spec.nodePool.clusterID", "a UUID in lower case; its name"]),
        ({"nodePool": pool(clusterID=IDS[0].upper())}, ["spec.nodePool.clusterID", "a UUID in lower case"]),
        ({"nodePool": pool(nodePoolID="DefaultPool")}, ["spec.nodePool.nodePoolID", "a UUID in lower case; its name"]),
        ({"credentialsRef": ABSENT}, ["credentialsRef or identityRef must be set, and not both"]),
        ({"credentialsRef": {}}, ["spec.credentialsRef.name", "Required value"]),
        ({"credentialsRef": {"name": ""}}, ["spec.credentialsRef.name", "the name of a Secret in the same namespace"]),
        ({"credentialsRef": {"name": "My Secret"}}, ["spec.credentialsRef.name", "lower-case letters"]),
        ({"credentialsRef": {"name": "s" * 254}}, ["spec.credentialsRef.name", "Too long", "253"]),
        ({"batchSize": 0}, ["spec.batchSize", "greater than or equal to 1"]),
        ({"batchSize": MAX_BATCH + 1}, ["spec.batchSize", "less than or equal to 200"]),
        ({"maxParallelJobs": 0}, ["spec.maxParallelJobs", "greater than or equal to 1"]),
        ({"maxParallelJobs": 11}, ["spec.maxParallelJobs", "less than or equal to 10"]),
        ({"maxAttempts": 0}, ["spec.maxAttempts", "greater than or equal to 1"]),
        ({"maxAttempts": 11}, ["spec.maxAttempts", "less than or equal to 10"]),
        ({"joinTimeoutSeconds": 0}, ["spec.joinTimeoutSeconds", "greater than or equal to 1"]),
        ({"joinTimeoutSeconds": 86401}, ["spec.joinTimeoutSeconds", "less than or equal to 86400"]),
        ({"joinTimeoutSeconds": "1h"}, ["spec.joinTimeoutSeconds", "must be of type integer"]),
        ({"suspend": "yes"}, ["spec.suspend", "must be of type boolean"]),
        ({"serverIds": IDS}, ['unknown field "spec.serverIds"']),
    ],
)
def test_bad_resource_is_refused_with_field_and_remedy(
    client: Client, changes: dict[str, object], words: list[str]
) -> None:
    complaint = client.refused(**changes)
    assert [word for word in words if word not in complaint] == [], complaint


def test_more_servers_than_fit_are_refused(client: Client) -> None:
    complaint = client.refused(serverIDs=server_ids(MAX_SERVERS + 1))
    assert "spec.serverIDs: Too many: 10001: must have at most 10000 items" in complaint


@pytest.mark.parametrize(
    "change",
    [
        {"nodePoolID": "66666666-7777-8888-9999-000000000001"},
        {"region": "cn-north-9"},
        {"region": None},
        {"endpoint": "https://cce.example.com"},
    ],
    ids=["another pool", "another region", "no region", "an endpoint"],
)
def test_the_pool_cannot_be_changed(client: Client, change: dict[str, str | None]) -> None:
    client.create("here", nodePool=pool(endpoint="https://cce.cn-north-4.myhuaweicloud.com"))
    patch = json.dumps({"spec": {"nodePool": change}})
    complaint = client.refusal("patch", "npmem", "here", "--type=merge", f"--patch={patch}")
    assert "spec.nodePool: Invalid value" in complaint
    assert "nodePool is immutable: keep it as it was, and create another NodePoolMembership" in complaint


def test_everything_else_in_spec_can_be_changed(client: Client) -> None:
    client.create("here")
    spec = {"credentialsRef": {"name": "other"}, "serverIDs": IDS[:1], "batchSize": 5, "suspend": True}
    client.kubectl("patch", "npmem", "here", "--type=merge", f"--patch={json.dumps({'spec': spec})}")
    assert client.read("here").spec.server_ids == frozenset(IDS[:1])


def test_defaults_are_filled_in(client: Client) -> None:
    client.create("here")
    stored = json.loads(client.stored("here"))
    defaults = {k: v for k, v in stored["spec"].items() if k not in {"nodePool", "credentialsRef", "serverIDs"}}
    assert defaults == {
        "batchSize": 200,
        "maxParallelJobs": 1,
        "maxAttempts": 3,
        "joinTimeoutSeconds": 3600,
        "removalPolicy": "Retain",
        "deletionPolicy": "Retain",
        "driftPolicy": "Report",
        "suspend": False,
    } | {"approval": "Automatic", "preflight": {"mode": "Report"}, "rollout": {"canary": 0}}
    (ready,) = stored["status"].pop("conditions")
    assert stored["status"] == {"observedGeneration": -1} == {"observedGeneration": ready["observedGeneration"]}
    assert (ready["type"], ready["status"], ready["reason"]) == ("Ready", "Unknown", "Pending")


def test_kubectl_wait_does_not_take_a_new_resource_for_ready(client: Client) -> None:
    client.create("here")
    complaint = client.refusal("wait", "--for=condition=Ready", "npmem/here", "--timeout=1s")
    assert "timed out" in complaint


def test_what_the_operator_writes_is_stored_as_it_is(client: Client) -> None:
    client.create("here")
    removal = Batch(
        *(6, Operation.REMOVE, 1, Phase.VERIFYING, 1, "job-6", (IDS[2],), (IDS[2],), NOW, NOW, NOW),
        *(1, 1, 1, 1, True, True, True, "settling"),
    )
    failure = Failure(FailureReason.DISK_PARTITIONED, "the disk has partitions: wipe it", 3, 1, (IDS[1],), NOW, 2)
    written = replace(
        running("2ec9b78d-9368-46f3-8f29-d1a95622a568"),
        failed=1,
        pending=1,
        joined=1,
        surplus=1,
        surplus_since=NOW,
        observed_removal_policy=RemovalPolicy.REMOVE,
        holds=(Hold((IDS[1],), NOW, mass=True),),
        halt=Halt(Reason.TOO_MANY_FAILURES, "3 of 3", NOW),
        waits=(Wait(Operation.ADD, Reason.LOCKED, "busy", NOW),),
        recovery=Recovery(NOW, NOW),
        search=Search("0123456789abcdef", 1, 1, accepted=True, named=True, server_ids=(IDS[1],)),
        plan=Plan("p", 1, 1, 1, 1),
        members=(IDS[0],),
        failures=(failure,),
        last_handled_reconcile_at="2026-01-02T03:04:05Z",
        last_handled_reset_at="2026-01-02T03:04:05Z",
    )
    written = replace(written, jobs=(removal, *written.jobs))
    client.write_status("here", wire(written), "--validate=strict")
    assert client.read("here").status == written
    assert not [name for name, value in wire(written).items() if value in (None, [], "")]


def test_a_job_id_is_written_once(client: Client) -> None:
    client.create("here")
    client.write_status("here", wire(running(None)))
    client.write_status("here", wire(running("job-1")))
    for other in ("job-2", None):
        complaint = client.status_refused("here", wire(running(other)))
        assert "status.jobs[0]" in complaint
        assert "jobID is written once" in complaint
    client.write_status("here", {**wire(running("job-1")), "jobs": []})


def test_two_batches_cannot_have_one_number(client: Client) -> None:
    client.create("here")
    status = running("job-1")
    complaint = client.status_refused("here", wire(replace(status, jobs=(*status.jobs, *status.jobs))))
    assert "status.jobs[1]: Duplicate value" in complaint


def test_a_field_that_an_older_crd_does_not_know_is_refused_if_asked_strictly(client: Client) -> None:
    """Else it is dropped, and the answer is 200: an intent would be lost."""
    client.create("here")
    status = wire(running("job-1"))
    newer = {**status, "batches": [1]}
    assert 'unknown field "status.batches"' in client.status_refused("here", newer, "--validate=strict")
    client.write_status("here", newer, "--validate=ignore")
    assert json.loads(client.stored("here"))["status"] == status


def test_status_holds_phases_and_operations_of_a_newer_operator(client: Client) -> None:
    client.create("here")
    status = json.loads(json.dumps(wire(running("job-1"))))
    status["jobs"][0] |= {"phase": "Draining", "operation": "Replace"}
    client.write_status("here", status, "--validate=strict")
    assert json.loads(client.stored("here"))["status"] == status


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        (
            "conditions",
            [{"type": "Ready", "status": "Maybe", "reason": "A", "message": ""}],
            "status.conditions[0].status",
        ),
        ("failures", [{"reason": "Other", "message": "m" * 1025}], "status.failures[0].message: Too long"),
        ("failures", [{"reason": "Other"}] * 51, "status.failures: Too many: 51"),
        ("lastHandledReconcileAt", "t" * 257, "status.lastHandledReconcileAt: Too long"),
        ("desired", -1, "status.desired"),
        ("members", ["m" * 37], "status.members[0]: Too long"),
    ],
)
def test_status_is_bounded(client: Client, field: str, value: object, words: str) -> None:
    client.create("here")
    # Older versions of Kubernetes leave the first part of the path out.
    assert words.removeprefix("status.") in client.status_refused("here", {**wire(running("job-1")), field: value})


def test_get_shows_what_is_wanted_and_how_far_it_is(client: Client) -> None:
    client.create("gpu-workers")
    header = client.kubectl("get", "npmem").splitlines()[0].split()
    assert " ".join(header) == "NAME READY REASON JOINED JOINING PENDING FAILED DESIRED NEXT AGE"
    for planned, told in ((None, []), (datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC), ["2030-01-02T03:04:05Z"])):
        state = replace(running("job-1"), joined=400, joining=30, pending=15, failed=5, desired=450, next_time=planned)
        client.write_status("gpu-workers", wire(state))
        row = client.kubectl("get", "npmem", "--no-headers").split()
        assert row[:-1] == ["gpu-workers", "False", "Progressing", "400", "30", "15", "5", "450", *told]


def test_get_wide_shows_message_job_pool_and_cluster(client: Client) -> None:
    client.create("gpu-workers")
    client.write_status("gpu-workers", wire(running("job-1")))
    header, row = client.kubectl("get", "npmem", "--output=wide").splitlines()
    starts = [*map(header.index, ["AGE", "MESSAGE", "LAST JOB", "POOL", "CLUSTER"]), None]
    cells = [row[start:end].strip() for start, end in pairwise(starts)]
    assert cells[1:] == ["1 batch under way", "job-1", POOL["nodePoolID"], POOL["clusterID"]]


def test_kubectl_finds_it_by_short_name_and_category_and_explains_its_fields(client: Client) -> None:
    client.create("here")
    for name in ("npmem", "nodepoolmembership", "cce"):
        assert "here" in client.kubectl("get", name, "--output=name")
    assert "reinstalls" in client.kubectl("explain", "npmem.spec.serverIDs")


def test_ten_thousand_servers_fit_and_are_applied_on_the_server(client: Client, tmp_path: Path) -> None:
    """Promised: less than 1.2 MB with all of them joined, and next to no bookkeeping of field owners."""
    everyone = server_ids(MAX_SERVERS)
    file = tmp_path / "large.json"
    file.write_text(manifest("large", serverIDs=everyone))
    client.kubectl("apply", "--server-side", f"--filename={file}")
    status = replace(running("job-1"), desired=MAX_SERVERS, joined=MAX_SERVERS, joining=0, members=tuple(everyone))
    batches = tuple(replace(running(secrets.token_hex(18)).jobs[0], batch=n, server_ids=()) for n in range(11))
    client.write_status("large", wire(replace(status, jobs=batches)), "--validate=strict")
    client.kubectl("apply", "--server-side", f"--filename={file}")
    assert len(client.read("large").status.members) == MAX_SERVERS
    assert len(stored := client.stored("large")) < MAX_OBJECT_BYTES
    assert len(json.dumps(json.loads(stored)["metadata"]["managedFields"])) < 8_000


def test_client_side_apply_ends_where_the_description_says(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "large.json"
    file.write_text(manifest("large", serverIDs=server_ids(6_600)))
    client.kubectl("apply", f"--filename={file}")
    file.write_text(manifest("large", serverIDs=server_ids(6_800)))
    assert "metadata.annotations: Too long" in client.refusal("apply", f"--filename={file}")
    client.kubectl("apply", "--server-side", "--force-conflicts", f"--filename={file}")
