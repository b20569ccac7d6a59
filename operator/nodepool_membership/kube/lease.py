"""The Lease that replicas compete for (`coordination.k8s.io/v1`): read, made where it is absent, written under guard.

A Lease of ours carries a label. One without it that somebody holds or held is another program's, and is left alone.

Not for: who may take it and when (`runtime.scheduling.leader`). Times in it are for people: they are written, never
read.
"""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import COMPONENT, FIELD_MANAGER
from nodepool_membership.kube.api import SERVICE_ACCOUNT, KubeApi, path
from nodepool_membership.kube.errors import ForeignLeaseError, GoneError, KubeForbiddenError, RejectedError

_GROUP: Final = "coordination.k8s.io"
_DEFAULT_NAMESPACE: Final = "nodepool-membership"
_MERGE_PATCH: Final = "application/merge-patch+json"
_MARK: Final = ("app.kubernetes.io/name", "nodepool-membership")
"""The label of every Lease that this operator made or holds."""


@dataclass(frozen=True, slots=True)
class Holding:
    """The spec of a Lease."""

    holder: str = ""
    """Empty: nobody, it may be taken at once."""
    duration_seconds: int = 0
    """How long it holds without being renewed, as its holder says; 0: it does not say."""
    acquire_time: str = ""
    renew_time: str = ""
    transitions: int = 0
    """How often it changed hands."""


@dataclass(frozen=True, slots=True)
class Lease:
    """A Lease as it was read, or as it was after a write."""

    resource_version: str
    holding: Holding


def lease_namespace(environ: Mapping[str, str] = os.environ, service_account: Path = SERVICE_ACCOUNT) -> str:
    """Where the Lease is: in $POD_NAMESPACE, else in the service account's, else where `deploy/` puts it."""
    try:
        return environ.get("POD_NAMESPACE") or (service_account / "namespace").read_text().strip() or _DEFAULT_NAMESPACE
    except OSError:
        return _DEFAULT_NAMESPACE


def micro_time(moment: datetime) -> str:
    """A moment in UTC the way `metav1.MicroTime` is written."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class LeaseObject:
    """The one Lease of the operator on one API server."""

    def __init__(self, api: KubeApi, namespace: str, name: str = COMPONENT) -> None:
        self._api = api
        self._namespace = namespace
        self._name = name

    def __str__(self) -> str:
        return f"{self._namespace}/{self._name}"

    async def read(self, *, timeout_seconds: float) -> Lease:
        """The Lease as it is now; where there is none, it is made first, held by nobody.

        Raises:
            StaleError: somebody else made it meanwhile.
            KubeForbiddenError, GoneError: it cannot be read or made; the text says what to do.
            ForeignLeaseError: it is another program's.
            KubeError: it could not be read.
        """
        try:
            return _parse(await self._api.request("lease", "GET", self._path(), timeout_seconds=timeout_seconds))
        except GoneError:
            return await self._create(timeout_seconds)
        except KubeForbiddenError as error:
            remedy = f"the Role in {self._namespace} must name what --lease-name says, {self._name!r}"
            raise KubeForbiddenError(f"it may not be read: {remedy}; {error}") from None

    async def _create(self, timeout_seconds: float) -> Lease:
        body: Json = {
            "apiVersion": f"{_GROUP}/v1",
            "kind": "Lease",
            "metadata": {"name": self._name, "namespace": self._namespace, "labels": dict([_MARK])},
        }
        try:
            answer = await self._api.request(
                "lease",
                "POST",
                path("/apis", _GROUP, "v1", "namespaces", self._namespace, "leases"),
                query={"fieldManager": FIELD_MANAGER},
                body=body,
                timeout_seconds=timeout_seconds,
            )
        except KubeForbiddenError as error:
            remedy = f"grant create on leases in {self._namespace}, or run one replica with --no-leader-elect"
            raise KubeForbiddenError(f"there is none and it may not be made: {remedy}; {error}") from None
        except GoneError:
            remedy = "create it, or name the operator's own with --lease-namespace"
            raise GoneError(f"there is no namespace {self._namespace!r}: {remedy}") from None
        return _parse(answer)

    async def write(self, lease: Lease, holding: Holding, *, timeout_seconds: float) -> Lease:
        """Store `holding` where `lease` was read.

        Raises:
            StaleError: it changed since: the race is lost.
            UnansweredError: it may have been stored.
            KubeError: it was not.
        """
        body: Json = {
            "metadata": {"resourceVersion": lease.resource_version, "labels": dict([_MARK])},
            "spec": {
                "holderIdentity": holding.holder,
                "leaseDurationSeconds": holding.duration_seconds,
                "acquireTime": holding.acquire_time,
                "renewTime": holding.renew_time,
                "leaseTransitions": holding.transitions,
            },
        }
        answer = await self._api.request(
            "lease",
            "PATCH",
            self._path(),
            query={"fieldManager": FIELD_MANAGER},
            body=body,
            content_type=_MERGE_PATCH,
            timeout_seconds=timeout_seconds,
        )
        return _parse(answer)

    def _path(self) -> str:
        return path("/apis", _GROUP, "v1", "namespaces", self._namespace, "leases", self._name)


def _parse(raw: bytes) -> Lease:
    try:
        wire = json.loads(raw)
        spec = wire.get("spec") or {}
        holding = Holding(
            holder=str(spec.get("holderIdentity") or ""),
            duration_seconds=int(spec.get("leaseDurationSeconds") or 0),
            acquire_time=str(spec.get("acquireTime") or ""),
            renew_time=str(spec.get("renewTime") or ""),
            transitions=int(spec.get("leaseTransitions") or 0),
        )
        version, labels = str(wire["metadata"]["resourceVersion"]), wire["metadata"].get("labels") or {}
        marked = labels.get(_MARK[0]) == _MARK[1]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise RejectedError("the API server's answer for a Lease cannot be read") from None
    if not marked and (holding.holder or holding.renew_time or holding.transitions):
        holder = f"held by {holding.holder!r}" if holding.holder else "held by nobody now"
        remedy = f"name another with --lease-name, or, if it is the operator's, label it {'='.join(_MARK)}"
        raise ForeignLeaseError(f"it is another program's, {holder}: {remedy}")
    return Lease(version, holding)
