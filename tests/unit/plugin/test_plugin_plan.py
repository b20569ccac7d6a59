"""How a plan is printed, what approving writes, and what a shell is told may follow.

Not for: what would be done (`test_core_preview`), or looking at the cloud for it (`cluster.test_plan_comes_true`).
"""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import APPROVED_PLAN_ANNOTATION
from nodepool_membership.api.reasons import FailureReason, FindingReason, Reason
from nodepool_membership.api.status import Finding, Plan
from nodepool_membership.core.decision.preview import Left, Preview
from nodepool_membership.core.observed.waiting import Blocker
from nodepool_membership.plugin import changes, plan
from nodepool_membership.plugin.changes import UselessError
from unit.core_builders import servers

A, B, C, D = servers(4)
NOTHING = Preview(Plan("0" * 16, 0, 0, 0, 0), (), (), (), (), (), (), 0)
FULL = Preview(
    Plan("1" * 16, 1, 1, 1, 1),
    (A,),
    (B,),
    (C,),
    (Left(FailureReason.SERVER_NOT_FOUND, "no such server", (D,)),),
    (
        Finding(FindingReason.AUTOSCALING_ON, "it is on", 0, ()),
        Finding(FindingReason.WINDOWS_SERVER, "it is Windows", 1, (A,)),
    ),
    (Blocker(Reason.SUSPENDED, "spec.suspend is true: no call is made"),),
    7,
)


def test_every_server_has_a_line_that_says_what_would_be_done_with_it() -> None:
    lines = [line.text for line in plan.lines("ns/m", FULL, ("a note",))]
    assert lines == [
        f"+ {A}  add: WIPED",
        f"- {C}  remove: REINSTALLED",
        f"= {B}  adopt: as it is",
        f"! {D}  left: ServerNotFound: no such server",
        f"ns/m: {plan.summary(FULL)}",
        "in the way: Suspended: spec.suspend is true: no call is made",
        "finding: AutoscalingOn: it is on",
        "finding: WindowsServer (1 server): it is Windows",
        "note: a note",
    ]
    assert plan.summary(FULL) == (
        "plan 1111111111111111: 1 to add in 1 call, which WIPES it; 1 to adopt; 1 to remove, which REINSTALLS it; 1"
        " left; 7 in calls under way"
    )
    assert [line.colour for line in plan.lines("ns/m", FULL, ())][:4] == ["red", "red", "green", "yellow"]


def test_where_nothing_is_to_be_done_one_line_says_so() -> None:
    (line,) = plan.lines("ns/m", NOTHING, ())
    assert line.text == "ns/m: plan 0000000000000000: 0 to add; 0 to adopt; 0 to remove"


def test_programs_get_the_same() -> None:
    document = json.loads(json.dumps(plan.document("ns/m", FULL, ("a note",))))
    assert (document["name"], document["id"], document["underWay"]) == ("ns/m", "1" * 16, 7)
    assert (document["add"], document["calls"], document["adopt"], document["remove"]) == ([A], 1, [B], [C])
    assert document["left"] == [{"reason": "ServerNotFound", "message": "no such server", "serverIDs": [D]}]
    assert document["inTheWay"] == [{"reason": "Suspended", "message": "spec.suspend is true: no call is made"}]
    assert [found["count"] for found in document["findings"]] == [0, 1]
    assert document["notes"] == ["a note"]


def test_only_what_wipes_or_removes_is_a_change() -> None:
    assert [plan.changes(p) for p in (NOTHING, replace(NOTHING, adopt=(A,)), replace(NOTHING, add=(A,)))] == [
        False,
        False,
        True,
    ]
    assert plan.changes(replace(NOTHING, remove=(A,)))


def waiting(**more: Json) -> dict[str, Json]:
    metadata: dict[str, Json] = {"generation": 3}
    status: dict[str, Json] = {
        "observedGeneration": 3,
        "plan": {"id": "abc", "add": 2, "calls": 1, "adopt": 0, "remove": 1},
    }
    return {"metadata": metadata, "spec": {"approval": "Manual"}, "status": status, **more}


def test_to_approve_is_to_write_the_id_of_the_plan_that_waits() -> None:
    change = changes.approve(waiting(), None)
    assert change.patch == {"metadata": {"annotations": {APPROVED_PLAN_ANNOTATION: "abc"}}}
    assert "2 servers would be added in 1 call, which WIPES them" in change.asks
    assert "1 removed, which REINSTALLS it" in change.asks
    assert changes.approve(waiting(), "abc").patch == change.patch


@pytest.mark.parametrize(
    ("document", "wanted", "why"),
    [
        (waiting(spec={}), None, "spec.approval is not Manual"),
        (waiting(status={"observedGeneration": 3}), None, "no plan waits"),
        (waiting(metadata={"generation": 4}), None, "has not seen the last edit"),
        (waiting(), "another", "the plan that waits is abc, not another"),
    ],
)
def test_what_cannot_be_approved_says_why(document: dict[str, Json], wanted: str | None, why: str) -> None:
    with pytest.raises(UselessError, match=why):
        changes.approve(document, wanted)


def test_what_is_approved_already_is_not_written_again() -> None:
    done = waiting(metadata={"generation": 3, "annotations": {APPROVED_PLAN_ANNOTATION: "abc"}})
    assert changes.approve(done, None).patch is None


def shell(code: str, *words: str, **environment: str) -> str:
    return subprocess.run(
        [sys.executable, "-c", f"from nodepool_membership.plugin import cli; cli.{code}()", *words],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={"PATH": os.environ["PATH"], "PYTHONPATH": ":".join(sys.path), **environment},
    ).stdout


def test_a_shell_completes_verbs_and_options() -> None:
    script = shell("main", _KUBECTL_NPMEM_COMPLETE="bash_source")
    assert "complete -o nosort -F _kubectl_npmem_completion kubectl-npmem\n" in script
    words = {"COMP_WORDS": "kubectl-npmem pl", "COMP_CWORD": "1"}
    assert shell("main", _KUBECTL_NPMEM_COMPLETE="bash_complete", **words) == "plain,plan\n"


def test_kubectl_is_told_what_may_follow() -> None:
    *found, last = shell("complete", "pl").splitlines()
    assert [line.split("\t")[0] for line in found] == ["plan"]
    assert last == ":4"
    assert "--allow-endpoint" in shell("complete", "plan", "--al")
    assert [line for line in shell("complete", "plan", "m", "-o", "").splitlines() if line[0] != ":"] == [
        "table",
        "json",
        "yaml",
    ]
