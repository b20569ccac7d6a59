"""The cluster as the person who types sees it: login, namespace, one membership read or changed, errors with a remedy.

Not for: what is read or changed (`explain`, `servers`, `changes`). It has the rights of that person and no more.
"""

import json
import os
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from kubernetes.aio.config.config_exception import ConfigException
from kubernetes.aio.config.incluster_config import SERVICE_HOST_ENV_NAME
from kubernetes.aio.config.kube_config import list_kube_config_contexts

from nodepool_membership.api.membership import InvalidObjectError, Json, Membership, UnreadableStatus, parse_membership
from nodepool_membership.api.names import GROUP, KIND, PAUSED_ANNOTATION, PLURAL, VERSION
from nodepool_membership.core.observed.observation import NamespaceState
from nodepool_membership.kube.api import (
    METADATA_ONLY,
    METADATA_ONLY_LIST,
    SERVICE_ACCOUNT,
    KubeApi,
    NoClusterError,
    path,
)
from nodepool_membership.kube.errors import GoneError, KubeError, KubeForbiddenError, UnansweredError

_Context = Mapping[str, Mapping[str, str]]
_contexts_of: Callable[[str], tuple[Sequence[_Context], _Context]] = list_kube_config_contexts

FIELD_MANAGER: Final = "kubectl-npmem"
_STRICT: Final = {"fieldManager": FIELD_MANAGER, "fieldValidation": "Strict"}
_PAGE: Final = 20
"""Objects a page: each may have more than 1 MB."""
_MERGE_PATCH: Final = "application/merge-patch+json"
_RIGHTS: Final = (
    "the ClusterRoles nodepoolmembership-viewer and nodepoolmembership-editor have the rights that are needed"
)


class UnusableError(Exception):
    """What was asked for cannot be done; the text says why, and what to do."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where the memberships are that are meant, by the words of the command line."""

    namespace: str
    context: str | None = None

    def command(self, verb: str, *words: str) -> str:
        """What to type for another verb about the same place."""
        context = (f"--context={self.context}",) if self.context else ()
        return " ".join(("kubectl npmem", verb, f"-n {self.namespace}", *context, *words))


def default_namespace(context: str | None, environ: Mapping[str, str] = os.environ) -> str:
    """The namespace of the kubeconfig's context, as for kubectl; in a pod the pod's; else `default`.

    Raises:
        UnusableError: the kubeconfig cannot be read.
    """
    named = environ.get("KUBECONFIG") or str(Path(environ.get("HOME", "/")) / ".kube" / "config")
    in_pod = not environ.get("KUBECONFIG") and context is None and environ.get(SERVICE_HOST_ENV_NAME)
    if in_pod or not (environ.get("KUBECONFIG") or Path(named).is_file()):
        mine = SERVICE_ACCOUNT / "namespace"
        return mine.read_text().strip() if mine.is_file() else "default"
    try:
        contexts, current = _contexts_of(named)
    except (ConfigException, OSError, ValueError) as error:
        raise UnusableError(f"no login for the cluster: {error}") from None
    chosen = current if context is None else next((c for c in contexts if str(c["name"]) == context), current)
    return chosen["context"].get("namespace") or "default"


class Cluster:
    """One connection, to one namespace. Use `connect`."""

    def __init__(self, api: KubeApi, place: Target) -> None:
        self._api = api
        self.place = place

    @property
    def api(self) -> KubeApi:
        return self._api

    async def fetch(self, name: str) -> bytes:
        """A membership as the API server has it.

        Raises:
            UnusableError: there is none, or it cannot be read.
        """
        try:
            return await self._api.request("membership", "GET", self._path(name))
        except KubeError as error:
            raise await self._explained(error, name) from None

    async def read(self, name: str) -> Membership | UnreadableStatus:
        """A membership as the operator reads it.

        Raises:
            UnusableError: there is none, or nobody can read it.
        """
        raw = await self.fetch(name)
        try:
            return parse_membership(raw)
        except InvalidObjectError as error:
            text = f"{self.place.namespace}/{name} cannot be read, by the operator neither: {error}"
            raise UnusableError(
                f"{text}; correct that field, or bring this program up to the definition's version"
            ) from None

    async def patch(self, name: str, change: Json) -> None:
        """Change a membership by a merge patch.

        Raises:
            UnusableError: it was refused, or perhaps not taken up.
        """
        try:
            await self._api.request(
                "membership",
                "PATCH",
                self._path(name),
                query=_STRICT,
                body=change,
                content_type=_MERGE_PATCH,
                accept=METADATA_ONLY,
            )
        except KubeError as error:
            raise await self._explained(error, name) from None

    async def names(self) -> list[str]:
        """The memberships of the namespace.

        Raises:
            KubeError: they cannot be listed.
        """
        answer = await self._api.request("membership", "GET", self._path(), accept=METADATA_ONLY_LIST)
        return sorted(item["metadata"]["name"] for item in json.loads(answer).get("items") or ())

    async def others(self, uid: str, *, everywhere: bool) -> AsyncIterator[Membership | UnreadableStatus]:
        """The memberships beside this one, of the namespace or of all; whom nobody can read is left out.

        Raises:
            KubeError: they cannot be listed.
        """
        scope, token = path("/apis", GROUP, VERSION, PLURAL) if everywhere else self._path(), ""
        while True:
            query = {"limit": str(_PAGE), **({"continue": token} if token else {})}
            page = json.loads(await self._api.request("membership", "GET", scope, query=query))
            for item in page["items"]:
                try:
                    found = parse_membership(json.dumps(item).encode())
                except InvalidObjectError:
                    # It claims nothing: the operator cannot read it either.
                    continue
                if found.metadata.uid != uid:
                    yield found
            token = page["metadata"].get("continue") or ""
            if not token:
                return

    async def namespace_state(self) -> NamespaceState:
        """What is known of the namespace: whether it is paused, or being deleted. Nothing, where it cannot be read."""
        metadata = await self._namespace()
        leaving = metadata is not None and metadata.get("deletionTimestamp") is not None
        paused = ((metadata or {}).get("annotations") or {}).get(PAUSED_ANNOTATION)
        return NamespaceState("the namespace is being deleted, too" if leaving else None, paused)

    async def _namespace(self) -> dict[str, Any] | None:
        """The namespace's metadata; None where it cannot be read."""
        try:
            where = path("/api/v1/namespaces", self.place.namespace)
            answer = await self._api.request("namespace", "GET", where, accept=METADATA_ONLY)
        except KubeError:
            return None
        found: dict[str, Any] = json.loads(answer)["metadata"]
        return found

    def _path(self, *name: str) -> str:
        return path("/apis", GROUP, VERSION, "namespaces", self.place.namespace, PLURAL, *name)

    async def _explained(self, error: KubeError, name: str) -> UnusableError:
        match error:
            case GoneError():
                return await self._missing(name)
            case KubeForbiddenError():
                return UnusableError(f"not allowed: {error}; {_RIGHTS}")
            case UnansweredError():
                return UnusableError(f"the API server {self._api.login.server} does not answer: {error}")
            case _:
                return UnusableError(f"the API server refused it: {error}")

    async def _missing(self, name: str) -> UnusableError:
        try:
            if not await self._api.serves(GROUP, VERSION, PLURAL):
                text = f"the cluster does not know {PLURAL}.{GROUP}/{VERSION}"
                return UnusableError(f"{text}: install the operator (docs/install.md), or choose another --context")
            there = await self.names()
        except KubeError:
            there = []
        listed = f"; there is {', '.join(there[:5])}" + (" and more" if len(there) > 5 else "") if there else ""
        return UnusableError(f"no {KIND} {name!r} in namespace {self.place.namespace!r}{listed}")


@asynccontextmanager
async def connect(namespace: str | None, context: str | None) -> AsyncIterator[Cluster]:
    """Log in as kubectl does.

    Raises:
        UnusableError: there is no login.
    """
    try:
        place = Target(namespace or default_namespace(context), context)
        async with KubeApi.connect(context=context) as api:
            yield Cluster(api, place)
    except NoClusterError as error:
        raise UnusableError(str(error)) from None
