"""Whatever the cloud turns out to do where its documents are silent, every server joins once, also after a crash.

Not for: the list of these unknowns with what is assumed of each (`docs/assumptions.md`).
"""

from dataclasses import replace
from typing import Final

import pytest

from cce_simulator.config import BadServer
from chaos.boundaries import some, sweep
from chaos.boundaries_scenario import NAME, End, Scenario, cloud, joined, servers, spec
from nodepool_membership.api.reasons import FailureReason

FIVE: Final = servers(5)
BAD: Final = FIVE[1]
SWITCHES: Final = {
    "parallel jobs, locked": cloud(parallel_jobs="CCE.01429002"),
    "parallel jobs, too many tasks": cloud(parallel_jobs="CCE.01429003"),
    "parallel jobs, cluster is scaling": cloud(parallel_jobs="CCE.01400023", parallel_jobs_scope="cluster"),
    "sub jobs without servers": cloud(sub_job_server_id=False),
    "sub jobs by themselves": cloud(sub_jobs="separate"),
    "no sub jobs": cloud(sub_jobs="none"),
    "a repeated add is refused": cloud(repeat_add="refuse"),
    "desired count stays": cloud(raise_initial_node_count=False),
    "nodes show at once": cloud(node_visibility="atOnce"),
    "nodes show at the end": cloud(node_visibility="atEnd"),
    "nodes are up together": cloud(nodes_active="atEnd"),
    "jobs are forgotten at once": cloud(job_retention_seconds=0),
    "no page info": cloud(paging="markerWithoutPageInfo"),
    "no pages": cloud(paging="none"),
    "no owner references": cloud(owner_references=False),
}
"""The other ways are those of `cloud`, which all other scenarios have."""
FAILS: Final = (BadServer(servers=(BAD,), way="failInstall"),)
ONE_BAD: Final = {
    "its node stays": cloud(bad=FAILS, failed_nodes="stay"),
    "its node vanishes": cloud(bad=FAILS, failed_nodes="vanish"),
    "the job says Success all the same": cloud(bad=FAILS, partial_failure_phase="Success"),
    "sub jobs do not say which": cloud(bad=FAILS, sub_jobs="none"),
}
REASONS: Final = {
    FailureReason.REFUSED,
    FailureReason.DISK_PARTITIONED,
    FailureReason.NODE_ERROR,
    FailureReason.NEVER_APPEARED,
    FailureReason.NODE_VANISHED,
}


def check(scenario: Scenario) -> None:
    swept = sweep(scenario, some(1, writes=1, reads=0))
    swept.check()
    assert swept.runs > 10


@pytest.mark.parametrize("unknown", SWITCHES)
def test_every_server_joins_once_whichever_way_the_cloud_is(unknown: str) -> None:
    check(Scenario(unknown, spec(FIVE, maxParallelJobs=3), joined(FIVE), SWITCHES[unknown]))


def with_one_bad(name: str, preflight: str = "Report") -> Scenario:
    """All but one join; the bad one is named in as many calls as it has attempts, at most."""
    ends = {NAME: End(frozenset(FIVE) - {BAD}, {BAD: REASONS})}
    return Scenario(
        name,
        spec(FIVE, batchSize=5, maxAttempts=2, preflight={"mode": preflight}),
        ends,
        cloud(),
        accepted={BAD: (0, 1, 2)},
    )


@pytest.mark.parametrize("unknown", ONE_BAD)
def test_a_server_that_fails_costs_itself_only_whichever_way_its_job_tells(unknown: str) -> None:
    check(replace(with_one_bad(unknown), cloud=ONE_BAD[unknown]))


@pytest.mark.parametrize("answer", ["refuseCall", "failInstall"])
@pytest.mark.parametrize("naming", ["first", "none", "foreign"])
def test_a_server_that_does_not_exist_costs_itself_only_however_it_is_told(answer: str, naming: str) -> None:
    config = cloud(bad_entry=answer, bad_entry_naming=naming).model_copy(update={"unknown_servers": (BAD,)})
    blind = with_one_bad(f"unknown server, {answer}, {naming}", preflight="Off")
    check(replace(blind, cloud=config))


def test_a_server_that_does_not_exist_is_in_no_call_where_servers_are_read_first() -> None:
    config = cloud(bad_entry="failInstall").model_copy(update={"unknown_servers": (BAD,)})
    ends = {NAME: End(frozenset(FIVE) - {BAD}, {BAD: {FailureReason.SERVER_NOT_FOUND}})}
    check(replace(with_one_bad("unknown server, read first"), cloud=config, ends=ends, accepted={BAD: (0,)}))
