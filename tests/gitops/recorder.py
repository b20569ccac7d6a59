"""Collects each distinct state in which a membership was stored, while other tests run.

Not for: judging them (`judges`). Two states are the same when a GitOps tool cannot tell them apart: messages, counts
and lists do not matter, conditions and generations do.
"""

import json
import logging
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final, Self

import httpx

from nodepool_membership.api.names import FIELD_MANAGER

Object = dict[str, object]

_PATH: Final = "/apis/cce.nodepools.dev/v1alpha1/nodepoolmemberships"
_SECONDS: Final = 2
LOGGERS: Final = ("httpx", "httpcore.connection", "httpcore.http11")
"""Those that speak for a request; a filter does not reach the loggers below its own."""
_KEPT_IDS: Final = 2
_KEPT_ENTRIES: Final = 4


class Recorder:
    """Watches all namespaces from entering to leaving; `states` are what was seen, in that order."""

    def __init__(self, http: httpx.Client) -> None:
        self.states: dict[str, Object] = {}
        self._http = http
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._record, name="recorder", daemon=True)

    def __enter__(self) -> Self:
        # It runs beside every test of the session, and some of them count what is logged.
        for name in LOGGERS:
            logging.getLogger(name).addFilter(self._is_not_mine)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()
        for name in LOGGERS:
            logging.getLogger(name).removeFilter(self._is_not_mine)

    def _is_not_mine(self, record: logging.LogRecord) -> bool:
        return record.thread != self._thread.ident

    def _record(self) -> None:
        version = ""
        while not self._ended.is_set():
            query = {"watch": "true", "timeoutSeconds": str(_SECONDS), "resourceVersion": version}
            try:
                with self._http.stream("GET", _PATH, params=query, timeout=30.0) as response:
                    response.raise_for_status()
                    for line in response.iter_lines():
                        version = self._note(json.loads(line))
            except httpx.HTTPError:
                # Tests stop the API server, and take the definition away; what is stored then is seen afterwards.
                version = ""
                self._ended.wait(1.0)

    def _note(self, event: Mapping[str, object]) -> str:
        """Keep the state if it is new; the version to go on from."""
        found = event["object"]
        assert isinstance(found, dict)
        if event["type"] == "ERROR":
            return ""
        if event["type"] != "DELETED" and _is_operators(found):
            self.states.setdefault(key(found), small(found))
        return str(found["metadata"]["resourceVersion"])


def _is_operators(membership: Object) -> bool:
    """Whether nobody but the operator, or the default of the definition, wrote the status: tests do, too.

    They both write conditions; without any it is a test's own, under the operator's name.
    """
    if not _part(membership, "status").get("conditions"):
        return False
    fields = _part(membership, "metadata").get("managedFields") or []
    assert isinstance(fields, list)
    return {f["manager"] for f in fields if f.get("subresource") == "status"} <= {FIELD_MANAGER}


def key(membership: Object) -> str:
    """What a GitOps tool sees of it."""
    metadata, spec, status = (_part(membership, name) for name in ("metadata", "spec", "status"))
    conditions = status.get("conditions") or []
    assert isinstance(conditions, list)
    generation = metadata.get("generation")
    seen = [(c["type"], c["status"], c["reason"], c.get("observedGeneration") == generation) for c in conditions]
    current = status.get("observedGeneration") == generation
    return json.dumps([sorted(seen), current, "deletionTimestamp" in metadata, spec.get("suspend", False)])


def small(membership: Object) -> Object:
    """The object without what only makes it large, and without what differs from run to run."""
    metadata, spec = _part(membership, "metadata"), _part(membership, "spec")
    kept: Object = {
        k: metadata[k] for k in ("generation", "annotations", "finalizers", "deletionTimestamp") if k in metadata
    }
    ids = spec.get("serverIDs", [])
    assert isinstance(ids, list)
    status = {name: _shortened(value) for name, value in _part(membership, "status").items()}
    return {
        "apiVersion": membership["apiVersion"],
        "kind": membership["kind"],
        "metadata": Object(name="m", namespace="team", **kept),
        "spec": {**spec, "serverIDs": ids[:_KEPT_IDS]},
        "status": status,
    }


def _shortened(value: object) -> object:
    """Lists without all but their last entries; so are those in their entries."""
    if isinstance(value, list):
        return [_shortened(entry) for entry in value[-_KEPT_ENTRIES:]]
    if isinstance(value, dict):
        return {name: _shortened(inner) for name, inner in value.items()}
    return value


def _part(membership: Object, name: str) -> Object:
    part = membership.get(name)
    if part is None:
        return {}
    assert isinstance(part, dict)
    return part
