"""The JSON of nodes, jobs, pools and clusters as CCE sends it, odd spellings included.

Not for: deciding what they say; world does. A node document is about 3 KB; all but a dozen of its values are the same
within a pool, so it is rendered by filling a template, which keeps pages of 2,000 nodes at a few milliseconds.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from cce_simulator.config import DEFAULT_POOL, SUBNET_ID, VPC_ID


@dataclass(slots=True)
class Node:
    """A node as listings show it. `phase` and `pool_id` may be any string."""

    uid: str
    server_id: str
    pool_id: str
    name: str
    address: str
    created: str
    updated: str
    phase: str
    job_id: str | None = None
    gone: bool = False  # taken out of the world: later events of its life do nothing


@dataclass(slots=True)
class SubJob:
    """One server's part of a job."""

    uid: str
    server_id: str
    node: Node
    phase: str = "Initializing"
    reason: str = ""


@dataclass(slots=True)
class Job:
    """An add, remove or delete job. `ended` is seconds since 1970."""

    uid: str
    type: str
    sub_type: str
    cluster_id: str
    pool_id: str
    resource_name: str
    created: float
    updated: float
    subs: list[SubJob]
    phase: str = "Initializing"
    reason: str = ""
    ended: float | None = None


def go_time(seconds: float, digits: int = 6) -> str:
    """Seconds since 1970 as Go's `time.String()` prints them, with 6 to 9 fraction digits."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return f"{moment:%Y-%m-%d %H:%M:%S.%f}{'789'[: digits - 6]} +0000 UTC"


def _slot(number: int) -> str:
    return f"@@{number}@@"


_NAME, _UID, _CREATED, _UPDATED, _ADDRESS, _PHASE, _PROBE, _SERVER, _JOB = (_slot(n) for n in range(9))
_SLOTS = (_NAME, _UID, _CREATED, _UPDATED, _ADDRESS, _PHASE, _PROBE, _SERVER, _JOB)


def node_spec() -> dict[str, object]:
    """What a query returns of a pool's template; taints, k8sTags and userTags are left out as the API does."""
    volume = {"volumetype": "GPSSD", "size": 100, "extendParam": {"useType": "docker"}, "hw:passthrough": False}
    return {
        "flavor": "c7.2xlarge.4",
        "az": "cn-north-4a",
        "os": "Huawei Cloud EulerOS 2.0",
        "login": {"sshKey": "cluster-keypair", "userPassword": {}},
        "rootVolume": {"volumetype": "GPSSD", "size": 50, "extendParam": {}},
        "dataVolumes": [volume, {**volume, "size": 500, "extendParam": {"useType": "local"}}],
        "storage": {
            "storageSelectors": [
                {
                    "name": "cceUse",
                    "storageType": "evs",
                    "matchLabels": {
                        "size": "100", "volumeType": "GPSSD", "count": "1", "metadataEncrypted": "0",
                    },
                },
                {
                    "name": "user1",
                    "storageType": "evs",
                    "matchLabels": {
                        "size": "500", "volumeType": "GPSSD", "count": "1", "metadataEncrypted": "0",
                    },
                },
            ],
            "storageGroups": [
                {
                    "name": "vgpaas",
                    "cceManaged": True,
                    "selectorNames": ["cceUse"],
                    "virtualSpaces": [
                        {"name": "kubernetes", "size": "10%", "lvmConfig": {"lvType": "linear"}},
                        {"name": "runtime", "size": "90%", "runtimeConfig": {"lvType": "linear"}},
                    ],
                },
                {
                    "name": "vguser1",
                    "selectorNames": ["user1"],
                    "virtualSpaces": [
                        {"name": "user", "size": "100%", "lvmConfig": {"lvType": "linear", "path": "/data"}},
                    ],
                },
            ],
        },
        "publicIP": {"eip": {"bandwidth": {}}},
        "nodeNicSpec": {
            "primaryNic": {"subnetId": SUBNET_ID, "fixedIps": [_ADDRESS]},
        },
        "billingMode": 0,
        "runtime": {"name": "containerd"},
        "initializedConditions": ["CCEInitial:15m"],
        "ecsGroupId": "8c1d3b52-6f7e-4a39-9a0d-2f0d6a5b1c3e",
        "extendParam": {
            "DockerLVMConfigOverride": "dockerThinpool=vgpaas/90%VG;kubernetesLV=vgpaas/10%VG;diskType=evs",
            "agency_name": "", "alpha.cce/NodeImageID": "5a0f3c9c-6a1d-4b5e-9c53-8f9d2c1a7b64", "dockerBaseSize": 0,
            "kubeReservedCpu": 75, "kubeReservedMem": 2405, "kubeReservedPid": 0, "kubeReservedStorage": 0,
            "systemReservedCpu": 95, "systemReservedMem": 400, "maxPods": 110, "publicKey": "", "chargingMode": 0,
            "securityReinforcementType": "null", "nicThreshold": "0.3:0.6", "nicWarmPolicy": "none",
        },
        "hostnameConfig": {"type": "privateIp"},
        "serverEnterpriseProjectID": "0",
    }  # fmt: skip


class NodeTemplate:
    """Renders the nodes of one pool."""

    def __init__(self, pool_id: str, pool_name: str | None, *, owner_references: bool) -> None:
        metadata: dict[str, object] = {
            "name": _NAME,
            "uid": _UID,
            "creationTimestamp": _CREATED,
            "updateTimestamp": _UPDATED,
            "annotations": {
                "kubernetes.io/node-pool.id": pool_id,
                "kubernetes.io/project.id": "cce",
                "node.cce.io/created-by": "nodepool-adoption",
            },
        }
        if owner_references and pool_name is not None:
            metadata["ownerReferences"] = {"nodepoolName": pool_name, "nodepoolID": pool_id}
        status: dict[str, object] = {
            "phase": _PHASE,
            "lastProbeTime": _PROBE,
            "serverId": _SERVER,
            "privateIP": _ADDRESS,
            "publicIP": "",
            "deleteStatus": {},
            "configurationUpToDate": True,
            "jobID": _JOB,
        }
        document = {
            "kind": "Node",
            "apiVersion": "v3",
            "metadata": metadata,
            "spec": node_spec(),
            "status": status,
        }
        text = json.dumps(document, separators=(",", ":")).replace("%", "%%")
        text = text.replace(f',"jobID":"{_JOB}"', _JOB)
        # The address stands twice; named fields cost a dict a node, so the order of the slots is what is kept.
        self._order = sorted(((at, slot) for slot in _SLOTS for at in _positions(text, slot)), key=lambda pair: pair[0])
        for slot in _SLOTS:
            text = text.replace(slot, "%s")
        self._text = text
        self._indexes = tuple(_SLOTS.index(slot) for _, slot in self._order)

    def render(self, node: Node, probe_time: str) -> str:
        job = "" if node.job_id is None else f',"jobID":"{node.job_id}"'
        values = (
            node.name, node.uid, node.created, node.updated, node.address, node.phase, probe_time, node.server_id, job,
        )  # fmt: skip
        return self._text % tuple([values[index] for index in self._indexes])


def _positions(text: str, slot: str) -> Iterable[int]:
    at = text.find(slot)
    while at >= 0:
        yield at
        at = text.find(slot, at + 1)


def node_page(items: list[str], *, page_info: bool, next_marker: str | None) -> bytes:
    """A ListNodes answer; `nextMarker` is absent on the last page."""
    info = ""
    if page_info:
        page: dict[str, object] = {"currentCount": len(items)}
        if next_marker is not None:
            page["nextMarker"] = next_marker
        info = f',"pageInfo":{json.dumps(page)}'
    return f'{{"kind":"List","apiVersion":"v3","items":[{",".join(items)}]{info}}}'.encode()


def job_document(job: Job, *, sub_jobs: str, sub_job_server_id: bool) -> dict[str, object]:
    """The root job. `sub_jobs`: embedded, separate (bare references) or none; see config.Behaviour."""
    spec: dict[str, object] = {
        "type": job.type,
        "clusterUID": job.cluster_id,
        "resourceID": "",
        "resourceName": job.resource_name,
    }
    if sub_jobs == "embedded":
        spec["subJobs"] = [sub_job_document(job, sub, server_id=sub_job_server_id) for sub in job.subs]
    elif sub_jobs == "separate":
        spec["subJobs"] = [
            {"metadata": {"uid": sub.uid}, "spec": {"type": job.sub_type}, "status": {"phase": sub.phase}}
            for sub in job.subs
        ]
    return _job(job, job.uid, spec, job.phase, job.reason)


def sub_job_document(job: Job, sub: SubJob, *, server_id: bool) -> dict[str, object]:
    """One sub job; `resourceID` is empty until it runs."""
    started = sub.phase != "Initializing"
    spec: dict[str, object] = {
        "type": job.sub_type,
        "clusterUID": job.cluster_id,
        "resourceID": sub.node.uid if started else "",
        "resourceName": sub.node.name,
    }
    if server_id:
        spec["extendParam"] = {"serverID": sub.server_id}
    return _job(job, sub.uid, spec, sub.phase, sub.reason)


def _job(job: Job, uid: str, spec: dict[str, object], phase: str, reason: str) -> dict[str, object]:
    status = {"phase": phase, "reason": reason} if reason else {"phase": phase}
    return {
        "kind": "Job",
        "apiVersion": "v3",
        "metadata": {
            "uid": uid,
            "creationTimestamp": go_time(job.created),
            "updateTimestamp": go_time(job.updated, 7),
        },
        "spec": spec,
        "status": status,
    }


@dataclass(frozen=True, slots=True)
class PoolCounts:
    current: int  # without the ones being deleted
    active: int
    deleting: int


def pool_document(
    uid: str, name: str, phase: str, initial_node_count: int, counts: PoolCounts, created: float
) -> dict[str, object]:
    """A node pool; `status.phase` is absent while the pool is usable, and the job id is spelt `jobId`."""
    status: dict[str, object] = {
        "currentNode": counts.current,
        "creatingNode": 0,
        "deletingNode": counts.deleting,
        "activeNode": counts.active,
        "jobId": "",
        "conditions": [
            {
                "type": "Scalable",
                "status": "True" if not phase else "False",
                "lastProbeTime": go_time(created),
                "lastTransitTime": go_time(created),
            }
        ],
    }
    if phase:
        status["phase"] = phase
    template = {name: value for name, value in node_spec().items() if name != "nodeNicSpec"}
    return {
        "kind": "NodePool",
        "apiVersion": "v3",
        "metadata": {
            "name": name,
            "uid": uid,
            "annotations": {},
            "resourceVersion": "1",
            "creationTimestamp": go_time(created),
            "updateTimestamp": go_time(created),
        },
        "spec": {
            "type": "vm" if uid != DEFAULT_POOL else "",
            "nodeTemplate": template,
            "initialNodeCount": initial_node_count,
            "autoscaling": {"enable": False},
            "nodeManagement": {},
        },
        "status": status,
    }


def cluster_document(uid: str, name: str, phase: str, created: float) -> dict[str, object]:
    return {
        "kind": "Cluster",
        "apiVersion": "v3",
        "metadata": {
            "name": name,
            "uid": uid,
            "creationTimestamp": go_time(created),
            "updateTimestamp": go_time(created),
        },
        "spec": {
            "category": "CCE",
            "type": "VirtualMachine",
            "flavor": "cce.s2.xlarge",
            "version": "v1.33",
            "hostNetwork": {"vpc": VPC_ID, "subnet": SUBNET_ID},
            "containerNetwork": {"mode": "vpc-router", "cidr": "172.16.0.0/16"},
            "billingMode": 0,
        },
        "status": {"phase": phase, "endpoints": []},
    }
