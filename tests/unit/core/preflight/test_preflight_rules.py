"""Each rule by which servers are looked at: a server that breaks it, and one that does not.

Not for: what follows from it in which mode; test_preflight_judge.
"""

from dataclasses import replace

import pytest

from nodepool_membership.api.reasons import FailureReason, FindingReason
from nodepool_membership.core.preflight.facts import Disk, Flavor, Group, Network, Server, Template
from nodepool_membership.core.preflight.rules import RULES, Asked
from unit.preflight_examples import ASKED, BROKEN, GOOD, ipv6_in_subnet, turbo

OTHER = Group("c9.large.2", "az-1", "r")
RESERVED = replace(ASKED, template=replace(ASKED.template, groups=(Group("c7.large.2", "az-1", "r"),)))
FINE = [
    (GOOD, ASKED),
    # What was not told speaks for nothing.
    (Server(GOOD.server_id, "ACTIVE", tags=GOOD.tags), ASKED),
    (GOOD, Asked("p", Template(), Network(), ASKED.inspection)),
    # The same subnet by another of its ids; another zone that one of the groups takes.
    (
        replace(GOOD, subnets=frozenset({"elsewhere"}), zone="az-9"),
        replace(ASKED, inspection=replace(ASKED.inspection, ipv6_by_subnet={"elsewhere": False})),
    ),
    (replace(GOOD, enterprise_project="e"), replace(ASKED, network=replace(ASKED.network, keeps_projects_apart=False))),
    (replace(GOOD, groups=frozenset({"g"})), replace(ASKED, template=replace(ASKED.template, server_group="g"))),
    (replace(GOOD, has_ipv6=True), replace(ASKED, network=replace(ASKED.network, ipv6=True))),
    (GOOD, ipv6_in_subnet(enabled=True)),
    (replace(GOOD, reservation="r"), RESERVED),
    # Of another flavor's reservation nothing is said.
    (GOOD, replace(RESERVED, template=replace(RESERVED.template, groups=(*ASKED.template.groups, OTHER)))),
    (replace(GOOD, system_disk=Disk("d0", 50)), ASKED),
    (replace(GOOD, system_disk=Disk("d0")), ASKED),
    (GOOD, replace(ASKED, template=replace(ASKED.template, system_disk=Disk("")))),
    (GOOD, replace(ASKED, template=replace(ASKED.template, disks=(Disk(""), Disk("", 7))))),
    (GOOD, turbo(Flavor(0, 1))),
    (GOOD, turbo(Flavor(16))),
    (GOOD, turbo(Flavor())),
    (replace(GOOD, flavor=""), replace(ASKED, network=replace(ASKED.network, turbo=True))),
    (GOOD, replace(turbo(Flavor(0, 0)), network=ASKED.network)),
    (replace(GOOD, bare_metal=True), replace(ASKED, template=replace(ASKED.template, kind="pm"))),
]


def broken(server: Server, asked: Asked) -> list[FailureReason | FindingReason]:
    return [rule.reason for rule in RULES if rule.check(server, asked) is not None]


@pytest.mark.parametrize(("reason", "server", "asked"), BROKEN)
def test_a_server_breaks_the_rule_and_no_other(
    reason: FailureReason | FindingReason, server: Server, asked: Asked
) -> None:
    assert broken(server, asked) == [reason]


@pytest.mark.parametrize(("server", "asked"), FINE)
def test_a_server_breaks_no_rule(server: Server, asked: Asked) -> None:
    assert broken(server, asked) == []


def test_every_rule_has_a_server_that_breaks_it() -> None:
    told = {reason for reason, _, _ in BROKEN}
    assert told == {rule.reason for rule in RULES}, "each check has a row in BROKEN, tests/unit/preflight_examples.py"


def test_a_mismatch_names_the_servers_field_and_the_pools() -> None:
    found = next(rule for rule in RULES if rule.reason is FailureReason.OTHER_VPC).check(BROKEN[9][1], ASKED)
    assert str(found) == "the server's metadata.vpc_id is elsewhere; the cluster's hostNetwork.vpc is vpc"
