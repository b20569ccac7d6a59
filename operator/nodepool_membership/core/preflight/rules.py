"""The rules by which a server is held against the pool: a table of small checks, in the order in which they are told.

Not for: reading servers (`cce.servers`), or what becomes of one that breaks a rule (`judge`). Each check compares
fields of the two documents; where one was not told, it says nothing. Sources: the pages of CCE on accepting nodes
(https://support.huaweicloud.com/intl/en-us/usermanual-cce/cce_10_0886.html) and on what a node pool's nodes share.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nodepool_membership.api.reasons import FailureReason, FindingReason
from nodepool_membership.core.preflight.facts import (
    CCE_NODE_TAG,
    Disk,
    Group,
    Inspection,
    Network,
    Server,
    Template,
    subnets_of,
)

MIN_VCPUS: Final = 2
MIN_MEMORY_MIB: Final = 4096
MIN_TURBO_INTERFACES: Final = 16
MIN_DISK_GIB: Final = 10
MIN_CCE_DISK_GIB: Final = 20
_SPOT: Final = "2"
_BARE_METAL_POOLS: Final = frozenset({"ElasticBMS", "pm"})


class Certainty(StrEnum):
    """How sure a rule is, and so what follows from breaking it (`judge`)."""

    CERTAIN = "Certain"
    DOCUMENTED = "Documented"
    TOLD = "Told"


@dataclass(frozen=True, slots=True)
class Tag:
    """The mark that a server's owner has to have set."""

    key: str
    value: str


@dataclass(frozen=True, slots=True)
class Asked:
    """What a server is held against."""

    project_id: str
    template: Template
    network: Network
    inspection: Inspection
    tag: Tag | None = None


@dataclass(frozen=True, slots=True)
class Mismatch:
    """What the server's document says, and what is asked, each with the name of its field."""

    here: str
    there: str

    def __str__(self) -> str:
        return f"{self.here}; {self.there}"


Check = Callable[[Server, Asked], Mismatch | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule. `reads` names the fields of the server's document that it looks at."""

    reason: FailureReason | FindingReason
    certainty: Certainty
    reads: str
    check: Check


def _project(server: Server, asked: Asked) -> Mismatch | None:
    if not server.project_id or server.project_id == asked.project_id:
        return None
    return Mismatch(f"the server's tenant_id is {server.project_id}", f"spec.nodePool.projectID is {asked.project_id}")


def _running(server: Server, _: Asked) -> Mismatch | None:
    if server.status == "ACTIVE" and not server.task:
        return None
    task = f" with task {server.task}" if server.task else ""
    return Mismatch(
        f"the server's status is {server.status}{task}", "only a running server without a task can be added"
    )


def _in_use(server: Server, asked: Asked) -> Mismatch | None:
    if not server.node_uid or asked.inspection.nodes.get(server.node_uid) is False:
        return None
    seen = "exists" if asked.inspection.nodes.get(server.node_uid) else "may exist: it could not be looked up"
    return Mismatch(
        f"the server has the tag {CCE_NODE_TAG}, and the node that it names {seen}",
        "only a server that is in no cluster can be added; if it is in none, remove the tag",
    )


def _stale_tag(server: Server, asked: Asked) -> Mismatch | None:
    if not server.node_uid or asked.inspection.nodes.get(server.node_uid) is not False:
        return None
    return Mismatch(f"the server has the tag {CCE_NODE_TAG}", "the node that it names does not exist any more")


def _spot(server: Server, _: Asked) -> Mismatch | None:
    if server.charging != _SPOT:
        return None
    return Mismatch("the server's metadata.charging_mode is 2 (spot)", "CCE accepts no spot server")


def _vpc(server: Server, asked: Asked) -> Mismatch | None:
    wanted = asked.network.vpc_id
    if not server.vpc_id or not wanted or server.vpc_id == wanted:
        return None
    return Mismatch(f"the server's metadata.vpc_id is {server.vpc_id}", f"the cluster's hostNetwork.vpc is {wanted}")


def _tag(server: Server, asked: Asked) -> Mismatch | None:
    wanted = asked.tag
    if wanted is None:
        return None
    has = server.tags.get(wanted.key)
    if has == wanted.value:
        return None
    here = f"the server has no tag {wanted.key}" if has is None else f"the server's tag {wanted.key} has another value"
    return Mismatch(here, f"spec.preflight.requiredTag asks for {wanted.key}={wanted.value}")


def _subnet(server: Server, asked: Asked) -> Mismatch | None:
    wanted = subnets_of(asked.template, asked.network)
    if not server.subnets or not wanted or server.subnets & (wanted | asked.inspection.ipv6_by_subnet.keys()):
        return None
    return Mismatch(
        f"the server's network_interfaces[].subnet_id is {_any(server.subnets)}", f"the pool's subnet is {_any(wanted)}"
    )


def _interfaces(server: Server, _: Asked) -> Mismatch | None:
    if server.ports <= 1:
        return None
    return Mismatch(f"the server has {server.ports} network interfaces", "a node has exactly one")


def _billing(server: Server, asked: Asked) -> Mismatch | None:
    wanted = asked.template.billing
    if not server.charging or server.charging == _SPOT or not wanted or server.charging == wanted:
        return None
    names = {"0": "pay per use", "1": "yearly or monthly"}
    here, there = names.get(server.charging, server.charging), names.get(wanted, wanted)
    return Mismatch(f"the server's metadata.charging_mode is {here}", f"the pool's billingMode is {there}")


def _flavor(server: Server, asked: Asked) -> Mismatch | None:
    groups = asked.template.groups
    if not server.flavor or not groups or any(_fits(server, group) for group in groups):
        return None
    wanted = " or ".join(sorted({f"{group.flavor or 'any'} in {group.zone or 'any zone'}" for group in groups}))
    where = server.zone or "an unknown zone"
    return Mismatch(f"the server's flavor is {server.flavor} in {where}", f"the pool takes {wanted}")


def _fits(server: Server, group: Group) -> bool:
    zone = group.zone in {"", "random", server.zone} or not server.zone
    return group.flavor in {"", server.flavor} and zone


def _size(server: Server, _: Asked) -> Mismatch | None:
    small_cpu = 0 < server.vcpus < MIN_VCPUS
    small_memory = 0 < server.memory_mib < MIN_MEMORY_MIB
    if not small_cpu and not small_memory:
        return None
    return Mismatch(
        f"the server has {server.vcpus} vCPU and {server.memory_mib} MiB",
        f"a node needs {MIN_VCPUS} vCPU and {MIN_MEMORY_MIB} MiB",
    )


def _server_group(server: Server, asked: Asked) -> Mismatch | None:
    wanted = asked.template.server_group
    if not wanted or wanted in server.groups:
        return None
    return Mismatch(
        f"the server's os:scheduler_hints.group is {_any(server.groups)}",
        f"the pool's nodeManagement.serverGroupReference is {wanted}",
    )


def _reservation(server: Server, asked: Asked) -> Mismatch | None:
    # Each group has its own; of those that take another flavor or zone `_flavor` speaks.
    wanted = {group.reservation for group in asked.template.groups if _fits(server, group)}
    if not wanted or server.reservation in wanted:
        return None
    here = server.reservation or "empty"
    return Mismatch(
        f"the server's capacity_reservation_id is {here}", f"the pool's is {_any(frozenset(wanted - {''}))}"
    )


def _enterprise_project(server: Server, asked: Asked) -> Mismatch | None:
    wanted = asked.template.enterprise_project or asked.network.enterprise_project
    if not asked.network.keeps_projects_apart or not wanted or server.enterprise_project in {"", wanted}:
        return None
    return Mismatch(f"the server's enterprise_project_id is {server.enterprise_project}", f"the pool's is {wanted}")


def _disk_count(server: Server, asked: Asked) -> Mismatch | None:
    wanted = asked.template.disks
    if server.disks is None or wanted is None or len(server.disks) == len(wanted):
        return None
    return Mismatch(f"the server has {len(server.disks)} data disks", f"the pool's template has {len(wanted)}")


def _disk_sizes(server: Server, asked: Asked) -> Mismatch | None:
    return _system_disk(server, asked) or _data_disks(server, asked)


def _system_disk(server: Server, asked: Asked) -> Mismatch | None:
    here, there = server.system_disk, asked.template.system_disk
    if here is None or there is None or not here.gib or not there.gib:
        return None
    if _kinds((here,), typed=(there,)) == _kinds((there,), typed=(here,)):
        return None
    return Mismatch(f"the server's system disk has {here}", f"the pool's template has {there}")


def _data_disks(server: Server, asked: Asked) -> Mismatch | None:
    if not server.disks or any(not disk.gib for disk in server.disks):
        return None
    sizes = sorted(disk.gib for disk in server.disks)
    here = f"the server's data disks have {', '.join(map(str, server.disks))}"
    if sizes[0] < MIN_DISK_GIB or sizes[-1] < MIN_CCE_DISK_GIB:
        return Mismatch(here, f"none may have less than {MIN_DISK_GIB}, one needs {MIN_CCE_DISK_GIB}")
    wanted = asked.template.disks or ()
    comparable = len(wanted) == len(server.disks) and all(disk.gib for disk in wanted)
    if not comparable or _kinds(server.disks, typed=wanted) == _kinds(wanted, typed=server.disks):
        return None
    return Mismatch(here, f"the pool's template has {', '.join(map(str, wanted))}")


def _kinds(disks: tuple[Disk, ...], *, typed: tuple[Disk, ...]) -> list[tuple[int, str]]:
    """Sizes with types, the types only where both sides tell all of theirs."""
    told = all(disk.kind for disk in (*disks, *typed))
    return sorted((disk.gib, disk.kind if told else "") for disk in disks)


def _kind(server: Server, asked: Asked) -> Mismatch | None:
    kind = asked.template.kind
    if not kind or (kind in _BARE_METAL_POOLS) == server.bare_metal:
        return None
    here = "a bare metal server" if server.bare_metal else "a virtual machine"
    return Mismatch(f"the server is {here}", f"the pool's type is {kind}")


def _ipv6(server: Server, asked: Asked) -> Mismatch | None:
    enabled = {subnet for subnet, ipv6 in asked.inspection.ipv6_by_subnet.items() if ipv6}
    if not asked.network.ipv6 or server.has_ipv6 or not server.ports or server.subnets & enabled:
        return None
    return Mismatch("the server has no IPv6 address", "the cluster's ipv6enable is true")


def _turbo(server: Server, asked: Asked) -> Mismatch | None:
    flavor = asked.inspection.flavors.get(server.flavor)
    if not asked.network.turbo or flavor is None or (flavor.interfaces is None and flavor.sub_interfaces is None):
        return None
    subs, interfaces = flavor.sub_interfaces or 0, flavor.interfaces or 0
    if subs > 0 or interfaces >= MIN_TURBO_INTERFACES:
        return None
    return Mismatch(
        f"the server's flavor {server.flavor} takes {subs} supplementary and {interfaces} other network interfaces",
        f"a node of a Turbo cluster needs a supplementary one, or {MIN_TURBO_INTERFACES} others",
    )


def _frozen(server: Server, _: Asked) -> Mismatch | None:
    if not server.frozen:
        return None
    return Mismatch("the server's metadata.EcmResStatus is freeze", "the account's owner has to have it unfrozen")


def _locked(server: Server, _: Asked) -> Mismatch | None:
    if not server.locked:
        return None
    return Mismatch("the server is locked (locked, metadata.lockSource)", "it can be added when its lock is gone")


def _terminates(server: Server, _: Asked) -> Mismatch | None:
    if not server.terminates:
        return None
    return Mismatch(f"the server's auto_terminate_time is {server.terminates}", "it will be deleted then")


def _windows(server: Server, _: Asked) -> Mismatch | None:
    if server.os_type.lower() != "windows":
        return None
    return Mismatch("the server's metadata.os_type is Windows", "it becomes a Linux node, nothing of it is kept")


def _any(values: frozenset[str]) -> str:
    return ", ".join(sorted(values)) or "empty"


RULES: Final = (
    Rule(FailureReason.SERVER_NOT_FOUND, Certainty.CERTAIN, "status, tenant_id", _project),
    Rule(FailureReason.REQUIRED_TAG_MISSING, Certainty.CERTAIN, "tags", _tag),
    Rule(FailureReason.SERVER_NOT_RUNNING, Certainty.CERTAIN, "status, OS-EXT-STS:task_state", _running),
    Rule(FailureReason.SERVER_IS_NODE, Certainty.CERTAIN, "tags", _in_use),
    Rule(FailureReason.SPOT_SERVER, Certainty.CERTAIN, "metadata.charging_mode", _spot),
    Rule(FailureReason.OTHER_VPC, Certainty.CERTAIN, "metadata.vpc_id", _vpc),
    Rule(FailureReason.OTHER_SUBNET, Certainty.DOCUMENTED, "network_interfaces", _subnet),
    Rule(
        FailureReason.SEVERAL_INTERFACES, Certainty.DOCUMENTED, "addresses, metadata.baremetalPortIDList", _interfaces
    ),
    Rule(FindingReason.OTHER_BILLING, Certainty.TOLD, "metadata.charging_mode", _billing),
    Rule(FailureReason.OTHER_FLAVOR, Certainty.DOCUMENTED, "flavor.id, OS-EXT-AZ:availability_zone", _flavor),
    Rule(FailureReason.SERVER_TOO_SMALL, Certainty.DOCUMENTED, "flavor.vcpus, flavor.ram", _size),
    Rule(FailureReason.OTHER_SERVER_GROUP, Certainty.DOCUMENTED, "os:scheduler_hints", _server_group),
    Rule(FailureReason.OTHER_RESERVATION, Certainty.DOCUMENTED, "capacity_reservation_id", _reservation),
    Rule(FailureReason.OTHER_ENTERPRISE_PROJECT, Certainty.DOCUMENTED, "enterprise_project_id", _enterprise_project),
    Rule(FailureReason.OTHER_DISK_COUNT, Certainty.DOCUMENTED, "os-extended-volumes:volumes_attached", _disk_count),
    Rule(FailureReason.OTHER_DISK_SIZE, Certainty.DOCUMENTED, "size and volume_type in EVS", _disk_sizes),
    Rule(FailureReason.OTHER_POOL_KIND, Certainty.DOCUMENTED, "tags", _kind),
    Rule(FailureReason.NO_IPV6, Certainty.DOCUMENTED, "addresses, the subnet's ipv6_enable", _ipv6),
    Rule(FailureReason.FLAVOR_NOT_FOR_TURBO, Certainty.DOCUMENTED, "os_extra_specs of the flavor", _turbo),
    Rule(FailureReason.SERVER_FROZEN, Certainty.DOCUMENTED, "metadata.EcmResStatus", _frozen),
    Rule(FailureReason.SERVER_LOCKED, Certainty.DOCUMENTED, "locked, metadata.lockSource", _locked),
    Rule(FailureReason.ABOUT_TO_TERMINATE, Certainty.DOCUMENTED, "auto_terminate_time", _terminates),
    Rule(FindingReason.STALE_CCE_TAG, Certainty.TOLD, "tags", _stale_tag),
    Rule(FindingReason.WINDOWS_SERVER, Certainty.TOLD, "metadata.os_type", _windows),
)
"""In the order in which they are told: the first one that stops a server is its failure."""
