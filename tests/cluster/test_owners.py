"""One list, one owner: memberships of different namespaces, pools and clusters that claim the same servers (rule P16).

Not for: the index itself (`unit.runtime.claims.test_runtime_claims`), or every interleaving (`property.test_claims`).
"""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig
from controlplane import ControlPlane
from harness import Case, Cluster, Operator, Scene, SimulatorProcess
from harness.cluster import Object, condition, is_ready, jobs, status, wait_for_the_next_second
from harness.operator_process import FAST
from harness.programs import wait_for
from harness.scene import server_ids

SERVERS = server_ids(6, "shared")
ONE, OTHER = Case("one"), Case("other")


@dataclass
class Pair:
    """Two memberships, each in a namespace, cluster and pool of its own; one operator works both."""

    one: Scene
    other: Scene
    restart: Callable[[], None]

    def a_second_later(self) -> None:
        wait_for_the_next_second(self.one.get())

    def accepted(self) -> dict[str, int]:
        assert self.one.simulator.get("summary")["double_adds"] == 0
        return dict(self.one.accepted(SERVERS))


@pytest.fixture
def pair(
    cluster: Cluster,
    control_plane: ControlPlane,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    programs: ExitStack,
) -> Pair:
    second = f"{namespace}-other"
    control_plane.ensure_namespace(second)
    programs.callback(cluster.clear, second)
    quick = SimulatorConfig(behaviour=Behaviour(job_seconds=1.5), writes_per_minute=0)
    config = OTHER.configure(ONE.configure(quick.model_copy(update={"clusters": (), "access_keys": ()})))
    simulator = simulate(config)
    options = [*FAST, f"--namespace={second}"]
    operator = operate(simulator, options)
    one = Scene(cluster, namespace, simulator, operator, ONE.name, ONE.corner)
    other = Scene(cluster, second, simulator, operator, OTHER.name, OTHER.corner)
    one.secret(ONE.good_secret())
    other.secret(OTHER.good_secret())

    def restart() -> None:
        one.operator.kill()
        one.operator = other.operator = operate(simulator, options, name=f"{one.operator.log.stem}-again")

    return Pair(one, other, restart)


def in_conflict_with(owner: Scene) -> Callable[[Object], bool]:
    """Stalled for a conflict; the message says that the servers are another namespace's, and not which one's."""

    def holds(membership: Object) -> bool:
        ready, stalled = condition(membership), condition(membership, "Stalled")
        told = ready.get("reason") == stalled.get("reason") == "Conflict"
        assert owner.namespace not in str(ready.get("message")).split()
        assert f"{owner.namespace}/{owner.name}" not in str(ready.get("message"))
        return told and ready["status"] == "False" and "of another namespace" in str(ready["message"])

    return holds


def members(membership: Object) -> list[str]:
    found = status(membership).get("members", [])
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("how", ["edit", "delete"])
def test_the_younger_names_the_owner_and_takes_over_when_it_lets_go(pair: Pair, how: str) -> None:
    pair.one.create(SERVERS[:4], suspend=True)
    pair.one.until_reason("Suspended")
    pair.a_second_later()
    pair.other.create(SERVERS[2:])
    stalled = pair.other.until("Conflict", in_conflict_with(pair.one))
    assert [status(stalled)[k] for k in ("joined", "failed", "pending")] == [2, 0, 2]
    assert pair.accepted() == dict.fromkeys(SERVERS[4:], 1)
    if how == "edit":
        pair.one.edit(serverIDs=SERVERS[:2])
    else:
        pair.one.cluster.delete(pair.one.namespace, pair.one.name)
    pair.other.until_joined(SERVERS[2:])
    wait_for("an Event", lambda: "Conflict" in pair.other.event_reasons() or None)
    assert pair.accepted() == dict.fromkeys(SERVERS[2:], 1)


def test_a_conflict_is_told_in_the_preview_and_ends_with_the_list_of_the_younger(pair: Pair) -> None:
    pair.one.create(SERVERS[:2], suspend=True)
    pair.one.until_reason("Suspended")
    pair.a_second_later()
    pair.other.create(SERVERS[:3], suspend=True)
    words = ("would add 1 in 1 call, which WIPES it, adopt 0", "2 servers of another namespace (")
    pair.other.until("the preview", lambda m: all(w in str(condition(m).get("message")) for w in words))
    pair.other.edit(suspend=False)
    pair.other.until("Conflict", in_conflict_with(pair.one))
    pair.other.edit(serverIDs=SERVERS[2:3])
    pair.other.until_joined(SERVERS[2:3])


def test_two_that_are_created_at_once_never_add_a_server_twice(pair: Pair) -> None:
    for scene in (pair.one, pair.other):
        scene.create(SERVERS, batchSize=1, maxParallelJobs=3)

    def settled() -> tuple[Object, Object] | None:
        one, other = pair.one.get(), pair.other.get()
        pair.one.operator.check()
        over = [is_ready(m) or condition(m, "Stalled").get("reason") == "Conflict" for m in (one, other)]
        done = sorted(members(one) + members(other)) == SERVERS
        return (one, other) if all(over) and done else None

    one, other = wait_for("both are settled", settled, seconds=60)
    assert pair.accepted() == dict.fromkeys(SERVERS, 1)
    for loser, owner, scene in ((one, other, pair.other), (other, one, pair.one)):
        assert is_ready(loser) or (in_conflict_with(scene)(loser) and members(owner))


def test_an_open_batch_keeps_its_servers_from_an_older_membership_also_after_a_restart(pair: Pair) -> None:
    pair.one.create([])
    pair.one.until_ready()
    pair.a_second_later()
    pair.other.create(SERVERS[:2])
    pair.other.until("an open batch", lambda m: any(job["phase"] == "Running" for job in jobs(m)))
    # While nobody works: the batch has to be open still when the older one's claim is seen.
    pair.one.operator.kill()
    pair.one.edit(serverIDs=SERVERS)
    pair.restart()
    pair.other.until_joined(SERVERS[:2])
    pair.one.until("Conflict", in_conflict_with(pair.other))
    assert pair.accepted() == dict.fromkeys(SERVERS, 1)
    pair.restart()
    pair.other.edit(serverIDs=SERVERS[:1])
    pair.other.until_ready()
    assert members(pair.other.get()) == SERVERS[:1]
