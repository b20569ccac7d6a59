"""`kubectl npmem suspend`, `resume`, `reconcile` and `reset`: what they write, and what they say."""

from collections.abc import Callable, Mapping

import pytest

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS, RESET_ONLY_ANNOTATION
from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.plugin import changes
from nodepool_membership.plugin.changes import UselessError
from unit.core_builders import servers

IDS = servers(3)
FLUX, OURS = RESET_ANNOTATIONS


def an_object_with(
    *, annotations: dict[str, Json] | None = None, labels: dict[str, Json] | None = None, **more: Json
) -> dict[str, Json]:
    status: dict[str, Json] = {
        "joining": 2,
        "plan": {"add": 3, "calls": 1, "adopt": 1, "remove": 0},
        "failures": [{"reason": "InstallFailed", "serverIDs": [IDS[0]]}],
    }
    spec: dict[str, Json] = {"serverIDs": [*IDS], **more}
    return {"metadata": {"annotations": annotations, "labels": labels}, "spec": spec, "status": status}


def written(change: changes.Change) -> dict[str, Json]:
    assert isinstance(change.patch, dict)
    metadata = change.patch["metadata"]
    assert isinstance(metadata, dict)
    annotations = metadata["annotations"]
    assert isinstance(annotations, dict)
    return annotations


def test_suspend_and_resume_write_one_field() -> None:
    stopped = changes.suspend(an_object_with())
    assert stopped.patch == {"spec": {"suspend": True}}
    assert stopped.notes == ("2 servers are named in calls that were made before: these are followed to their end",)
    resumed = changes.resume(an_object_with(suspend=True))
    assert resumed.patch == {"spec": {"suspend": False}}
    assert "3 servers will be added, which WIPES them" in resumed.notes[0]


@pytest.mark.parametrize("change", [changes.suspend, changes.resume])
def test_suspend_and_resume_tell_that_a_halt_stays(change: Callable[[Mapping[str, Json]], changes.Change]) -> None:
    document = an_object_with(suspend=change is changes.resume)
    document["status"] = {"halt": {"reason": "CanaryFailed", "message": "m", "time": "t"}}
    text = "the halt CanaryFailed stays: an edit of anything but spec.suspend or a reset ends it"
    assert change(document).notes == (text,)


@pytest.mark.parametrize(
    ("number", "servers", "wiped"),
    [
        (0, "0 servers", "0 servers will be added, 0 adopted, 0 removed"),
        (1, "1 server is", "1 server will be added, which WIPES it, 0 adopted, 1 removed, which REINSTALLS it"),
        (2, "2 servers are", "2 servers will be added, which WIPES them, 0 adopted, 2 removed, which REINSTALLS them"),
    ],
)
def test_numbers_agree_with_their_nouns(number: int, servers: str, wiped: str) -> None:
    document = an_object_with(suspend=True)
    document["status"] = {"joining": number, "plan": {"add": number, "calls": 1, "adopt": 0, "remove": number}}
    assert wiped in changes.resume(document).notes[0]
    noted = changes.suspend({**document, "spec": {}}).notes
    assert [note.startswith(servers) for note in noted] == [True] * bool(number)


def test_what_is_so_already_is_not_written() -> None:
    assert changes.suspend(an_object_with(suspend=True)).patch is None
    assert changes.resume(an_object_with()).patch is None
    assert changes.resume({}).patch is None


@pytest.mark.parametrize(
    ("labels", "annotations", "owner"),
    [
        ({"kustomize.toolkit.fluxcd.io/name": "apps"}, None, "Flux"),
        (None, {"argocd.argoproj.io/tracking-id": "apps:x"}, "Argo CD"),
    ],
)
def test_who_would_undo_it_is_named(
    labels: dict[str, Json] | None, annotations: dict[str, Json] | None, owner: str
) -> None:
    note = changes.suspend(an_object_with(labels=labels, annotations=annotations)).notes[-1]
    assert note.startswith(f"{owner} applies this object and may set spec.suspend back")
    assert "cce.nodepools.dev/paused" in note


def test_a_pause_outlives_a_resume() -> None:
    paused = an_object_with(suspend=True, annotations={"cce.nodepools.dev/paused": "why"})
    assert "still paused" in changes.resume(paused).notes[-1]


def test_a_request_is_made_where_it_counts() -> None:
    assert written(changes.reconcile(an_object_with(), "t")) == {RECONCILE_ANNOTATIONS[1]: "t"}
    flux = an_object_with(annotations={RECONCILE_ANNOTATIONS[0]: "earlier", FLUX: "earlier"})
    assert written(changes.reconcile(flux, "t")) == {RECONCILE_ANNOTATIONS[0]: "t"}
    assert written(changes.reset(flux, "t", ())) == {FLUX: "t"}
    # One without a value does not count.
    assert written(changes.reset(an_object_with(annotations={FLUX: ""}), "t", ())) == {OURS: "t"}


def test_a_reset_is_narrowed_by_reasons_and_ids_or_not_at_all() -> None:
    some = changes.reset(an_object_with(), "t", ("InstallFailed", IDS[1].upper()))
    assert written(some) == {OURS: "t", RESET_ONLY_ANNOTATION: f"InstallFailed,{IDS[1]}"}
    whole = changes.reset(an_object_with(annotations={RESET_ONLY_ANNOTATION: "InstallFailed"}), "t", ())
    assert written(whole) == {OURS: "t", RESET_ONLY_ANNOTATION: None}
    assert "taken off" in whole.notes[0]


@pytest.mark.parametrize(
    ("only", "text"),
    [
        ("InstalFailed", "'InstalFailed' is neither a reason of status.failures nor a server id"),
        ("JoinTimeout", "no server failed with JoinTimeout: the reasons are InstallFailed"),
        ("0" * 8, "is neither a reason"),
        ("00000000-0000-0000-0000-000000000000", "is no server of this membership"),
        (",", "it is empty"),
    ],
)
def test_a_reset_of_nothing_is_refused(only: str, text: str) -> None:
    with pytest.raises(UselessError, match=text):
        changes.reset(an_object_with(), "t", (only,))


def test_every_reason_can_be_named() -> None:
    for reason in FailureReason:
        found = an_object_with()
        found["status"] = {"failures": [{"reason": reason.value, "serverIDs": []}]}
        assert written(changes.reset(found, "t", (reason.value,)))[RESET_ONLY_ANNOTATION] == reason.value
