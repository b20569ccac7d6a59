"""What is known of a server, of the pool's template and of the cluster's network: the fields that rules compare.

Not for: the documents themselves (`cce.server_wire`, `cce.wire`), which hold passwords' hashes and are never kept.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from nodepool_membership.api.reasons import Reason

CCE_NODE_TAG: Final = "CCE-Dynamic-Provisioning-Node"
"""CCE's own mark of a server that it has made a node; its value is the node's uid."""
CCE_CLUSTER_TAG: Final = "CCE-Cluster-ID"


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk. `gib` is 0 where the size is not known, `kind` empty where its type is not."""

    volume_id: str
    gib: int = 0
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.gib} GiB {self.kind}".rstrip()


@dataclass(frozen=True, slots=True)
class Server:
    """One server as ECS or BMS described it. What is empty, 0 or None was not told, and no rule speaks of it."""

    server_id: str
    status: str
    task: str = ""
    project_id: str = ""
    charging: str = ""
    """`0` pay per use, `1` yearly or monthly, `2` spot."""
    vpc_id: str = ""
    subnets: frozenset[str] = frozenset()
    ports: int = 0
    """Network interfaces."""
    has_ipv6: bool = False
    flavor: str = ""
    zone: str = ""
    vcpus: int = 0
    memory_mib: int = 0
    groups: frozenset[str] = frozenset()
    """Server groups."""
    reservation: str = ""
    enterprise_project: str = ""
    system_disk: Disk | None = None
    disks: tuple[Disk, ...] | None = None
    """The data disks."""
    bare_metal: bool = False
    frozen: bool = False
    locked: bool = False
    terminates: str = ""
    os_type: str = ""
    tags: Mapping[str, str] = field(default_factory=dict, repr=False)
    tells_tags: bool = False
    """The document has a list of tags, which may be empty."""

    @property
    def is_in_no_cluster(self) -> bool:
        """Whether its own document proves that: it tells its tags, and CCE's are not among them.

        No page says that CCE tags bare metal servers.
        """
        return self.tells_tags and not self.bare_metal and not {CCE_NODE_TAG, CCE_CLUSTER_TAG} & self.tags.keys()

    @property
    def node_uid(self) -> str:
        """The uid of the node that CCE's tag names; empty without the tag."""
        return self.tags.get(CCE_NODE_TAG, "").lower()


@dataclass(frozen=True, slots=True)
class Group:
    """Flavor and zone of one scale group of a pool; empty where any will do."""

    flavor: str = ""
    zone: str = ""
    reservation: str = ""
    autoscaling: bool = False


@dataclass(frozen=True, slots=True)
class Template:
    """What a node pool asks of a server, and the hash of what it installs."""

    digest: str = ""
    """Of the node template as it was read; changes with it."""
    kind: str = ""
    """`vm`, `ElasticBMS` or `pm`."""
    subnets: frozenset[str] = frozenset()
    billing: str = ""
    groups: tuple[Group, ...] = ()
    """The pool's own first."""
    server_group: str = ""
    enterprise_project: str = ""
    system_disk: Disk | None = None
    disks: tuple[Disk, ...] | None = None
    """The data disks."""
    desired_nodes: int | None = None
    autoscaling: bool = False


@dataclass(frozen=True, slots=True)
class Flavor:
    """How many network interfaces a flavor lets its servers have; None where that was not told."""

    interfaces: int | None = None
    sub_interfaces: int | None = None
    """Supplementary ones."""


@dataclass(frozen=True, slots=True)
class Network:
    """What a cluster asks of a server."""

    vpc_id: str = ""
    subnet_id: str = ""
    ipv6: bool = False
    enterprise_project: str = ""
    keeps_projects_apart: bool = False
    """Servers of other enterprise projects may not join."""
    turbo: bool = False
    """Containers have network interfaces of their own."""


def subnets_of(template: Template, network: Network) -> frozenset[str]:
    """The ids of the subnets that a pool's servers may be in, as the two documents name them."""
    return template.subnets or frozenset(filter(None, (network.subnet_id,)))


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """Why servers could not be read, in words for the user."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was read of the servers that a call would name.

    A server that was asked for and is neither in `servers` nor in `unread` does not exist, or not for this credential.
    """

    began: datetime
    """When the first question was asked."""
    asked: frozenset[str]
    servers: Mapping[str, Server] = field(default_factory=dict)
    unread: frozenset[str] = frozenset()
    why: ReadFailure | None = None
    """Why some could not be read: the first trouble that was met."""
    nodes: Mapping[str, bool] = field(default_factory=dict)
    """Whether the node that a server's CCE tag names exists, by its uid; what could not be found out is not there."""
    ipv6_by_subnet: Mapping[str, bool] = field(default_factory=dict)
    """Further ids of the pool's subnets, as the APIs name one by different ids, and whether it has IPv6."""
    flavors: Mapping[str, Flavor] = field(default_factory=dict)
    """Those of the servers; read for Turbo clusters only."""

    def merged(self, earlier: "Inspection | None") -> "Inspection":
        """This one with what an earlier one of the same reconcile has shown."""
        if earlier is None:
            return self
        return Inspection(
            min(self.began, earlier.began),
            self.asked | earlier.asked,
            {**earlier.servers, **self.servers},
            self.unread | earlier.unread,
            self.why or earlier.why,
            {**earlier.nodes, **self.nodes},
            {**earlier.ipv6_by_subnet, **self.ipv6_by_subnet},
            {**earlier.flavors, **self.flavors},
        )
