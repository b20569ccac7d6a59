"""What a node pool and its cluster ask of a server, read from their documents.

Not for: their states (`wire`), or comparing (`core.preflight.rules`). Of a template nothing is kept but a hash and the
fields that rules read. Source: https://support.huaweicloud.com/intl/en-us/api-cce/cce_02_0355.html.
"""

import json
import re
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field

from nodepool_membership.api.codec import digest
from nodepool_membership.cce.lenient import MAX_PARTS, Number, Reservation, Text, Texts, a_list, table, tables
from nodepool_membership.core.preflight.facts import Disk, Group, Network, Template

_VERSION: Final = re.compile(r"v?1\.(\d+)(?:\.(\d+))?(?:-.*)?", re.ASCII)
_FLAVOR: Final = re.compile(r"cce\.[a-z]?s\d\.(small|medium|large|xlarge)", re.ASCII)
_MOST_NODES: Final = {"small": 50, "medium": 200, "large": 1000, "xlarge": 2000}
"""How many nodes a cluster takes by its flavor; larger ones are made by ticket, and say nothing by it.

Source: https://support.huaweicloud.com/intl/en-us/api-cce/cce_02_0236.html.
"""
_MIXED_FROM: Final = {21: 15, 23: 14, 25: 9, 27: 6, 28: 4}
"""From which patch of a minor version on servers of other enterprise projects may join; newer minors all let them."""


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Nic(BaseModel):
    subnet: Text = Field(default="", alias="subnetId")
    subnets: Texts = Field(default_factory=list, alias="subnetList")


class _Nics(BaseModel):
    primary: Annotated[_Nic, BeforeValidator(table)] = Field(default_factory=_Nic, alias="primaryNic")


class _Volume(BaseModel):
    size: Number = 0
    kind: Text = Field(default="", alias="volumetype")

    def disk(self) -> Disk:
        return Disk("", self.size, self.kind)


class _Node(BaseModel):
    flavor: Text = ""
    zone: Text = Field(default="", alias="az")
    billing: Text = Field(default="", alias="billingMode")
    nics: Annotated[_Nics, BeforeValidator(table)] = Field(default_factory=_Nics, alias="nodeNicSpec")
    root: Annotated[_Volume | None, BeforeValidator(table)] = Field(default=None, alias="rootVolume")
    volumes: Annotated[list[_Volume], BeforeValidator(tables)] | None = Field(default=None, alias="dataVolumes")
    enterprise_project: Text = Field(default="", alias="serverEnterpriseProjectID")


class _Autoscaling(BaseModel):
    enable: Text = ""


class _GroupSpec(BaseModel):
    flavor: Text = ""
    zone: Text = Field(default="", alias="az")
    reservation: Annotated[Reservation, BeforeValidator(table)] = Field(
        default_factory=Reservation, alias="capacityReservationSpecification"
    )
    autoscaling: Annotated[_Autoscaling, BeforeValidator(table)] = Field(default_factory=_Autoscaling)


class _GroupDocument(BaseModel):
    spec: Annotated[_GroupSpec, BeforeValidator(table)] = Field(default_factory=_GroupSpec)


class _Management(BaseModel):
    server_group: Text = Field(default="", alias="serverGroupReference")


class PoolSpec(BaseModel):
    """The `spec` of a node pool."""

    kind: Text = Field(default="", alias="type")
    node: Annotated[dict[str, object], BeforeValidator(table)] = Field(default_factory=dict, alias="nodeTemplate")
    desired: Annotated[int | None, BeforeValidator(_count)] = Field(default=None, alias="initialNodeCount")
    autoscaling: Annotated[_Autoscaling, BeforeValidator(table)] = Field(default_factory=_Autoscaling)
    management: Annotated[_Management, BeforeValidator(table)] = Field(
        default_factory=_Management, alias="nodeManagement"
    )
    groups: Annotated[list[object], BeforeValidator(a_list)] = Field(default_factory=list, alias="extensionScaleGroups")

    def template(self) -> Template:
        """What the pool asks of a server; flavor and zone of a further group are the pool's own where it names none."""
        node = _Node.model_validate(self.node)
        own = Group(node.flavor, node.zone)
        further = [_GroupDocument.model_validate(group).spec for group in tables(self.groups)[:MAX_PARTS]]
        groups = [
            Group(g.flavor or own.flavor, g.zone or own.zone, g.reservation.asked, g.autoscaling.enable == "true")
            for g in further
        ]
        nic = node.nics.primary
        disks = None if node.volumes is None else tuple(volume.disk() for volume in node.volumes[:MAX_PARTS])
        return Template(
            digest=digest(json.dumps(self.node, sort_keys=True, separators=(",", ":"))) if self.node else "",
            kind=self.kind,
            subnets=frozenset(s.lower() for s in (nic.subnets or [nic.subnet]) if s),
            billing=node.billing,
            groups=(own, *groups) if node.flavor or node.zone else tuple(groups),
            server_group=self.management.server_group.lower(),
            enterprise_project=node.enterprise_project.lower(),
            system_disk=None if node.root is None else node.root.disk(),
            disks=disks,
            desired_nodes=self.desired,
            autoscaling=self.autoscaling.enable == "true",
        )


class _Condition(BaseModel):
    type: Text = ""
    status: Text = ""


_HINDERS: Final = frozenset({"Scalable=False", "LockedByOrder=True", "Error=True"})
"""Conditions by which a pool says that it may take no nodes."""


def hindering(conditions: object) -> tuple[str, ...]:
    """Those of a pool's `status.conditions`, sorted."""
    told = map(_Condition.model_validate, tables(conditions))
    return tuple(sorted({f"{condition.type}={condition.status}" for condition in told} & _HINDERS))


class _HostNetwork(BaseModel):
    vpc: Text = ""
    subnet: Text = ""


class _Extend(BaseModel):
    enterprise_project: Text = Field(default="", alias="enterpriseProjectId")


class ClusterSpec(BaseModel):
    """The `spec` of a cluster."""

    flavor: Text = ""
    category: Text = ""
    version: Text = ""
    ipv6: Text = Field(default="", alias="ipv6enable")
    host_network: Annotated[_HostNetwork, BeforeValidator(table)] = Field(
        default_factory=_HostNetwork, alias="hostNetwork"
    )
    extend: Annotated[_Extend, BeforeValidator(table)] = Field(default_factory=_Extend, alias="extendParam")

    @property
    def most_nodes(self) -> int | None:
        """How many nodes the cluster takes."""
        found = _FLAVOR.fullmatch(self.flavor)
        return None if found is None else _MOST_NODES[found[1]]

    def network(self) -> Network:
        """What the cluster asks of a server."""
        return Network(
            vpc_id=self.host_network.vpc.lower(),
            subnet_id=self.host_network.subnet.lower(),
            ipv6=self.ipv6 == "true",
            turbo=self.category == "Turbo",
            enterprise_project=self.extend.enterprise_project.lower(),
            keeps_projects_apart=_keeps_projects_apart(self.version),
        )


def _keeps_projects_apart(version: str) -> bool:
    """Whether servers of another enterprise project certainly may not join; not said where the version is not clear."""
    found = _VERSION.fullmatch(version.strip())
    if found is None:
        return False
    minor = int(found[1])
    if minor not in _MIXED_FROM:
        return minor < max(_MIXED_FROM)
    return found[2] is not None and int(found[2]) < _MIXED_FROM[minor]
