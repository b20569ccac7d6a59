"""A whole NodePoolMembership as read from the API server, and its status as JSON to write back.

Not for: talking to the API server (`kube`).
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Annotated, ClassVar, Final

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from nodepool_membership.api.codec import WIRE, Moment
from nodepool_membership.api.spec import Spec
from nodepool_membership.api.status import Status

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


class InvalidObjectError(ValueError):
    """The object does not read as a NodePoolMembership. The text names the first bad field, never a value."""


@dataclass(frozen=True, slots=True)
class FieldsOwner:
    """An entry of `metadata.managedFields`: who wrote which fields when, as the API server keeps it."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    manager: str = ""
    time: Moment | None = None
    subresource: str = ""
    fields_v1: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Metadata:
    """The part of `ObjectMeta` that decisions and guarded writes need."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    name: str
    namespace: str
    uid: str
    resource_version: str
    generation: int
    creation_timestamp: Moment
    deletion_timestamp: Moment | None = None
    finalizers: tuple[str, ...] = ()
    annotations: dict[str, str] = field(default_factory=dict)
    managed_fields: tuple[FieldsOwner, ...] = ()

    @property
    def last_edit(self) -> FieldsOwner | None:
        """Who wrote to the spec last, as far as the API server tells; a client names itself as it likes."""
        owners = [o for o in self.managed_fields if "f:spec" in o.fields_v1 and not o.subresource]
        return max(owners, key=lambda o: (o.time is not None, o.time and o.time.timestamp()), default=None)

    @property
    def deleting(self) -> bool:
        return self.deletion_timestamp is not None


@dataclass(frozen=True, slots=True)
class Membership:
    """One object at one resourceVersion. `wire_bytes` is its size as it was read, about that of the stored object."""

    metadata: Metadata
    spec: Spec
    status: Status = field(default_factory=Status)
    wire_bytes: int = 0


@dataclass(frozen=True, slots=True)
class _WithoutStatus:
    metadata: Metadata
    spec: Spec


@dataclass(frozen=True, slots=True)
class _PageMetadata:
    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    continue_: str = ""


@dataclass(frozen=True, slots=True)
class _Page:
    metadata: _PageMetadata
    items: list[Annotated[Membership | dict[str, object], Field(union_mode="left_to_right")]] | None
    """As JSON what does not read."""


_WHOLE: Final = TypeAdapter(Membership)
_PAGE: Final = TypeAdapter(_Page)
_WITHOUT_STATUS: Final = TypeAdapter(_WithoutStatus)
_STATUS: Final = TypeAdapter(Status)


@dataclass(frozen=True, slots=True)
class UnreadableStatus:
    """An object whose status cannot be understood: edited by hand, or a newer operator's (rule P24)."""

    metadata: Metadata
    spec: Spec
    problem: str
    handled_reset: str | None = None
    """The `lastHandledResetAt` in it, if that much can be read."""


def _first_problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"


def parse_membership(raw: bytes) -> Membership | UnreadableStatus:
    """Read an object as the API server sent it.

    Raises:
        InvalidObjectError: metadata or spec do not read; the CRD's schema does not let that through.
    """
    try:
        return replace(_WHOLE.validate_json(raw), wire_bytes=len(raw))
    except ValidationError as error:
        problem = _first_problem(error)
        if any(e["loc"][:1] != ("status",) for e in error.errors(include_url=False, include_input=False)):
            raise InvalidObjectError(problem) from None
    rest = _WITHOUT_STATUS.validate_json(raw)
    status = json.loads(raw).get("status")
    handled = status.get("lastHandledResetAt") if isinstance(status, dict) else None
    return UnreadableStatus(rest.metadata, rest.spec, problem, handled if isinstance(handled, str) else None)


def parse_page(raw: bytes) -> tuple[Iterable[Membership | UnreadableStatus], str]:
    """Read a page of a list, and what the next page is asked for with, "" after the last one.

    What `parse_membership` would not read is left out. `wire_bytes` are not known.
    """
    page = _PAGE.validate_json(raw)
    return _readable(page.items or ()), page.metadata.continue_


def _readable(items: Iterable[Membership | dict[str, object]]) -> Iterable[Membership | UnreadableStatus]:
    for item in items:
        try:
            yield item if isinstance(item, Membership) else parse_membership(json.dumps(item).encode())
        except InvalidObjectError:
            continue


def status_json(status: Status) -> dict[str, Json]:
    """Write a status as JSON values: absent rather than null, ids of a batch only where there are any.

    One that the operator never wrote (no `lastBatch`) has no zeros and empty lists yet: its first write adds them.
    """
    wire: dict[str, Json] = _STATUS.dump_python(status, mode="json", by_alias=True, exclude_none=True)
    if status.last_batch is None:
        wire = {name: value for name, value in wire.items() if value not in (0, [])}
    for name in ("holds", "waits", "findings"):
        if wire.get(name) == []:
            del wire[name]
    jobs = wire.get("jobs")
    if isinstance(jobs, list):
        wire["jobs"] = [{k: v for k, v in job.items() if v != []} if isinstance(job, dict) else job for job in jobs]
    return wire
