"""Reading and writing NodePoolMemberships: quorum reads, guarded and strict writes, answers as metadata only.

Not for: when to write what (`core`, `runtime`). Every write names the resourceVersion it was decided from (rule P3) and
returns the new one. Errors: `kube.errors`; none of them is retried here.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Final

from nodepool_membership import redaction
from nodepool_membership.api.membership import (
    Json,
    Membership,
    Metadata,
    UnreadableStatus,
    parse_membership,
    parse_page,
    status_json,
)
from nodepool_membership.api.names import FIELD_MANAGER, FINALIZER, GROUP, PAUSED_ANNOTATION, PLURAL, VERSION
from nodepool_membership.api.status import Condition, Status
from nodepool_membership.core.observed.observation import NamespaceState
from nodepool_membership.kube.api import JSON_PATCH, METADATA_ONLY, KubeApi, path
from nodepool_membership.kube.errors import GoneError, KubeForbiddenError, RejectedError, TooLargeError
from nodepool_membership.kube.pages import PageSize
from nodepool_membership.kube.patch import guard, status_patch
from nodepool_membership.shares import Shares, only

_STRICT: Final = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
_MIB: Final = 1 << 20
_BYTES_IN_FLIGHT: Final = 6 * _MIB
"""Four of the largest objects; two of one namespace."""
_LARGEST_OBJECT: Final = _MIB + _MIB // 2
"""etcd refuses requests above 1.5 MiB, so no stored object is larger."""

_EVERYWHERE: Final = path("/apis", GROUP, VERSION, PLURAL)
_TEXTS: Final = frozenset({"message"})
_ID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_IDS_OF_THE_CLOUD: Final = frozenset({"jobID", "lastJobID", "nodeIDs"})
_PAGE: Final = 50
"""Of whole objects, at most: a page is in memory several times over while it is read."""


class Memberships:
    """The resource on one API server."""

    def __init__(self, api: KubeApi, *, bytes_in_flight: int = _BYTES_IN_FLIGHT) -> None:
        self._api = api
        self._budget = Shares(bytes_in_flight)
        self._pages = PageSize(_PAGE)

    @asynccontextmanager
    async def open(self, namespace: str, name: str) -> AsyncIterator[Membership | UnreadableStatus | None]:
        """Read an object as it is now, and hold its size against the budget of bytes in flight until the block ends.

        A parsed object takes several times its wire size, so many workers with large objects must wait for one another.

        Raises:
            InvalidObjectError: metadata or spec do not read.
        """
        async with self._budget.hold(only(namespace), _LARGEST_OBJECT) as held:
            raw = await self._fetch(namespace, name)
            held.shrink(len(raw or b""))
            membership = parse_membership(raw) if raw is not None else None
            del raw
            yield membership

    async def read(self, namespace: str, name: str) -> Membership | UnreadableStatus | None:
        """Read an object as it is now (no cache); None if there is none.

        Takes nothing of the budget, so that it may be called inside `open`: after a conflict, say.

        Raises:
            InvalidObjectError: metadata or spec do not read.
        """
        raw = await self._fetch(namespace, name)
        return parse_membership(raw) if raw is not None else None

    async def all(self, namespaces: Iterable[str]) -> AsyncIterator[Membership | UnreadableStatus]:
        """Every object that is there and can be read; of all namespaces if none is given.

        A list costs the API server a fraction of what it costs to read each object by itself.
        """
        for scope in [path("/apis", GROUP, VERSION, "namespaces", n, PLURAL) for n in namespaces] or [_EVERYWHERE]:
            asked: asyncio.Task[bytes] | None = asyncio.create_task(self._page(scope, None))
            try:
                while asked is not None:
                    page, token = parse_page(await asked)
                    # The API server makes the next page while this one is worked.
                    asked = asyncio.create_task(self._page(scope, token)) if token else None
                    for found in page:
                        yield found
            finally:
                if asked is not None:
                    asked.cancel()

    async def _page(self, scope: str, token: str | None) -> bytes:
        """The page that follows `token`, of as many objects as their bytes allow."""
        while True:
            query = {"limit": str(self._pages.limit), **({"continue": token} if token else {})}
            try:
                answer = await self._api.request(
                    "membership", "GET", scope, query=query, max_bytes=self._pages.max_bytes
                )
            except TooLargeError:
                self._pages.too_large()
            else:
                self._pages.answered(len(answer))
                return answer

    async def _fetch(self, namespace: str, name: str) -> bytes | None:
        try:
            return await self._api.request("membership", "GET", _path(namespace, name))
        except GoneError:
            return None

    async def namespace_state(self, namespace: str) -> NamespaceState:
        """Whether namespace or definition are being deleted, with their objects (P20), or the namespace is paused.

        Raises:
            UnansweredError: the API server did not say; to be asked again.
        """
        paused: str | None = None
        definition = path("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", f"{PLURAL}.{GROUP}")
        for what, where in (("namespace", path("/api/v1/namespaces", namespace)), ("definition", definition)):
            try:
                answer = await self._api.request(what, "GET", where, accept=METADATA_ONLY)
            except GoneError:
                return NamespaceState(f"the {what} is gone")
            except (KubeForbiddenError, RejectedError) as error:
                return NamespaceState(f"it cannot be read whether the {what} is being deleted, too: {error}")
            metadata = json.loads(answer)["metadata"]
            if what == "namespace":
                paused = metadata.get("annotations", {}).get(PAUSED_ANNOTATION)
            if metadata.get("deletionTimestamp"):
                return NamespaceState(f"the {what} is being deleted, too", paused)
        return NamespaceState(paused=paused)

    async def write_status(self, metadata: Metadata, old: Status, new: Status) -> str:
        """Store `new` where `old` was read with `metadata`; returns the new resourceVersion. No write if equal.

        Raises:
            RejectedError: also when the installed CRD is older than this program and does not know a field.
        """
        patch = status_patch(status_json(old), _redacted(status_json(new)), metadata.resource_version)
        return await self._patch("status", metadata, patch, "status") if patch else metadata.resource_version

    async def write_conditions_only(
        self, metadata: Metadata, observed_generation: int, conditions: tuple[Condition, ...]
    ) -> str:
        """Store these two fields and leave the rest of a status that cannot be understood as it is (rule P24)."""
        wire = _redacted(status_json(Status(observed_generation=observed_generation, conditions=conditions)))
        patch: list[Json] = [guard(metadata.resource_version)]
        patch += [{"op": "add", "path": f"/status/{n}", "value": wire[n]} for n in ("observedGeneration", "conditions")]
        return await self._patch("status", metadata, patch, "status")

    async def add_finalizer(self, metadata: Metadata) -> str:
        """Put our finalizer on the object (rule P2); nothing is written if it is there.

        Raises:
            RejectedError: deletion began; the API server accepts no finalizer then.
        """
        if FINALIZER in metadata.finalizers:
            return metadata.resource_version
        return await self._write_finalizers(metadata, [*metadata.finalizers, FINALIZER])

    async def remove_finalizer(self, metadata: Metadata) -> str:
        """Take our finalizer off the object; nothing is written if it is not there."""
        if FINALIZER not in metadata.finalizers:
            return metadata.resource_version
        return await self._write_finalizers(metadata, [f for f in metadata.finalizers if f != FINALIZER])

    async def _write_finalizers(self, metadata: Metadata, finalizers: list[str]) -> str:
        patch: list[Json] = [guard(metadata.resource_version)]
        patch.append({"op": "add", "path": "/metadata/finalizers", "value": [*finalizers]})
        return await self._patch("finalizer", metadata, patch)

    async def _patch(self, kind: str, metadata: Metadata, patch: list[Json], *subresource: str) -> str:
        answer = await self._api.request(
            kind,
            "PATCH",
            _path(metadata.namespace, metadata.name, *subresource),
            query=_STRICT,
            body=patch,
            content_type=JSON_PATCH,
            accept=METADATA_ONLY,
        )
        return str(json.loads(answer)["metadata"]["resourceVersion"])


def _path(namespace: str, name: str, *subresource: str) -> str:
    return path("/apis", GROUP, VERSION, "namespaces", namespace, PLURAL, name, *subresource)


def _redacted(status: dict[str, Json]) -> dict[str, Json]:
    """The status without a secret that somebody echoed: in texts, and in the cloud's ids that do not look like one.

    All else is a word, a time or a mark of ours, or an id that the user wrote. Some tenant may have any of these as its
    secret key: taken out, it would be missing in the ledger of others (rule P1), or their status would be refused.
    """
    return {name: _redacted_field(name, value) for name, value in status.items()}


def _redacted_field(name: str, value: Json) -> Json:
    match value:
        case dict():
            return _redacted(value)
        case list():
            return [_redacted_field(name, part) for part in value]
        case str() if name in _TEXTS or (name in _IDS_OF_THE_CLOUD and not _ID.fullmatch(value)):
            return redaction.redact(value)
        case _:
            return value
