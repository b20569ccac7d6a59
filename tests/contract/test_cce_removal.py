"""The removal of nodes: what is sent, what its answers mean, and that nothing here can destroy a server (promise 5).

Not for: which nodes are removed (`core.planning.removing`).
"""

import ast
import json
from pathlib import Path

import pytest

from nodepool_membership import cce
from nodepool_membership.cce.client import AcceptedJob, CloudClient
from nodepool_membership.cce.errors import CloudError, LockedError, NotFoundError, OutcomeUnknownError
from scripted_cloud import CLUSTER, ENDPOINT, GONE, HTML, INTENT, JOB, PROJECT, always, client

UIDS = ["bbbbbbbb-bbbb-cccc-dddd-eeeeeeeeeeee", "bbbbbbbb-bbbb-cccc-dddd-ffffffffffff"]


async def remove(cloud: CloudClient) -> AcceptedJob:
    return await cloud.remove_nodes(CLUSTER, UIDS, signed_at=INTENT)


async def test_a_removal_is_sent_as_documented_and_signed_with_the_stored_time() -> None:
    wire = always(200, {"kind": "RemoveNodesTask", "status": {"jobID": JOB}}, X_Request_Id="r-1")
    accepted = await remove(client(wire))
    assert (accepted.job_id, accepted.request_id) == (JOB, "r-1")
    (sent,) = wire.seen
    assert sent.method == "PUT"
    assert str(sent.url) == (
        f"{ENDPOINT}/api/v3/projects/{PROJECT}/clusters/{CLUSTER}/nodes/operation/remove"
        "?removeNodeSystemSecurityGroup=false"
    )
    assert json.loads(sent.content) == {
        "apiVersion": "v3",
        "kind": "RemoveNodesTask",
        "spec": {"nodes": [{"uid": uid} for uid in UIDS]},
    }
    assert sent.headers["X-Sdk-Date"] == "20260102T030358Z"


@pytest.mark.parametrize(
    "body", ["", "{}", "null", HTML, '{"jobid": "x"}', '{"status": {}}', '{"status": {"jobID": "../x"}}']
)
async def test_an_accepting_status_without_a_job_id_leaves_the_outcome_unknown(body: str) -> None:
    with pytest.raises(OutcomeUnknownError):
        await remove(client(always(200, body)))


@pytest.mark.parametrize(
    ("status", "document", "kind"),
    [
        (403, {"errorCode": "CCE.01403006"}, LockedError),
        (404, GONE, NotFoundError),
        (429, {"errorCode": "CCE.01429002"}, LockedError),
        (409, {"errorCode": "CCE.01409002"}, OutcomeUnknownError),
        (502, HTML, OutcomeUnknownError),
    ],
)
async def test_a_removal_that_is_not_accepted_is_refused_or_unknown(
    status: int, document: object, kind: type[CloudError]
) -> None:
    wire = always(status, document)
    with pytest.raises(CloudError) as caught:
        await remove(client(wire))
    assert type(caught.value) is kind
    assert len(wire.seen) == 1


def test_no_call_destroys_a_server() -> None:
    """DELETE of a node destroys the server: no code that talks to the cloud knows the method."""
    texts = {
        node.value
        for file in Path(str(cce.__file__)).parent.glob("*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert "PUT" in texts
    assert not {text for text in texts if text.upper() == "DELETE"}
