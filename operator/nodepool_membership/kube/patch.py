"""The difference of two statuses as a JSON Patch (RFC 6902), small enough to write after every batch.

Not for: sending it (`memberships`). Pure.

Statuses are JSON as `api.membership.status_json` makes it. What is empty or zero there may be absent in the stored
object, so a member is set with `add`, which replaces what exists, and a list is edited in place only if it had items.
"""

import json
from collections.abc import Hashable, Sequence
from itertools import pairwise
from typing import Final

from nodepool_membership.api.membership import Json

MAX_OPERATIONS: Final = 10_000
"""The API server refuses longer patches (`maxJSONPatchOperations` in k8s.io/apiserver)."""

Operation = dict[str, Json]

_ROOT: Final = "/status"
_KEYS: Final = {
    f"{_ROOT}/jobs": ("batch",),
    f"{_ROOT}/failures": ("reason", "message", "attempts", "retryTime"),
    f"{_ROOT}/holds": ("since", "mass"),
}
_BYTES_OF_AN_EDIT: Final = len('{"op": "add", "path": "", "value": }, ')


def guard(resource_version: str) -> Operation:
    """The operation that makes the API server answer 409 if the object changed; `test` would answer a bare 422."""
    return {"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version}


def status_patch(old: dict[str, Json], new: dict[str, Json], resource_version: str) -> list[Json] | None:
    """The guarded patch that turns `old`, as read at `resource_version`, into `new`; None if they are equal.

    At most `MAX_OPERATIONS` operations. A batch appended to `jobs`, and its servers merged into `members`, cost bytes
    of the order of the batch.
    """
    if old == new:
        return None
    # The CRD's default status has conditions: without them there may be no status to edit.
    edits = _edit_object(_ROOT, old, new) if old.get("conditions") else [_set(_ROOT, new)]
    if len(edits) >= MAX_OPERATIONS:
        edits = [_set(_ROOT, new)]
    return [guard(resource_version), *edits]


def _set(path: str, value: Json) -> Operation:
    return {"op": "add", "path": path, "value": value}


def _remove(path: str) -> Operation:
    return {"op": "remove", "path": path}


def _edit_object(path: str, old: dict[str, Json], new: dict[str, Json]) -> list[Operation]:
    edits = [_remove(f"{path}/{name}") for name in old if name not in new]
    for name, value in new.items():
        if name not in old:
            edits.append(_set(f"{path}/{name}", value))
        elif old[name] != value:
            edits += _edit_value(f"{path}/{name}", old[name], value)
    return edits


def _edit_value(path: str, old: Json, new: Json) -> list[Operation]:
    whole = [_set(path, new)]
    if not isinstance(old, list) or not isinstance(new, list) or not old or not new:
        return whole
    edits = _edit_strings(path, old, new)
    if edits is None and path in _KEYS:
        edits = _edit_keyed(path, old, new, _KEYS[path])
    return edits if edits is not None and _size(edits) < _size(whole) else whole


def _size(edits: list[Operation]) -> int:
    return len(json.dumps(edits))


def _moves(path: str, old: Sequence[Hashable], new: Sequence[Hashable], values: list[Json]) -> list[Operation]:
    """Removals from the back, then additions from the front, each at its final place."""
    gone, fresh = set(old).difference(new), set(new).difference(old)
    edits = [_remove(f"{path}/{index}") for index in range(len(old) - 1, -1, -1) if old[index] in gone]
    edits += [_set(f"{path}/{index}", values[index]) for index, key in enumerate(new) if key in fresh]
    return edits


def _edit_strings(path: str, old: list[Json], new: list[Json]) -> list[Operation] | None:
    """Edits of one sorted list of distinct strings into another; None if they are not, or edits cannot be smaller."""
    before, after = [v for v in old if isinstance(v, str)], [v for v in new if isinstance(v, str)]
    if len(before) != len(old) or len(after) != len(new) or not (_ascending(before) and _ascending(after)):
        return None
    additions = len(set(after).difference(before))
    if additions * (_BYTES_OF_AN_EDIT + len(path)) > sum(map(len, after)):
        return None
    return _moves(path, before, after, new)


def _ascending(values: list[str]) -> bool:
    return all(one < other for one, other in pairwise(values))


def _key(item: Json, names: tuple[str, ...]) -> tuple[str, ...] | None:
    return tuple(json.dumps(item.get(name)) for name in names) if isinstance(item, dict) else None


def _edit_keyed(path: str, old: list[Json], new: list[Json], names: tuple[str, ...]) -> list[Operation] | None:
    """Edits of a list of objects with distinct keys; None if a key repeats or the kept objects change places."""
    before, after = [_key(item, names) for item in old], [_key(item, names) for item in new]
    kept = set(before) & set(after)
    if len(set(before)) < len(before) or len(set(after)) < len(after):
        return None
    if [key for key in before if key in kept] != [key for key in after if key in kept]:
        return None
    edits = _moves(path, before, after, new)
    previous = dict(zip(before, old, strict=True))
    for index, (key, item) in enumerate(zip(after, new, strict=True)):
        was = previous.get(key)
        if isinstance(was, dict) and isinstance(item, dict):
            edits += _edit_object(f"{path}/{index}", was, item)
    return edits
