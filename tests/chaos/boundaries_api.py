"""An API server in memory, behind `kube.api.KubeApi`: guards, generations, subresources, finalizers, deletion, pages.

Not for: anything but the requests that the operator and the scenarios make; validation is defaults and unknown fields
from the CRD. `tests/cluster/test_memory_api.py` holds its answers against a real API server.
"""

import copy
import json
import ssl
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import jsonpatch
import yaml

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import GROUP, PLURAL, VERSION
from nodepool_membership.kube.api import JSON_PATCH, METADATA_ONLY
from nodepool_membership.kube.sessions import Login

Wire = dict[str, Json]

_CRD: Final = Path(__file__).parents[2] / "crds" / "nodepoolmemberships.yaml"
_MERGE: Final = "application/merge-patch+json"
_REASONS: Final = {404: "NotFound", 409: "Conflict", 422: "Invalid"}
_SSL: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
NAMESPACES: Final = "namespaces"
TOKEN: Final = "token"
"""The subresource of service accounts."""
DEFINITIONS: Final = "customresourcedefinitions"
_META: Final = "meta.k8s.io/v1"


class RefusalError(Exception):
    """An answer of 400 or above."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(slots=True)
class Answer:
    """What `KubeApi` reads of a response."""

    status: int
    body: bytes

    async def read(self) -> bytes:
        return self.body

    @property
    def response(self) -> "Answer":
        """The client's own answer, of which bytes are read as they arrive."""
        return self

    content = response

    async def iter_chunked(self, n: int) -> AsyncIterator[bytes]:
        for start in range(0, len(self.body), n):
            yield self.body[start : start + n]

    def close(self) -> None:
        """Nothing is open."""


@dataclass(frozen=True, slots=True)
class Target:
    """What a request's path names. `namespace` is empty for all of them, and for what is in none."""

    plural: str
    namespace: str
    name: str | None = None
    subresource: str | None = None


def mapping(value: Json) -> Wire:
    """The value as an object; what is absent is empty."""
    if value is None:
        return {}
    assert isinstance(value, dict), f"not an object: {value!r}"
    return value


def text(value: Json) -> str:
    assert isinstance(value, str), f"not a string: {value!r}"
    return value


def target_of(path: str) -> Target:
    """Read `/api/v1[/namespaces/NS]/PLURAL[/NAME[/SUBRESOURCE]]`, or the same below `/apis/GROUP/VERSION`."""
    parts = path.strip("/").split("/")
    rest = parts[2 if parts[0] == "api" else 3 :]
    if rest[0] != NAMESPACES or len(rest) <= len((NAMESPACES, "NS")):
        return Target(rest[0], "", *rest[1:])
    namespace, plural, *more = rest[1:]
    return Target(plural, namespace, *more)


@cache
def _schema() -> Wire:
    crd = yaml.safe_load(_CRD.read_text())
    schema: Wire = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def _with_defaults(value: Json, schema: Wire) -> Json:
    if isinstance(value, list):
        return [_with_defaults(item, mapping(schema.get("items"))) for item in value]
    if not isinstance(value, dict):
        return value
    value = dict(value)
    for name, part in mapping(schema.get("properties")).items():
        part = mapping(part)
        if name not in value and "default" in part:
            value[name] = copy.deepcopy(part["default"])
        if name in value:
            value[name] = _with_defaults(value[name], part)
    return value


def _unknown(value: Json, schema: Wire, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(item, mapping(schema.get("items")), f"{path}[{index}]")
    elif isinstance(value, dict) and "properties" in schema:
        known = mapping(schema["properties"])
        for name, part in value.items():
            where = f"{path}.{name}".lstrip(".")
            if name not in known:
                yield where
            else:
                yield from _unknown(part, mapping(known[name]), where)


def _merge(old: Json, change: Json) -> Json:
    """RFC 7386."""
    if not isinstance(change, dict):
        return change
    merged = dict(mapping(old)) if isinstance(old, dict) else {}
    for name, part in change.items():
        if part is None:
            merged.pop(name, None)
        else:
            merged[name] = _merge(merged.get(name), part)
    return merged


@dataclass
class MemoryApi:
    """Objects as JSON, by plural, namespace and name. `changed` is told of every stored change of a membership."""

    now: Callable[[], datetime]
    objects: dict[tuple[str, str, str], Wire] = field(default_factory=dict)
    changed: Callable[[Wire | None, Wire | None], None] = lambda _old, _new: None
    version: int = 1000
    rests: dict[str, list[Wire]] = field(default_factory=dict)
    """What is left of lists that were begun, by the token that continues them."""
    token: Callable[[str, str, str], str] | None = None
    """Makes a token of a service account, by its namespace and name, for an audience."""

    def __post_init__(self) -> None:
        self._create(Target(DEFINITIONS, ""), {"metadata": {"name": f"{PLURAL}.{GROUP}"}})

    @property
    def login(self) -> Login:
        """What `KubeApi` asks for beside a client."""

        async def nobody() -> None:
            return None

        return Login(server="", ssl_context=_SSL, proxy=None, authorization=nobody)

    async def call_api(
        self,
        method: str,
        url: str,
        header_params: dict[str, str],
        body: Json,
        post_params: None,
        _request_timeout: aiohttp.ClientTimeout,
    ) -> Answer:
        """The generated client's method, as `KubeApi` calls it."""
        assert post_params is None, "nobody sends a form"
        parts = urlsplit(url)
        try:
            found = self.handle(method, target_of(parts.path), dict(parse_qsl(parts.query)), header_params, body)
        except RefusalError as refusal:
            reason = _REASONS[refusal.status]
            status = {"kind": "Status", "status": "Failure", "reason": reason, "message": str(refusal)}
            return Answer(refusal.status, json.dumps(status).encode())
        if header_params["Accept"] == METADATA_ONLY:
            found = _metadata_only(found)
        return Answer(200, json.dumps(found).encode())

    async def close(self) -> None:
        """Nothing is open."""

    def handle(self, method: str, target: Target, query: dict[str, str], headers: dict[str, str], body: Json) -> Wire:
        """One request. Raises RefusalError."""
        if target.subresource == TOKEN:
            return self._token_of(target, mapping(mapping(body)["spec"]))
        if method == "POST":
            return self._create(target, mapping(copy.deepcopy(body)))
        if target.name is None:
            assert method == "GET", f"nobody asks for {method} of many"
            assert headers["Accept"] == "application/json", "nobody lists metadata but the watch"
            return self._list(target, query)
        key = (target.plural, target.namespace, target.name)
        if key not in self.objects:
            raise RefusalError(404, f"{target.plural} {target.name!r} not found")
        old = self.objects[key]
        if method == "GET":
            return old
        if method == "DELETE":
            return self._delete(key, old)
        assert method == "PATCH", f"nobody asks for {method}"
        new = self._patched(old, headers["Content-Type"], body)
        if query.get("fieldValidation") == "Strict":
            unknown = list(_unknown(new, _schema(), ""))
            if unknown:
                names = ", ".join(f'unknown field "{name}"' for name in unknown)
                raise RefusalError(422, f"strict decoding error: {names}")
        return self._update(key, old, new, target.subresource)

    def _token_of(self, target: Target, spec: Wire) -> Wire:
        audiences = spec["audiences"]
        assert self.token is not None, "nobody has an identity"
        assert isinstance(audiences, list), f"not a list: {audiences!r}"
        (audience,) = audiences
        return {"status": {"token": self.token(target.namespace, text(target.name), text(audience))}}

    def _list(self, target: Target, query: dict[str, str]) -> Wire:
        """One page, as of when the list was begun."""
        token, limit = query.get("continue"), int(query["limit"])
        items = self.rests[token] if token else [
            wire
            for key, wire in sorted(self.objects.items())
            if key[0] == target.plural and target.namespace in ("", key[1])
        ]  # fmt: skip
        meta: Wire = {"resourceVersion": str(self.version)}
        page: list[Json] = [*items[:limit]]
        if len(items) > limit:
            more = f"{self.version}/{len(self.rests)}"
            self.rests[more] = items[limit:]
            meta |= {"continue": more, "remainingItemCount": len(items) - limit}
        return {"kind": "NodePoolMembershipList", "apiVersion": f"{GROUP}/{VERSION}", "metadata": meta, "items": page}

    def _patched(self, old: Wire, content_type: str, body: Json) -> Wire:
        if content_type == JSON_PATCH:
            try:
                new = jsonpatch.apply_patch(copy.deepcopy(old), json.dumps(body))
            except (jsonpatch.JsonPatchException, jsonpatch.JsonPointerException) as error:
                raise RefusalError(422, f"the patch cannot be applied: {error}") from error
            return mapping(new)
        assert content_type == _MERGE, f"nobody sends {content_type}"
        return mapping(_merge(old, copy.deepcopy(body)))

    def _create(self, target: Target, body: Wire) -> Wire:
        meta = mapping(body["metadata"])
        key = (target.plural, target.namespace, text(meta["name"]))
        if key in self.objects:
            raise RefusalError(409, f"{target.plural} {key[2]!r} already exists")
        if target.plural == PLURAL:
            body.pop("status", None)
            body = mapping(_with_defaults(body, _schema()))
        body["metadata"] = {
            **meta,
            **({"namespace": target.namespace} if target.namespace else {}),
            "uid": str(uuid.uuid5(uuid.NAMESPACE_URL, f"{key}/{self.version}")),
            "generation": 1,
            "creationTimestamp": self._moment(),
        }
        return self._store(key, None, body)

    def _update(self, key: tuple[str, str, str], old: Wire, new: Wire, subresource: str | None) -> Wire:
        old_meta, meta = mapping(old["metadata"]), mapping(new["metadata"])
        if meta.get("resourceVersion") != old_meta["resourceVersion"]:
            raise RefusalError(409, "the object has been modified; please apply your changes to the latest version")
        if subresource == "status":
            new = {**old, "status": new.get("status", {})}
            new = mapping(_with_defaults(new, _schema()))
            _refuse_changed_job_ids(mapping(old.get("status")), mapping(new["status"]))
            return self._store(key, old, new)
        kept = {name: old_meta[name] for name in ("name", "namespace", "uid", "generation", "creationTimestamp")}
        meta = {**meta, **kept}
        if not meta.get("finalizers"):
            meta.pop("finalizers", None)
        deleting = "deletionTimestamp" in old_meta
        if deleting:
            meta["deletionTimestamp"] = old_meta["deletionTimestamp"]
            if not set(_finalizers(meta)) <= set(_finalizers(old_meta)):
                raise RefusalError(422, "no new finalizers can be added if the object is being deleted")
        if key[0] == PLURAL:
            new = mapping(_with_defaults({**new, "status": old["status"]}, _schema()))
            if new["spec"] != old["spec"]:
                meta["generation"] = _generation(old_meta) + 1
        new = {**new, "metadata": meta}
        if deleting and not _finalizers(meta):
            return self._drop(key, old, new)
        return self._store(key, old, new)

    def _delete(self, key: tuple[str, str, str], old: Wire) -> Wire:
        meta = mapping(old["metadata"])
        # A namespace goes when a controller has emptied it; here as on the control plane of the tests there is none.
        if not _finalizers(meta) and key[0] != NAMESPACES:
            return self._drop(key, old, old)
        if "deletionTimestamp" in meta:
            return old
        later: Wire = {"deletionTimestamp": self._moment(), "generation": _generation(meta) + 1}
        return self._store(key, old, {**old, "metadata": {**meta, **later}})

    def _store(self, key: tuple[str, str, str], old: Wire | None, new: Wire) -> Wire:
        if new == old:
            return new
        self.version += 1
        new = {**new, "metadata": {**mapping(new["metadata"]), "resourceVersion": str(self.version)}}
        self.objects[key] = new
        if key[0] == PLURAL:
            self.changed(old, new)
        return new

    def _drop(self, key: tuple[str, str, str], old: Wire, answer: Wire) -> Wire:
        del self.objects[key]
        if key[0] == PLURAL:
            self.changed(old, None)
        return answer

    def _moment(self) -> str:
        return self.now().strftime("%Y-%m-%dT%H:%M:%SZ")


def _metadata_only(wire: Wire) -> Wire:
    return {"kind": "PartialObjectMetadata", "apiVersion": _META, "metadata": wire["metadata"]}


def _finalizers(meta: Wire) -> list[str]:
    found = meta.get("finalizers") or []
    assert isinstance(found, list), f"not a list: {found!r}"
    return [text(name) for name in found]


def _generation(meta: Wire) -> int:
    generation = meta["generation"]
    assert isinstance(generation, int), f"not a number: {generation!r}"
    return generation


def _refuse_changed_job_ids(old: Wire, new: Wire) -> None:
    """The CRD's rule for a job's id: write-once."""
    after = {job["batch"]: job for job in _jobs(new)}
    for job in _jobs(old):
        later = after.get(job["batch"])
        if later is not None and "jobID" in job and later.get("jobID") != job["jobID"]:
            raise RefusalError(422, "status.jobs: jobID is written once")


def _jobs(status: Wire) -> list[Wire]:
    jobs = status.get("jobs") or []
    assert isinstance(jobs, list), f"not a list: {jobs!r}"
    return [mapping(job) for job in jobs]
