"""What the API server counted of requests that change something: how many, and how large.

Not for: what the operator says of itself. Creating memberships, which only the bench does, is not counted; its
patches are.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

_REQUESTS: Final = "apiserver_request_total"
_BYTES: Final = "apiserver_request_body_size_bytes_sum"
_MEMBERSHIPS: Final = ("cce.nodepools.dev", "nodepoolmemberships")
_EVENTS: Final = ("", "events")
_CHANGES: Final = frozenset({"PUT", "PATCH", "APPLY", "DELETE", "update", "patch", "apply", "delete"})
_CREATES: Final = frozenset({"POST", "create"})


@dataclass(frozen=True, slots=True)
class Writes:
    """Requests that write, also refused ones, and the bytes of their bodies."""

    status: int
    metadata: int
    """Of the resource itself: the operator writes there only the finalizer."""
    events: int
    membership_bytes: int
    event_bytes: int

    def __sub__(self, earlier: "Writes") -> "Writes":
        return Writes(
            self.status - earlier.status,
            self.metadata - earlier.metadata,
            self.events - earlier.events,
            self.membership_bytes - earlier.membership_bytes,
            self.event_bytes - earlier.event_bytes,
        )

    @property
    def total(self) -> int:
        return self.status + self.metadata + self.events


def writes(exposition: str) -> Writes:
    """Read the counts out of the API server's metrics (names as of Kubernetes 1.36).

    Raises:
        ValueError: there are none of these metrics, so that nothing can be said.
    """
    # Parsing all of its thousands of histograms takes seconds.
    wanted = "\n".join(line for line in exposition.splitlines() if line.startswith((f"{_REQUESTS}{{", f"{_BYTES}{{")))
    samples = [sample for family in text_string_to_metric_families(wanted + "\n") for sample in family.samples]
    if {sample.name for sample in samples} != {_REQUESTS, _BYTES}:
        raise ValueError(f"the API server's metrics lack {_REQUESTS} or {_BYTES}")
    return Writes(
        status=_sum(samples, _REQUESTS, _MEMBERSHIPS, _CHANGES, subresource="status"),
        metadata=_sum(samples, _REQUESTS, _MEMBERSHIPS, _CHANGES, subresource=""),
        events=_sum(samples, _REQUESTS, _EVENTS, _CHANGES | _CREATES),
        membership_bytes=_sum(samples, _BYTES, _MEMBERSHIPS, _CHANGES),
        event_bytes=_sum(samples, _BYTES, _EVENTS, _CHANGES | _CREATES),
    )


def _sum(samples: Iterable[Sample], name: str, resource: tuple[str, str], verbs: frozenset[str], **labels: str) -> int:
    found = 0.0
    for sample in samples:
        label = sample.labels
        same = sample.name == name and (label["group"], label["resource"]) == resource and label["verb"] in verbs
        if same and all(label[k] == v for k, v in labels.items()):
            found += sample.value
    return int(found)
