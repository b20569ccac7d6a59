"""Memberships on the test control plane: made, read and changed by raw requests.

Not for: what the operator does with them.
"""

import asyncio
import json
import uuid
from contextlib import AbstractAsyncContextManager

from controlplane import ControlPlane
from nodepool_membership.api.names import API_VERSION, GROUP, KIND, PLURAL, VERSION
from nodepool_membership.kube.api import KubeApi, path

Object = dict[str, object]


def connect(control_plane: ControlPlane) -> AbstractAsyncContextManager[KubeApi]:
    """A connection as the admin."""
    return KubeApi.connect(environ={"KUBECONFIG": str(control_plane.admin_kubeconfig)})


def server_ids(count: int) -> list[str]:
    return sorted(str(uuid.UUID(int=0x1000 + n)) for n in range(count))


def manifest(name: str, ids: list[str]) -> dict[str, object]:
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"name": name},
        "spec": {
            "nodePool": {
                "region": "cn-north-4",
                "projectID": "0123456789abcdef0123456789abcdef",
                "clusterID": "11111111-2222-3333-4444-555555555555",
                "nodePoolID": "66666666-7777-8888-9999-000000000000",
            },
            "credentialsRef": {"name": "cce-credentials"},
            "serverIDs": ids,
        },
    }


def object_path(namespace: str, *rest: str) -> str:
    return path("/apis", GROUP, VERSION, "namespaces", namespace, PLURAL, *rest)


async def create(api: KubeApi, namespace: str, name: str, ids: list[str]) -> None:
    body = json.loads(json.dumps(manifest(name, ids)))
    await api.request("test", "POST", object_path(namespace), body=body)


async def create_many(api: KubeApi, namespace: str, names: list[str], ids: list[str]) -> None:
    for start in range(0, len(names), 50):
        await asyncio.gather(*(create(api, namespace, name, ids) for name in names[start : start + 50]))


async def merge(api: KubeApi, namespace: str, name: str, change: str, *subresource: str) -> None:
    """Change an object by a merge patch, given as JSON text."""
    await api.request(
        "test",
        "PATCH",
        object_path(namespace, name, *subresource),
        body=json.loads(change),
        content_type="application/merge-patch+json",
    )
