"""What suspend, resume, reconcile, reset and approve change in an object, as merge patches, with what is said about it.

Not for: sending them (`cluster`). Pure. Works on the object as JSON: an object whose status nobody can read can still
be suspended and reset.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import (
    APPROVED_PLAN_ANNOTATION,
    PAUSED_ANNOTATION,
    RECONCILE_ANNOTATIONS,
    RESET_ANNOTATIONS,
    RESET_ONLY_ANNOTATION,
)
from nodepool_membership.api.spec import Approval
from nodepool_membership.core.state.requests import counting, reset_only
from nodepool_membership.core.wording import are, counted, them

_OWNERS: Final = (
    ("labels", "kustomize.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "helm.toolkit.fluxcd.io/name", "Flux"),
    ("labels", "argocd.argoproj.io/instance", "Argo CD"),
    ("annotations", "argocd.argoproj.io/tracking-id", "Argo CD"),
)


class UselessError(Exception):
    """What was asked for would do nothing; the text says why."""


@dataclass(frozen=True, slots=True)
class Change:
    """What is to be written, nothing if `patch` is None, and what is said afterwards."""

    patch: Json
    done: str
    notes: tuple[str, ...] = ()
    asks: str = ""
    """What a person is asked to say yes to first."""


def suspend(document: Mapping[str, Json]) -> Change:
    """Stop calls until `resume`; what is under way is followed."""
    notes = []
    if joining := _number(_table(document, "status"), "joining"):
        named = f"{counted(joining, 'server')} {are(joining)} named in calls that were made before"
        notes.append(f"{named}: these are followed to their end")
    return _suspended(document, "suspended: no call is made", notes, wanted=True)


def resume(document: Mapping[str, Json]) -> Change:
    """Let calls be made again."""
    notes = []
    plan = _table(document, "status").get("plan")
    if isinstance(plan, dict):
        notes.append(
            f"by the last look {_wiped(plan, 'will be added')}, {_number(plan, 'adopt')} adopted, {_reinstalled(plan)}"
        )
    if PAUSED_ANNOTATION in _annotations(document):
        notes.append(f"it is still paused by the annotation {PAUSED_ANNOTATION}")
    return _suspended(document, "resumed", notes, wanted=False)


def _suspended(document: Mapping[str, Json], done: str, notes: Sequence[str], *, wanted: bool) -> Change:
    now = bool(_table(document, "spec").get("suspend"))
    if now is wanted:
        return Change(None, f"{'already suspended' if wanted else 'not suspended'}: nothing was changed", tuple(notes))
    if halt := _table(_table(document, "status"), "halt"):
        notes = (
            *notes,
            f"the halt {halt.get('reason')} stays: an edit of anything but spec.suspend or a reset ends it",
        )
    if (owner := _owner(document)) is not None:
        text = f"{owner} applies this object and may set spec.suspend back: change it in Git, too"
        notes = (*notes, f"{text}; the annotation {PAUSED_ANNOTATION} stops calls without that")
    return Change({"spec": {"suspend": wanted}}, done, tuple(notes))


def reconcile(document: Mapping[str, Json], token: str) -> Change:
    """Have it looked at now; each `token` is one request."""
    patch: Json = {"metadata": {"annotations": {_request(document, RECONCILE_ANNOTATIONS): token}}}
    return Change(patch, f"asked to look now; answered when status.lastHandledReconcileAt is {token}")


def reset(document: Mapping[str, Json], token: str, only: Sequence[str]) -> Change:
    """Give failed servers their attempts back, and end a halt and waits; `only` narrows it to reasons and ids.

    Raises:
        UselessError: a word of `only` is neither, or names nothing that could be reset.
    """
    annotations: dict[str, Json] = {_request(document, RESET_ANNOTATIONS): token}
    notes = []
    if only:
        words = _narrowed(document, only)
        annotations[RESET_ONLY_ANNOTATION] = ",".join(words)
        notes.append(f"narrowed to {', '.join(words)}; so is every reset until one without --only")
    elif RESET_ONLY_ANNOTATION in _annotations(document):
        annotations[RESET_ONLY_ANNOTATION] = None
        notes.append(f"the annotation {RESET_ONLY_ANNOTATION}, which would have narrowed it, is taken off")
    patch: Json = {"metadata": {"annotations": annotations}}
    done = "reset: servers that failed may be added again, which WIPES them"
    return Change(patch, f"{done}; answered when status.lastHandledResetAt is {token}", tuple(notes))


def approve(document: Mapping[str, Json], wanted: str | None) -> Change:
    """Say yes to the plan that waits; `wanted` is the id of the one that was looked at.

    Raises:
        UselessError: none waits, another one waits, or the operator has not seen the last edit.
    """
    spec, status, metadata = (_table(document, part) for part in ("spec", "status", "metadata"))
    if spec.get("approval") != Approval.MANUAL:
        raise UselessError("spec.approval is not Manual: nothing waits for an approval")
    if status.get("observedGeneration") != metadata.get("generation"):
        raise UselessError("the operator has not seen the last edit yet: the plan that waits may be another one soon")
    plan = _table(status, "plan")
    if not plan:
        raise UselessError("no plan waits for an approval")
    found = str(plan.get("id"))
    if wanted is not None and wanted != found:
        raise UselessError(f"the plan that waits is {found}, not {wanted}: look at it with plan, or explain")
    if _annotations(document).get(APPROVED_PLAN_ANNOTATION) == found:
        return Change(None, f"plan {found} is approved already: nothing was changed")
    texts = [_wiped(plan, f"would be added in {counted(_number(plan, 'calls'), 'call')}")]
    texts.append(f"{_number(plan, 'adopt')} adopted, {_reinstalled(plan)}")
    patch: Json = {"metadata": {"annotations": {APPROVED_PLAN_ANNOTATION: found}}}
    return Change(patch, f"approved plan {found}", asks=f"plan {found}: {'; '.join(texts)}")


def _narrowed(document: Mapping[str, Json], only: Sequence[str]) -> Sequence[str]:
    narrowed = reset_only(",".join(only))
    if isinstance(narrowed, str):
        raise UselessError(f"--only: {narrowed}")
    reasons, ids = narrowed
    failures = _table(document, "status").get("failures")
    groups = [group for group in (failures if isinstance(failures, list) else []) if isinstance(group, dict)]
    there = {str(group.get("reason")) for group in groups}
    if unused := reasons - there:
        known = f"the reasons are {', '.join(sorted(there))}" if there else "no server failed"
        raise UselessError(f"--only: no server failed with {', '.join(sorted(unused))}: {known}")
    known_ids = _ids(_table(document, "spec").get("serverIDs")) | _ids(_table(document, "status").get("members"))
    for group in groups:
        known_ids |= _ids(group.get("serverIDs"))
    if unknown := ids - known_ids:
        raise UselessError(f"--only: {min(unknown)} is no server of this membership")
    return [*sorted(reasons), *sorted(ids)]


def _wiped(plan: Mapping[str, Json], how: str) -> str:
    number = _number(plan, "add")
    return f"{counted(number, 'server')} {how}" + (f", which WIPES {them(number)}" if number else "")


def _reinstalled(plan: Mapping[str, Json]) -> str:
    number = _number(plan, "remove")
    return f"{number} removed" + (f", which REINSTALLS {them(number)}" if number else "")


def _number(table: Mapping[str, Json], name: str) -> int:
    found = table.get(name)
    return found if isinstance(found, int) else 0


def _ids(value: Json) -> set[str]:
    return {str(i).lower() for i in value} if isinstance(value, list) else set()


def _request(document: Mapping[str, Json], names: tuple[str, ...]) -> str:
    """The annotation to set: the one that is there, for it alone counts, else ours."""
    return counting(_annotations(document), names) or names[-1]


def _owner(document: Mapping[str, Json]) -> str | None:
    metadata = _table(document, "metadata")
    return next((owner for where, mark, owner in _OWNERS if mark in _table(metadata, where)), None)


def _annotations(document: Mapping[str, Json]) -> dict[str, str]:
    return {name: str(value) for name, value in _table(_table(document, "metadata"), "annotations").items()}


def _table(document: Mapping[str, Json], name: str) -> Mapping[str, Json]:
    found = document.get(name)
    return found if isinstance(found, dict) else {}
