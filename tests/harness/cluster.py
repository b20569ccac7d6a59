"""The product installed on a test control plane, and memberships on it: make, read, change, wait.

Not for: starting the control plane. Reads and writes go straight to the API server over one connection; what a user
would see is asked of kubectl.
"""

import base64
import json
import ssl
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Self

import httpx
import yaml

from cce_simulator.config import CLUSTER_ID, NODE_POOL_ID, PROJECT_ID, SimulatorConfig
from controlplane import ControlPlane
from harness.programs import wait_for
from harness.sources import ROOT, copy_sources

Object = dict[str, object]

OPERATOR_NAMESPACE = "nodepool-membership"
OPERATOR_ACCOUNT = "nodepool-membership-operator"
CREDENTIALS_TYPE = "cce.nodepools.dev/credentials"
_GROUP = "/apis/cce.nodepools.dev/v1alpha1"
_LEASE = f"/apis/coordination.k8s.io/v1/namespaces/{OPERATOR_NAMESPACE}/leases/{OPERATOR_ACCOUNT}"
_METADATA_ONLY = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
_TABLE = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
_CREATING_AT_ONCE = 4


@dataclass(frozen=True)
class MembershipSpec:
    """A membership to create, with the simulator's defaults for pool and Secret."""

    name: str
    server_ids: Iterable[str]
    endpoint: str
    namespace: str
    cluster_id: str = CLUSTER_ID
    node_pool_id: str = NODE_POOL_ID
    project_id: str = PROJECT_ID
    secret: str | None = "cce-credentials"
    """None: `more` has an identityRef."""
    more: Mapping[str, object] = field(default_factory=dict)
    """Further fields of spec."""

    def manifest(self) -> Object:
        spec: Object = {
            "nodePool": {
                "endpoint": self.endpoint,
                "projectID": self.project_id,
                "clusterID": self.cluster_id,
                "nodePoolID": self.node_pool_id,
            },
            **({} if self.secret is None else {"credentialsRef": {"name": self.secret}}),
            "serverIDs": list(self.server_ids),
            **self.more,
        }
        return {
            "apiVersion": "cce.nodepools.dev/v1alpha1",
            "kind": "NodePoolMembership",
            "metadata": {"name": self.name, "namespace": self.namespace},
            "spec": spec,
        }


def connection(control_plane: ControlPlane, kubeconfig: Path) -> httpx.Client:
    """To the API server, with the token of this kubeconfig."""
    user = yaml.safe_load(kubeconfig.read_text())["users"][0]["user"]
    return httpx.Client(
        base_url=control_plane.url,
        verify=ssl.create_default_context(cafile=control_plane.ca_file),
        headers={"Authorization": f"Bearer {user['token']}"},
        trust_env=False,
        timeout=60,
    )


class Cluster:
    """A control plane with `deploy/` applied; a context manager for its connection."""

    def __init__(self, control_plane: ControlPlane) -> None:
        self.control_plane = control_plane
        self._http = connection(control_plane, control_plane.admin_kubeconfig)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    @property
    def http(self) -> httpx.Client:
        """The connection, as an administrator."""
        return self._http

    def install(self) -> None:
        """Apply `deploy/` as the README says."""
        self.control_plane.install_crd(ROOT / "crds" / "nodepoolmemberships.yaml")
        with tempfile.TemporaryDirectory() as folder:
            self.control_plane.kubectl("apply", "-k", str(copy_sources(Path(folder)) / "deploy"))
        self._wait_served()

    def start_apiserver(self) -> None:
        """Start the API server again and wait until it serves memberships, too."""
        self.control_plane.start_apiserver()
        self._wait_served()

    def _wait_served(self) -> None:
        """At first, and when the definition is made anew, the API server answers 429 for memberships."""
        path = f"{_GROUP}/nodepoolmemberships"
        wait_for("memberships are served", lambda: True if self._http.get(path).is_success else None)

    def operator_kubeconfig(self, *, seconds: int = 3600) -> Path:
        """A kubeconfig with a token of the service account that `deploy/` made: its rights, no more, for so long."""
        token = self.control_plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT, seconds=seconds)
        return self.control_plane.kubeconfig_for_token(token, name="operator")

    def create_secret(
        self, namespace: str, config: SimulatorConfig | None = None, *, name: str = "cce-credentials", **data: str
    ) -> None:
        """Create or replace a Secret: the simulator's first access key, or these values."""
        if config is not None:
            key = config.access_keys[0]
            data = {"accessKey": key.access_key, "secretKey": key.secret_key, **data}
        self.put_secret(namespace, name, data)

    def put_secret(
        self,
        namespace: str,
        name: str,
        data: Mapping[str, str],
        *,
        type: str = CREDENTIALS_TYPE,  # noqa: A002
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Create a Secret with exactly these values, in place of the one that is there."""
        path = f"/api/v1/namespaces/{namespace}/secrets"
        encoded = {k: base64.b64encode(v.encode()).decode() for k, v in data.items()}
        metadata = {"name": name, "labels": {**(labels or {})}}
        body = {"apiVersion": "v1", "kind": "Secret", "type": type, "metadata": metadata, "data": encoded}
        answer = self._http.put(f"{path}/{name}", json=body)
        if answer.status_code == httpx.codes.UNPROCESSABLE_ENTITY:
            # The type of a Secret cannot be changed.
            self._json(self._http.delete(f"{path}/{name}"))
        elif answer.status_code != httpx.codes.NOT_FOUND:
            self._json(answer)
            return
        self._json(self._http.post(path, json=body))

    def create(self, membership: MembershipSpec) -> Object:
        path = f"{_GROUP}/namespaces/{membership.namespace}/nodepoolmemberships"
        return self._json(self._http.post(path, json=membership.manifest()))

    def create_many(self, memberships: Iterable[MembershipSpec]) -> None:
        """Create several at a time; their manifests are made as they are sent, so that few are in memory."""

        def create(membership: MembershipSpec) -> None:
            path = f"{_GROUP}/namespaces/{membership.namespace}/nodepoolmemberships"
            self._json(self._http.post(path, json=membership.manifest(), headers=_METADATA_ONLY))

        with ThreadPoolExecutor(_CREATING_AT_ONCE) as creators:
            for _ in creators.map(create, memberships):
                pass

    def get(self, namespace: str, name: str) -> Object:
        """One membership as it is stored."""
        return self._json(self._http.get(self._path(namespace, name)))

    def stored_bytes(self, namespace: str, name: str) -> int:
        """Size of one membership as JSON, the form in which custom resources are stored."""
        response = self._http.get(self._path(namespace, name))
        response.raise_for_status()
        return len(response.content)

    def exists(self, namespace: str, name: str) -> bool:
        return self._http.get(self._path(namespace, name)).status_code != httpx.codes.NOT_FOUND

    def memberships(self) -> list[Object]:
        """Every membership, with what is stored of it."""
        items = self._json(self._http.get(f"{_GROUP}/nodepoolmemberships"))["items"]
        assert isinstance(items, list)
        return items

    def rows(self) -> list[dict[str, object]]:
        """Every membership as `kubectl get -o wide` shows it, by column title; cheap also where they are large."""
        table = self._json(
            self._http.get(f"{_GROUP}/nodepoolmemberships", headers=_TABLE, params={"includeObject": "None"})
        )
        columns, rows = table["columnDefinitions"], table.get("rows", [])
        assert isinstance(columns, list)
        assert isinstance(rows, list)
        titles = [str(column["name"]) for column in columns]
        return [dict(zip(titles, row["cells"], strict=True)) for row in rows]

    @contextmanager
    def watch(self, namespace: str, name: str) -> Iterator[Iterator[tuple[float, Object]]]:
        """States of one membership, the present one first, each with the `time.monotonic` of its arrival."""
        path = f"{_GROUP}/namespaces/{namespace}/nodepoolmemberships"
        query = {"watch": "true", "fieldSelector": f"metadata.name={name}"}
        with self._http.stream("GET", path, params=query) as response:
            response.raise_for_status()
            yield ((monotonic(), _watched(line)) for line in response.iter_lines())

    def metrics(self) -> str:
        """The API server's own metrics."""
        response = self._http.get("/metrics")
        response.raise_for_status()
        return response.text

    def lease(self) -> Object:
        """The spec of the operator's Lease."""
        spec = self._json(self._http.get(_LEASE)).get("spec", {})
        assert isinstance(spec, dict)
        return spec

    def write_lease(self, **spec: object) -> None:
        """Change the operator's Lease by hand."""
        headers = {"Content-Type": "application/merge-patch+json"}
        self._json(self._http.patch(_LEASE, content=json.dumps({"spec": spec}), headers=headers))

    def delete_lease(self) -> None:
        """Take the operator's Lease away, if there is one."""
        answer = self._http.delete(_LEASE)
        if answer.status_code != httpx.codes.NOT_FOUND:
            self._json(answer)

    def patch(
        self,
        namespace: str,
        name: str,
        body: Mapping[str, object],
        *,
        subresource: str = "",
        metadata_only: bool = False,
    ) -> Object:
        """A JSON merge patch of the object, or of a subresource such as `status`; returns what it is afterwards."""
        path = self._path(namespace, name) + (f"/{subresource}" if subresource else "")
        headers = {"Content-Type": "application/merge-patch+json", **(_METADATA_ONLY if metadata_only else {})}
        return self._json(self._http.patch(path, content=json.dumps(body), headers=headers))

    def delete(self, namespace: str, name: str) -> None:
        self._json(self._http.delete(self._path(namespace, name)))

    def clear(self, namespace: str) -> None:
        """Delete the memberships of a namespace, whatever finalizer is on them; nobody may be at work on them."""
        items = self._json(self._http.get(f"{_GROUP}/namespaces/{namespace}/nodepoolmemberships"))["items"]
        assert isinstance(items, list)
        for item in items:
            name = item["metadata"]["name"]
            self.delete(namespace, name)
            if self.exists(namespace, name):
                self.patch(namespace, name, {"metadata": {"finalizers": None}})

    def wait(
        self, namespace: str, name: str, what: str, until: Callable[[Object], bool], *, seconds: float = 60.0
    ) -> Object:
        """Return the object when `until` holds for it; the error shows its conditions."""
        last: Object = {}

        def ask() -> Object | None:
            nonlocal last
            last = self.get(namespace, name)
            return last if until(last) else None

        try:
            return wait_for(what, ask, seconds=seconds)
        except TimeoutError as error:
            raise TimeoutError(f"{error}; its status: {json.dumps(summary(last))}") from None

    def allows(self, review: Mapping[str, object]) -> bool:
        """What the API server answers to a SubjectAccessReview."""
        answer = self._json(self._http.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review))
        return bool(status(answer)["allowed"])

    def events(self, namespace: str) -> list[Object]:
        """Events of the namespace, oldest first."""
        items = self._json(self._http.get(f"/apis/events.k8s.io/v1/namespaces/{namespace}/events"))["items"]
        assert isinstance(items, list)
        return sorted(items, key=lambda event: str(event["eventTime"]))

    def _path(self, namespace: str, name: str) -> str:
        return f"{_GROUP}/namespaces/{namespace}/nodepoolmemberships/{name}"

    def _json(self, response: httpx.Response) -> Object:
        if response.is_error:
            raise AssertionError(f"{response.status_code} {response.text[:2000]}")
        document = response.json()
        assert isinstance(document, dict)
        return document


def _watched(line: str) -> Object:
    event = json.loads(line)
    if event["type"] == "ERROR":
        raise AssertionError(f"the watch ended: {line[:2000]}")
    found = event["object"]
    assert isinstance(found, dict)
    return found


def status(membership: Object) -> Object:
    found = membership.get("status", {})
    assert isinstance(found, dict)
    return found


def jobs(membership: Object) -> list[Object]:
    """The recorded batches, oldest first."""
    found = status(membership).get("jobs", [])
    assert isinstance(found, list)
    return found


def finalizers(membership: Object) -> list[str]:
    metadata = membership["metadata"]
    assert isinstance(metadata, dict)
    found = metadata.get("finalizers", [])
    assert isinstance(found, list)
    return found


def condition(membership: Object, kind: str = "Ready") -> Object:
    """The condition of this type, empty if there is none."""
    conditions = status(membership).get("conditions", [])
    assert isinstance(conditions, list)
    return next((c for c in conditions if c["type"] == kind), {})


def is_ready(membership: Object) -> bool:
    """Ready is True for the generation that the object has."""
    ready = condition(membership)
    metadata = membership["metadata"]
    assert isinstance(metadata, dict)
    return ready.get("status") == "True" and ready.get("observedGeneration") == metadata["generation"]


def has_reason(reason: str) -> Callable[[Object], bool]:
    return lambda membership: condition(membership).get("reason") == reason


def wait_for_the_next_second(membership: Object) -> None:
    """Wait until what is created next is younger: the API server keeps whole seconds."""
    metadata = membership["metadata"]
    assert isinstance(metadata, dict)
    created = datetime.fromisoformat(metadata["creationTimestamp"])
    wait_for("the next second", lambda: datetime.now(UTC) >= created + timedelta(seconds=1) or None)


def summary(membership: Object) -> Object:
    """Status without the long lists."""
    short = {k: v for k, v in status(membership).items() if k not in {"members", "jobs", "failures"}}
    jobs = status(membership).get("jobs", [])
    assert isinstance(jobs, list)
    short["jobs"] = [{k: v for k, v in job.items() if k != "serverIDs"} for job in jobs]
    return short
