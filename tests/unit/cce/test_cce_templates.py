"""What a pool and a cluster ask of a server, read from their documents.

Not for: comparing it with servers; test_preflight_rules.
"""

import json

import pytest

from nodepool_membership.cce import wire
from nodepool_membership.core.preflight.facts import Disk, Group, Network, Template

NODE: dict[str, object] = {
    "flavor": "c7.large.2",
    "az": "az-1",
    "billingMode": 0,
    "nodeNicSpec": {"primaryNic": {"subnetId": "S1"}},
    "rootVolume": {"size": 50, "volumetype": "SSD"},
    "dataVolumes": [{"size": 100, "volumetype": "SAS"}],
    "serverEnterpriseProjectID": "E",
    "login": {"userPassword": {"password": "secret"}},
}


def pool(**spec: object) -> Template:
    return (
        wire.POOL.validate_json(json.dumps({"status": {}, "spec": {"type": "vm", "nodeTemplate": NODE, **spec}}))
        .report()
        .template
    )


def cluster(**spec: object) -> Network:
    return wire.CLUSTER.validate_json(json.dumps({"status": {}, "spec": spec})).report().network


def test_a_pool_asks_what_its_template_says() -> None:
    group = {"spec": {"az": "az-2", "autoscaling": {"enable": True}, "capacityReservationSpecification": {"id": "R"}}}
    template = pool(
        initialNodeCount=3,
        autoscaling={"enable": False},
        nodeManagement={"serverGroupReference": "G"},
        extensionScaleGroups=[group],
    )
    assert template == Template(
        digest=template.digest,
        kind="vm",
        subnets=frozenset({"s1"}),
        billing="0",
        groups=(Group("c7.large.2", "az-1"), Group("c7.large.2", "az-2", "r", autoscaling=True)),
        server_group="g",
        enterprise_project="e",
        system_disk=Disk("", 50, "SSD"),
        disks=(Disk("", 100, "SAS"),),
        desired_nodes=3,
    )


@pytest.mark.parametrize(("preference", "asked"), [("targeted", "r"), ("", "r"), (None, "r"), ("none", "")])
def test_a_group_that_prefers_no_reservation_asks_for_none(preference: object, asked: str) -> None:
    group = {"spec": {"capacityReservationSpecification": {"id": "R", "preference": preference}}}
    assert [one.reservation for one in pool(extensionScaleGroups=[group]).groups] == ["", asked]


def test_several_subnets_outrank_the_one() -> None:
    nic = {"primaryNic": {"subnetId": "S1", "subnetList": ["S2", "S3"]}}
    assert pool(nodeTemplate={**NODE, "nodeNicSpec": nic}).subnets == {"s2", "s3"}


def test_the_hash_changes_with_what_is_installed_and_with_nothing_else() -> None:
    base = pool()
    assert pool(initialNodeCount=7, autoscaling={"enable": True}).digest == base.digest
    assert pool(nodeTemplate=dict(reversed(NODE.items()))).digest == base.digest
    assert pool(nodeTemplate={**NODE, "os": "another"}).digest != base.digest
    assert "secret" not in repr(base)


@pytest.mark.parametrize("odd", [None, [], {}, "x", 7, True, [None], {"spec": None}])
def test_what_is_odd_was_not_told(odd: object) -> None:
    names = ("nodeTemplate", "initialNodeCount", "autoscaling", "nodeManagement", "extensionScaleGroups")
    template = pool(**dict.fromkeys(names, odd))
    assert (template.subnets, template.server_group, template.disks) == (frozenset(), "", None)
    for name in NODE:
        pool(nodeTemplate={**NODE, name: odd})
    assert cluster(hostNetwork=odd, extendParam=odd, version=odd).vpc_id == ""


def test_a_cluster_asks_for_its_network() -> None:
    asked = cluster(hostNetwork={"vpc": "V", "subnet": "S"}, ipv6enable=True, version="v1.33")
    assert asked == Network("v", "s", ipv6=True)


@pytest.mark.parametrize(
    ("version", "apart"),
    [("v1.19.16", True), ("v1.21.14", True), ("v1.21.15-r0", False), ("v1.21", False), ("v1.22", True),
     ("v1.28.3-r2", True), ("v1.28.4", False), ("v1.29", False), ("v1.33.2", False), ("", False), ("odd", False)],
)  # fmt: skip
def test_enterprise_projects_are_kept_apart_by_older_clusters(version: str, apart: bool) -> None:
    asked = cluster(version=version, extendParam={"enterpriseProjectId": "E"})
    assert (asked.enterprise_project, asked.keeps_projects_apart) == ("e", apart)


@pytest.mark.parametrize(
    ("flavor", "most"),
    [
        ("cce.s1.small", 50),
        ("cce.s2.medium", 200),
        ("cce.s2.large", 1000),
        ("cce.s2.xlarge", 2000),
        ("cce.dec.large", None),
        ("", None),
        (7, None),
    ],
)
def test_a_clusters_flavor_says_how_many_nodes_it_takes(flavor: object, most: int | None) -> None:
    report = wire.CLUSTER.validate_json(json.dumps({"status": {}, "spec": {"flavor": flavor}})).report()
    assert report.most_nodes == most


def test_a_pool_says_what_hinders_it_and_nothing_odd_is_believed() -> None:
    conditions = [
        {"type": "Scalable", "status": "False"},
        {"type": "Error", "status": "True"},
        {"type": "LockedByOrder", "status": "True"},
        {"type": "Error", "status": "False"},
        {"type": "LabelSynchronizing", "status": "True"},
        {"type": 7},
        "odd",
    ]
    for told, hinders in (
        (conditions, ("Error=True", "LockedByOrder=True", "Scalable=False")),
        ({"odd": 1}, ()),
        (None, ()),
    ):
        document = {"status": {"conditions": told}, "spec": {}}
        assert wire.POOL.validate_json(json.dumps(document)).report().hindrances == hinders
