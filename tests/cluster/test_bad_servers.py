"""One bad server costs itself only: refused calls are narrowed down, partly failed jobs are told server by server.

Not for: refusals about pool, quota or account (`test_bad_answers`). Rules P10, P15, P26.
"""

from collections.abc import Callable
from math import ceil, log2

import pytest

from cce_simulator.config import BadServer, Behaviour, SimulatorConfig, server_id
from harness import Cluster, MembershipSpec, Object, Operator, SimulatorProcess
from harness.cluster import condition, status

Simulate = Callable[..., SimulatorProcess]
Operate = Callable[..., Operator]

IDS = [server_id("poison", index) for index in range(450)]
BAD = [IDS[7], IDS[222], IDS[449]]
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.2), writes_per_minute=0)


def settled(membership: Object) -> bool:
    now = status(membership)
    stalled = condition(membership, "Stalled").get("status") == "True"
    return now.get("joined", 0) == 447 and now.get("failed") == 3 and stalled


def failed_servers(membership: Object, field: str = "reason") -> dict[str, object]:
    failures = status(membership)["failures"]
    assert isinstance(failures, list)
    return {server: group[field] for group in failures for server in group["serverIDs"]}


def play(cluster: Cluster, namespace: str, simulator: SimulatorProcess, **more: object) -> Object:
    cluster.create_secret(namespace, simulator.config)
    cluster.create(MembershipSpec("poisoned", IDS, simulator.url, namespace, more=more))
    done = cluster.wait(namespace, "poisoned", "447 joined, 3 failed, Stalled", settled, seconds=120)
    assert sorted(failed_servers(done)) == sorted(BAD)
    good = {server: times for server, times in simulator.accepted().items() if server not in BAD}
    assert good == dict.fromkeys(set(IDS) - set(BAD), 1)
    assert simulator.get("summary")["double_adds"] == 0
    return done


@pytest.mark.parametrize("naming", ["first", "upper", "all", "none", "foreign"])
def test_a_refused_call_is_narrowed_down_to_its_culprits(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, naming: str
) -> None:
    simulator = simulate(QUICK.model_copy(update={"bad_servers": (BadServer(servers=tuple(BAD), naming=naming),)}))
    operate(simulator)
    done = play(cluster, namespace, simulator, maxAttempts=1)
    assert set(failed_servers(done).values()) == {"Refused"}
    calls = len(simulator.entries("addNodes"))
    print(f"{naming}: {calls} calls for 3 bad servers among 450")
    if naming in {"none", "foreign"}:
        assert calls <= 3 + 2 * len(BAD) * ceil(log2(200))
    else:
        assert calls <= 3 + 2 * len(BAD)


def test_bad_servers_are_found_out_also_when_they_are_tried_again(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate
) -> None:
    """With the default of three attempts the three are retried together: that they are refused again is their fault."""
    simulator = simulate(QUICK.model_copy(update={"bad_servers": (BadServer(servers=tuple(BAD), naming="none"),)}))
    operate(simulator)
    done = play(cluster, namespace, simulator)
    assert set(failed_servers(done).values()) == {"Refused"}
    assert set(failed_servers(done, "attempts").values()) == {3}


@pytest.mark.parametrize("failed_nodes", ["stay", "vanish"])
def test_a_partly_failed_job_costs_its_failed_servers_only(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate, failed_nodes: str
) -> None:
    config = QUICK.changed({"behaviour": {"failedNodes": failed_nodes}})
    bad = BadServer(servers=tuple(BAD), way="failInstall")
    simulator = simulate(config.model_copy(update={"bad_servers": (bad,)}))
    operate(simulator)
    done = play(cluster, namespace, simulator, maxAttempts=1)
    wanted = {"stay": "DiskPartitioned", "vanish": "NeverAppeared"}[failed_nodes]
    assert set(failed_servers(done).values()) == {wanted}
    assert all("detach or wipe" in str(told) for told in failed_servers(done, "message").values())


def test_a_refusal_about_the_pool_is_found_out_and_blamed_on_nobody(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate
) -> None:
    bad = BadServer(servers=tuple(IDS), naming="none", reason="the pool's image is gone")
    simulator = simulate(QUICK.model_copy(update={"bad_servers": (bad,)}))
    operate(simulator)
    cluster.create_secret(namespace, simulator.config)
    cluster.create(MembershipSpec("refused", IDS, simulator.url, namespace))
    stalled = cluster.wait(
        namespace, "refused", "PoolRefuses", lambda m: condition(m).get("reason") == "PoolRefuses", seconds=60
    )
    assert condition(stalled, "Stalled")["reason"] == "PoolRefuses"
    assert [status(stalled)[k] for k in ("failed", "pending")] == [0, 450]
    assert len(simulator.entries("addNodes")) <= 15


def test_installs_that_fail_in_numbers_pull_the_brake(
    cluster: Cluster, namespace: str, simulate: Simulate, operate: Operate
) -> None:
    bad = BadServer(servers=tuple(IDS), way="failInstall")
    simulator = simulate(QUICK.model_copy(update={"bad_servers": (bad,)}))
    operate(simulator)
    cluster.create_secret(namespace, simulator.config)
    cluster.create(MembershipSpec("broken", IDS, simulator.url, namespace, more={"batchSize": 10}))
    cluster.wait(namespace, "broken", "the brake", lambda m: condition(m).get("reason") == "TooManyFailures")
    assert len(simulator.entries("addNodes")) == 1
    value = "2026-01-01T00:00:00Z"
    names = ("cce.nodepools.dev/reconcile-requested-at", "cce.nodepools.dev/reset-requested-at")
    cluster.patch(namespace, "broken", {"metadata": {"annotations": dict.fromkeys(names, value)}})
    cluster.wait(namespace, "broken", "another batch", lambda _: len(simulator.entries("addNodes")) == 2)
