"""The status patch: applying it by an independent implementation gives the new status, for any two statuses."""

import copy
import json
from collections.abc import Mapping

import jsonpatch
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nodepool_membership.api.membership import Json
from nodepool_membership.kube.patch import MAX_OPERATIONS, status_patch

Wire = dict[str, Json]

# Long, so that editing a list is often shorter than replacing it.
ids = st.integers(0, 20).map(lambda n: f"id-{n:0200}")
sorted_ids = st.sets(ids).map(sorted)
texts = st.sampled_from(["", "a", "b/c~d"])


def job(number: int, phase: str, job_id: str | None, server_ids: list[str]) -> Wire:
    wire: Wire = {"batch": number, "phase": phase, "servers": len(server_ids)}
    if job_id is not None:
        wire["jobID"] = job_id
    if server_ids:
        wire["serverIDs"] = [*server_ids]
    return wire


jobs = st.lists(
    st.builds(job, st.integers(1, 8), st.sampled_from(["Queued", "Running"]), st.none() | texts, sorted_ids),
    unique_by=lambda wire: str(wire["batch"]),
)
failures = st.lists(
    st.builds(
        lambda reason, message, attempts, found: {
            "reason": reason,
            "message": message,
            "attempts": attempts,
            "count": len(found),
            "serverIDs": found,
        },
        st.sampled_from(["A", "B"]),
        texts,
        st.integers(1, 2),
        sorted_ids,
    )
)
conditions = st.lists(st.fixed_dictionaries({"type": texts, "status": texts}), min_size=1, max_size=2)
statuses = st.fixed_dictionaries(
    {
        "observedGeneration": st.integers(-1, 3),
        "conditions": conditions | st.just([]),
        "joined": st.integers(0, 3),
        "jobs": jobs,
        "members": sorted_ids | st.lists(ids, max_size=5),
        "failures": failures,
    },
    optional={"lastJobID": texts, "surplusSince": texts},
)


def applied(old: Mapping[str, Json], patch: list[Json]) -> Wire:
    document: Wire = {"metadata": {"resourceVersion": "1"}, "status": copy.deepcopy(dict(old))}
    result: Wire = jsonpatch.apply_patch(document, json.dumps(patch))["status"]
    return result


@given(old=statuses, new=statuses)
def test_the_patch_makes_the_new_status(old: Wire, new: Wire) -> None:
    patch = status_patch(old, new, "1")
    if old == new:
        assert patch is None
        return
    assert patch is not None
    assert patch[0] == {"op": "replace", "path": "/metadata/resourceVersion", "value": "1"}
    assert applied(old, patch) == new


def sparse(wire: Mapping[str, Json]) -> Wire:
    """What a server that stores no zero and no empty list would hold."""
    return {name: value for name, value in wire.items() if value not in ([], 0)}


@given(old=statuses, new=statuses)
def test_what_is_empty_may_be_absent_on_the_server(old: Wire, new: Wire) -> None:
    patch = status_patch(old, new, "1")
    if patch is not None:
        assert sparse(applied(sparse(old), patch)) == sparse(new)


def big(members: list[str]) -> Wire:
    return {"conditions": [{"type": "Ready"}], "jobs": [], "members": [*members], "failures": []}


def uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


ALL = [uuid(n) for n in range(10_000)]


def test_a_batch_of_members_costs_about_its_own_bytes() -> None:
    kept = [i for n, i in enumerate(ALL) if n % 50]
    patch = status_patch(big(kept), big(ALL), "1")
    assert patch is not None
    assert len(patch) == 201
    assert len(json.dumps(patch)) < 100 * 200
    assert applied(big(kept), patch) == big(ALL)


def test_intent_and_job_id_cost_their_own_bytes() -> None:
    done: list[Json] = [job(n, "Succeeded", f"job-{n}", []) for n in range(1, 11)]
    old: Wire = {**big(ALL), "jobs": done}
    intent: Wire = {**old, "jobs": [*done, job(11, "Submitting", None, ALL[:200])]}
    recorded: Wire = {**old, "jobs": [*done, job(11, "Running", "job-11", ALL[:200])]}
    first, second = status_patch(old, intent, "1"), status_patch(intent, recorded, "2")
    assert first is not None
    assert second is not None
    assert len(json.dumps(first)) < 9_000
    assert len(json.dumps(second)) < 300


@pytest.mark.parametrize("count", [0, 1, 5_000, 9_999, 10_000])
def test_never_larger_than_the_list_and_never_too_many_operations(count: int) -> None:
    step = [ALL[n] for n in range(0, 10_000, 2)] if count == 5_000 else ALL[:count]
    whole = len(json.dumps(ALL)) + 200
    for old, new in ((step, ALL), (ALL, step)):
        patch = status_patch(big(old), big(new), "1")
        if patch is None:
            continue
        assert len(patch) <= MAX_OPERATIONS
        assert len(json.dumps(patch)) <= whole
        assert applied(big(old), patch) == big(new)


def test_a_status_without_conditions_is_written_whole() -> None:
    """The CRD's default has conditions; without them there may be nothing under `/status` to edit."""
    patch = status_patch({"conditions": [], "joined": 0}, {"conditions": [], "joined": 1}, "1")
    assert patch is not None
    assert [op["path"] for op in patch if isinstance(op, dict)] == ["/metadata/resourceVersion", "/status"]
