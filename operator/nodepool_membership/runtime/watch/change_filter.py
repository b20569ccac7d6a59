"""Which objects were seen, and what of each wakes us when it changes.

Not for: their contents. Written by kopf's thread; kept from one run of kopf to the next.
"""

from collections.abc import Mapping
from typing import Final

import kopf

from nodepool_membership.api.names import (
    APPROVED_PLAN_ANNOTATION,
    PAUSED_ANNOTATION,
    RECONCILE_ANNOTATIONS,
    RESET_ANNOTATIONS,
)
from nodepool_membership.runtime.scheduling.queue import Key

Fingerprint = tuple[object, ...]

_WAKING_ANNOTATIONS: Final = (
    *RECONCILE_ANNOTATIONS,
    *RESET_ANNOTATIONS,
    APPROVED_PLAN_ANNOTATION,
    PAUSED_ANNOTATION,
)
"""Whoever waits for one of them does not look before it comes, or goes."""


def fingerprint_of(body: kopf.Body) -> Fingerprint:
    """What of an object wakes us when it changes; status and managed fields, which we write ourselves, do not."""
    metadata = body.metadata
    annotations = metadata.annotations
    return (
        metadata.uid,
        metadata.get("generation"),
        metadata.deletion_timestamp is not None,
        *(annotations.get(name) for name in _WAKING_ANNOTATIONS),
    )


_KEPT: Final = ("name", "namespace", "uid", "resourceVersion", "generation", "deletionTimestamp")


def needed_of(metadata: Mapping[str, object]) -> dict[str, object]:
    """Of an object's metadata what the watch needs, and what its mark is made of."""
    kept = {name: metadata[name] for name in _KEPT if name in metadata}
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        kept["annotations"] = {name: annotations[name] for name in _WAKING_ANNOTATIONS if name in annotations}
    return kept


class ChangeFilter:
    """The mark of every object by key.

    An object that goes while nobody watches leaves no event: it is known by not being in the next list.
    """

    def __init__(self) -> None:
        self._fingerprints: dict[Key, Fingerprint] = {}
        self._unsure: set[Key] = set()

    def changed(self, key: Key, fingerprint: Fingerprint) -> bool:
        """Whether the object wakes: it is new, or its mark differs from the last one."""
        if self._fingerprints.get(key) == fingerprint:
            return False
        self._fingerprints[key] = fingerprint
        return True

    def gone(self, key: Key) -> None:
        self._fingerprints.pop(key, None)

    def begin_list(self, namespace: str | None) -> None:
        """A list of a namespace (None: of all) is asked for: what it shows is seen anew, what is known may be gone."""
        for key in [key for key in self._fingerprints if namespace in {None, key[0]}]:
            self._unsure.add(key)
            del self._fingerprints[key]

    def end_list(self, namespace: str | None) -> set[Key]:
        """The list is complete: what was known and was not seen in it, or not yet."""
        unsure = {key for key in self._unsure if namespace in {None, key[0]}}
        self._unsure -= unsure
        return unsure - self._fingerprints.keys()

    def clear(self) -> set[Key]:
        """The resource type is gone: every key that was known."""
        known = self._unsure | self._fingerprints.keys()
        self._unsure.clear()
        self._fingerprints.clear()
        return known
