"""A server that fits its pool, and for each rule of preflight servers that break it, with what they are held against.

Not for: the checks; test_preflight_rules holds each rule against these, and tests/property sends them.
"""

from dataclasses import replace
from datetime import UTC, datetime

from nodepool_membership.api.reasons import FailureReason, FindingReason
from nodepool_membership.core.preflight.facts import (
    CCE_NODE_TAG,
    Disk,
    Flavor,
    Group,
    Inspection,
    Network,
    Server,
    Template,
)
from nodepool_membership.core.preflight.rules import Asked, Tag

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
NODE = "99999999-0000-0000-0000-000000000001"
GOOD = Server(
    server_id="aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
    status="ACTIVE",
    project_id="p",
    charging="0",
    vpc_id="vpc",
    subnets=frozenset({"subnet"}),
    ports=1,
    flavor="c7.large.2",
    zone="az-1",
    vcpus=2,
    memory_mib=4096,
    enterprise_project="0",
    system_disk=Disk("d0", 50, "SSD"),
    disks=(Disk("d1", 100, "SAS"), Disk("d2", 20, "SSD")),
    tags={"owner": "team-a=b"},
)
ASKED = Asked(
    project_id="p",
    template=Template(
        digest="x",
        kind="vm",
        subnets=frozenset({"subnet"}),
        billing="0",
        groups=(Group("c7.large.2", "az-1"), Group("c7.large.2", "random")),
        system_disk=Disk("", 50, "SSD"),
        disks=(Disk("", 20, "SSD"), Disk("", 100, "SAS")),
    ),
    network=Network("vpc", "other-subnet", enterprise_project="0", keeps_projects_apart=True),
    inspection=Inspection(NOW, frozenset({GOOD.server_id}), nodes={NODE: True}),
    tag=Tag("owner", "team-a=b"),
)


def turbo(flavor: Flavor) -> Asked:
    """A Turbo cluster, where the server's flavor is this one."""
    inspection = replace(ASKED.inspection, flavors={GOOD.flavor: flavor})
    return replace(ASKED, network=replace(ASKED.network, turbo=True), inspection=inspection)


def ipv6_in_subnet(*, enabled: bool) -> Asked:
    """A cluster that uses IPv6, where the server's subnet was read."""
    inspection = replace(ASKED.inspection, ipv6_by_subnet={"subnet": enabled})
    return replace(ASKED, network=replace(ASKED.network, ipv6=True), inspection=inspection)


TAGGED = replace(GOOD, tags={**GOOD.tags, CCE_NODE_TAG: NODE.upper()})
BROKEN = [
    (FailureReason.SERVER_NOT_FOUND, replace(GOOD, project_id="q"), ASKED),
    (FailureReason.REQUIRED_TAG_MISSING, replace(GOOD, tags={}), ASKED),
    (FailureReason.REQUIRED_TAG_MISSING, replace(GOOD, tags={"owner": "team-a"}), ASKED),
    (FailureReason.REQUIRED_TAG_MISSING, replace(GOOD, tags={"Owner": "team-a=b"}), ASKED),
    (FailureReason.SERVER_NOT_RUNNING, replace(GOOD, status="SHUTOFF"), ASKED),
    (FailureReason.SERVER_NOT_RUNNING, replace(GOOD, task="deleting"), ASKED),
    (FailureReason.SERVER_IS_NODE, TAGGED, ASKED),
    (FailureReason.SERVER_IS_NODE, TAGGED, replace(ASKED, inspection=replace(ASKED.inspection, nodes={}))),
    (FailureReason.SPOT_SERVER, replace(GOOD, charging="2"), ASKED),
    (FailureReason.OTHER_VPC, replace(GOOD, vpc_id="elsewhere"), ASKED),
    (FailureReason.OTHER_SUBNET, replace(GOOD, subnets=frozenset({"elsewhere"})), ASKED),
    (
        FailureReason.OTHER_SUBNET,
        replace(GOOD, subnets=frozenset({"elsewhere"})),
        replace(ASKED, template=replace(ASKED.template, subnets=frozenset())),
    ),
    (FailureReason.SEVERAL_INTERFACES, replace(GOOD, ports=2), ASKED),
    (FindingReason.OTHER_BILLING, replace(GOOD, charging="1"), ASKED),
    (FailureReason.OTHER_FLAVOR, replace(GOOD, flavor="c3.large.2"), ASKED),
    (
        FailureReason.OTHER_FLAVOR,
        replace(GOOD, zone="az-2"),
        replace(ASKED, template=replace(ASKED.template, groups=ASKED.template.groups[:1])),
    ),
    (FailureReason.SERVER_TOO_SMALL, replace(GOOD, vcpus=1), ASKED),
    (FailureReason.SERVER_TOO_SMALL, replace(GOOD, memory_mib=2048), ASKED),
    (FailureReason.OTHER_SERVER_GROUP, GOOD, replace(ASKED, template=replace(ASKED.template, server_group="g"))),
    (
        FailureReason.OTHER_RESERVATION,
        GOOD,
        replace(ASKED, template=replace(ASKED.template, groups=(Group("c7.large.2", "az-1", "r"),))),
    ),
    (FailureReason.OTHER_RESERVATION, replace(GOOD, reservation="r"), ASKED),
    (
        # The server's flavor is that of a group with a reservation alone.
        FailureReason.OTHER_RESERVATION,
        GOOD,
        replace(ASKED, template=replace(ASKED.template, groups=(Group("x", "az-1"), Group("c7.large.2", "", "r")))),
    ),
    (FailureReason.OTHER_ENTERPRISE_PROJECT, replace(GOOD, enterprise_project="e"), ASKED),
    (
        FailureReason.OTHER_ENTERPRISE_PROJECT,
        GOOD,
        Asked("p", Template(enterprise_project="e"), Network(keeps_projects_apart=True), ASKED.inspection),
    ),
    (FailureReason.OTHER_DISK_COUNT, replace(GOOD, disks=GOOD.disks[:1] if GOOD.disks else None), ASKED),
    (FailureReason.OTHER_DISK_SIZE, replace(GOOD, disks=(Disk("d", 9), Disk("e", 100))), ASKED),
    (FailureReason.OTHER_DISK_SIZE, replace(GOOD, disks=(Disk("d", 15), Disk("e", 15))), ASKED),
    (FailureReason.OTHER_DISK_SIZE, replace(GOOD, disks=(Disk("d", 20), Disk("e", 200))), ASKED),
    (FailureReason.OTHER_DISK_SIZE, replace(GOOD, disks=(Disk("d", 20, "SAS"), Disk("e", 100, "SAS"))), ASKED),
    (FailureReason.OTHER_DISK_SIZE, replace(GOOD, system_disk=Disk("d0", 40, "SSD")), ASKED),
    (FailureReason.OTHER_DISK_SIZE, replace(GOOD, system_disk=Disk("d0", 50, "SAS")), ASKED),
    (FailureReason.OTHER_POOL_KIND, replace(GOOD, bare_metal=True), ASKED),
    (FailureReason.NO_IPV6, GOOD, replace(ASKED, network=replace(ASKED.network, ipv6=True))),
    (FailureReason.NO_IPV6, GOOD, ipv6_in_subnet(enabled=False)),
    (FailureReason.FLAVOR_NOT_FOR_TURBO, GOOD, turbo(Flavor(15, 0))),
    (FailureReason.FLAVOR_NOT_FOR_TURBO, GOOD, turbo(Flavor(interfaces=15))),
    (FailureReason.FLAVOR_NOT_FOR_TURBO, GOOD, turbo(Flavor(sub_interfaces=0))),
    (FailureReason.SERVER_FROZEN, replace(GOOD, frozen=True), ASKED),
    (FailureReason.SERVER_LOCKED, replace(GOOD, locked=True), ASKED),
    (FailureReason.ABOUT_TO_TERMINATE, replace(GOOD, terminates="2026-02-01T00:00:00Z"), ASKED),
    (FindingReason.STALE_CCE_TAG, TAGGED, replace(ASKED, inspection=replace(ASKED.inspection, nodes={NODE: False}))),
    (FindingReason.WINDOWS_SERVER, replace(GOOD, os_type="Windows"), ASKED),
]
