"""What may happen to a membership: users, other people and the cloud do what they like, processes die at any moment.

Not for: the wire or the API server. The promises are checked at every call and every store, in `cloud_model` and
`driver`; here is what may happen, and that it ends well once the world is fair again.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Final

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import FINALIZER, RECONCILE_ANNOTATIONS, RESET_ANNOTATIONS
from nodepool_membership.api.spec import PreflightMode
from nodepool_membership.core.observed.observation import ACTIVE, JobPhase, NamespaceState
from property.answers import LOST_WAYS, Reply
from property.cloud_model import FAIR, OTHER_POOL, POOL, SIGNATURE, CallPlan, Cloud, Fate, server_id
from property.driver import Boundary, Driver
from property.inventory import MARK, Odd
from property.stored_object import StoredObject, spec_json

MOST: Final = 8
IDS: Final = tuple(server_id(n) for n in range(MOST))
SOME_IDS: Final = st.sets(st.sampled_from(IDS), max_size=MOST).map(sorted)
POLICIES: Final = st.sampled_from(("Retain", "Remove"))
ANY_ID: Final = st.sampled_from(IDS)
FAIR_TIME: Final = 4 * 3600.0
FAIR_PACE: Final = 60.0
"""Seconds that are let pass between two looks at a fair world, where nothing depends on them."""

REFUSALS: Final = (
    (400, "CCE.01400001"),
    (400, "CCE.01400007"),
    (403, "CCE.01403001"),
    (403, "CCE.01403003"),
    (400, "CCE.01400999"),
)
PLANS: Final = st.builds(
    CallPlan,
    reply=st.sampled_from((*Reply, Reply.ACCEPTED, Reply.ACCEPTED, Reply.LOST_BUT_ACCEPTED)),
    fates=st.lists(st.sampled_from((*Fate, Fate.JOINS, Fate.JOINS)), min_size=1, max_size=3).map(tuple),
    appears=st.lists(st.sampled_from((0, 20, 300, 900, 5000)), min_size=1, max_size=2).map(tuple),
    installs=st.sampled_from((10, 100, 1500, 5000)),
    job=st.sampled_from((0, 60, 600, 4000, 100_000)),
    job_ends=st.sampled_from((JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.LOST)),
    job_runs=st.sampled_from((JobPhase.RUNNING, JobPhase.UNRECOGNISED)),
    held=st.sampled_from((0, 30, SIGNATURE)),
    refusal=st.sampled_from(REFUSALS),
    text=st.sampled_from(("", "", "", "is already in another cluster")),
    explains=st.sampled_from(("", "no available data disk")),
    retry_after=st.sampled_from((None, 1.5, 400.0)),
    how=st.integers(0, LOST_WAYS - 1),
)
SMALL_JUMPS: Final = (-280.0, -45.0, 0.0, 45.0, 280.0)
LARGE_JUMPS: Final = (-5000.0, -700.0, 700.0, 5000.0)


class Machine(RuleBasedStateMachine):
    """One membership, one cloud, and two operators that are one process after another: the leader and a second one."""

    def __init__(self) -> None:
        super().__init__()
        self.cloud = Cloud()
        self.stored = StoredObject(spec_json(()))
        self.driver = Driver(self.stored, self.cloud)
        self.second = Driver(self.stored, self.cloud)
        self.tokens = 0
        self.fresh_starts = 1
        """How often the servers got their attempts back, and the first time."""
        self.most_attempts = 1
        self.sound = True
        """No check has failed so far; a world that is not sound need not end well."""

    @initialize(
        ids=SOME_IDS,
        size=st.integers(1, 4),
        parallel=st.integers(1, 3),
        attempts=st.integers(1, 3),
        timeout=st.sampled_from((600, 3600)),
        removal=POLICIES,
        deletion=POLICIES,
        tokens=st.booleans(),
        tells_tags=st.booleans(),
    )
    def create(
        self,
        ids: Sequence[str],
        size: int,
        parallel: int,
        attempts: int,
        timeout: int,
        removal: str,
        deletion: str,
        *,
        tokens: bool,
        tells_tags: bool,
    ) -> None:
        self.cloud.inventory.tells_tags = tells_tags
        self.cloud.tokens = tokens
        self.most_attempts = attempts
        self.stored.spec = spec_json(
            ids,
            batchSize=size,
            maxParallelJobs=parallel,
            maxAttempts=attempts,
            joinTimeoutSeconds=timeout,
            removalPolicy=removal,
            deletionPolicy=deletion,
        )

    def work(self, seconds: float, reconciles: int) -> None:
        """Let the operator work."""
        if self.stored.gone:
            self.recreate()
        self.sound = False
        self.driver.run(seconds, reconciles)
        self.sound = True

    @rule(times=st.integers(1, 4))
    def reconcile(self, times: int) -> None:
        self.work(3600.0, times)

    @rule(minutes=st.sampled_from((1, 5, 12, 35, 90)))
    def run(self, minutes: int) -> None:
        self.work(60.0 * minutes, 120)

    @rule(seconds=st.sampled_from((1, 70, 600, 1900)))
    def wait(self, seconds: int) -> None:
        self.cloud.advance(seconds)

    @rule(ids=SOME_IDS)
    def edit_ids(self, ids: Sequence[str]) -> None:
        self.stored.edit(serverIDs=[*ids])

    @rule(server=ANY_ID)
    def leave_or_enter(self, server: str) -> None:
        listed = {i for i in IDS if i in self.listed()}
        self.stored.edit(serverIDs=[*sorted(listed ^ {server})])

    @rule(size=st.integers(1, 4), parallel=st.integers(1, 3), attempts=st.integers(1, 3))
    def edit_limits(self, size: int, parallel: int, attempts: int) -> None:
        self.most_attempts = max(self.most_attempts, attempts)
        self.stored.edit(batchSize=size, maxParallelJobs=parallel, maxAttempts=attempts)

    @rule()
    def suspend_or_resume(self) -> None:
        self.stored.edit(suspend=not self.stored.spec.get("suspend", False))

    @rule(server=ANY_ID, plans=st.lists(PLANS, max_size=1), minutes=st.sampled_from((1, 3, 40)))
    def leave_for_good(self, server: str, plans: Sequence[CallPlan], minutes: int) -> None:
        self.cloud.next_calls += plans
        self.stored.edit(removalPolicy="Remove")
        self.stored.edit(serverIDs=[*sorted(self.listed() - {server})])
        self.work(60.0 * minutes, 20)

    @rule(removal=POLICIES, deletion=POLICIES)
    def edit_policies(self, removal: str, deletion: str) -> None:
        self.stored.edit(removalPolicy=removal, deletionPolicy=deletion)

    @rule(namespace=st.booleans())
    def delete(self, namespace: bool) -> None:
        if namespace:
            self.stored.namespace_state = NamespaceState("the namespace is being deleted, too")
        self.stored.delete()

    def recreate(self) -> None:
        self.fresh_starts += 1
        self.cloud.end_refused()
        self.stored.recreate()

    @rule(boundary=st.sampled_from(Boundary))
    def delete_at(self, boundary: Boundary) -> None:
        """What is let go at once is there again at once, under the same name."""
        self.at(boundary, self.delete_and_create)

    def delete_and_create(self) -> None:
        self.stored.delete()
        if self.stored.gone:
            self.recreate()

    @rule(plan=PLANS)
    def next_call(self, plan: CallPlan) -> None:
        self.cloud.next_calls.append(plan)
        self.work(3600.0, 4)

    @rule(plan=PLANS)
    def every_call(self, plan: CallPlan) -> None:
        self.cloud.weather = plan

    @rule(boundary=st.sampled_from(Boundary))
    def kill(self, boundary: Boundary) -> None:
        self.driver.kill_at(boundary)
        self.work(3600.0, 4)

    @rule(boundary=st.sampled_from(Boundary), seconds=st.sampled_from((2, 45, 70, 1900)))
    def freeze(self, boundary: Boundary, seconds: int) -> None:
        self.at(boundary, lambda: self.cloud.advance(seconds))

    @rule(boundary=st.sampled_from(Boundary), ids=SOME_IDS)
    def edit_at(self, boundary: Boundary, ids: Sequence[str]) -> None:
        self.at(boundary, lambda: self.edit_ids(ids))

    @rule(seconds=st.sampled_from((70, 700, 1900)), plan=PLANS, boundary=st.sampled_from(Boundary), ids=SOME_IDS)
    def freeze_before_a_call(self, seconds: int, plan: CallPlan, boundary: Boundary, ids: Sequence[str]) -> None:
        """The longest step that no write guards; servers are listed for it, and the process may die soon after."""
        self.cloud.next_calls.append(plan)
        self.edit_ids(ids)
        if boundary is not Boundary.INTENDED:
            self.driver.kill_at(boundary)
        self.freeze(Boundary.INTENDED, seconds)
        self.work(1800.0, 40)

    @rule(boundary=st.sampled_from(Boundary), minutes=st.sampled_from((1, 5, 40)), reconciles=st.integers(1, 40))
    def a_second_leader_works_at(self, boundary: Boundary, minutes: int, reconciles: int) -> None:
        """Who leads is held up there, and goes on with what it knew."""

        def works() -> None:
            if boundary is Boundary.CALLED:
                self.cloud.forget_answers()
            self.second.run(60.0 * minutes, reconciles)

        self.at(boundary, works)

    @rule()
    def hand_over(self) -> None:
        self.driver, self.second = self.second, self.driver

    @rule(skew=st.sampled_from(SMALL_JUMPS))
    def set_the_clock(self, skew: float) -> None:
        """Within what the protocol allows."""
        self.jump(skew)

    @rule(boundary=st.sampled_from(Boundary), skew=st.sampled_from(SMALL_JUMPS))
    def set_the_clock_at(self, boundary: Boundary, skew: float) -> None:
        self.at(boundary, lambda: self.jump(skew))

    @precondition(lambda self: self.stored.deleted is None and not self.cloud.tokens)
    @rule(boundary=st.sampled_from(Boundary), skew=st.sampled_from(LARGE_JUMPS), back=st.sampled_from(SMALL_JUMPS))
    def clock_is_wrong_for_a_while(self, boundary: Boundary, skew: float, back: float) -> None:
        """By more than the protocol allows: nothing may be added."""
        self.driver.interruptions.clear()
        self.at(boundary, lambda: self.jump(skew))
        self.work(600.0, 4)
        self.driver.interruptions.clear()
        self.jump(back)

    def jump(self, skew: float) -> None:
        self.driver.skew = skew
        self.stored.jumped = max(self.stored.jumped, 2 * abs(skew))

    def at(self, boundary: Boundary, action: Callable[[], None]) -> None:
        self.driver.interruptions[boundary] = action
        self.work(3600.0, 4)

    @rule()
    def request_reconcile(self) -> None:
        self.tokens += 1
        self.stored.annotate(**{RECONCILE_ANNOTATIONS[0]: str(self.tokens)})

    @precondition(lambda self: not self.quarantined())
    @rule()
    def request_reset(self) -> None:
        self.tokens += 1
        self.fresh_starts += 1
        self.stored.annotate(**{RECONCILE_ANNOTATIONS[0]: str(self.tokens), RESET_ANNOTATIONS[0]: str(self.tokens)})

    @rule(server=ANY_ID, pool=st.sampled_from((POOL, OTHER_POOL)), phase=st.sampled_from((ACTIVE, "Installing")))
    def others_add(self, server: str, pool: str, phase: str) -> None:
        self.cloud.others_add(server, pool, phase)

    @rule(server=ANY_ID)
    def others_remove(self, server: str) -> None:
        self.cloud.others_remove(server)

    @rule(server=ANY_ID)
    def others_move(self, server: str) -> None:
        self.cloud.others_move(server)

    @rule(server=ANY_ID)
    def others_break(self, server: str) -> None:
        self.cloud.others_break(server)

    @rule()
    def lose_or_find_the_cloud(self) -> None:
        self.driver.unreachable = not self.driver.unreachable

    @rule(servers=st.sets(ANY_ID, max_size=2))
    def hide(self, servers: set[str]) -> None:
        """Listings leave nodes out, though the pool counts them."""
        self.cloud.hidden = servers

    @rule(pool=st.sampled_from(("", "Synchronizing", "Error")), cluster=st.sampled_from(("Available", "Upgrading")))
    def change_phases(self, pool: str, cluster: str) -> None:
        self.cloud.pool_phase, self.cloud.cluster_phase = pool, cluster

    @rule(server=ANY_ID, how=st.sampled_from(Odd), plan=PLANS)
    def spoil(self, server: str, how: Odd, plan: CallPlan) -> None:
        """A server cannot become a node any more, or its owner takes the mark off; it is called for soon after."""
        self.cloud.inventory.spoil(server, how, self.cloud.now)
        self.cloud.next_calls.append(plan)
        self.work(3600.0, 4)

    @rule(boundary=st.sampled_from(Boundary), server=ANY_ID, how=st.sampled_from(Odd))
    def spoil_at(self, boundary: Boundary, server: str, how: Odd) -> None:
        self.at(boundary, lambda: self.cloud.inventory.spoil(server, how, self.cloud.now))

    @rule()
    def mend(self) -> None:
        self.cloud.inventory.odd.clear()

    @rule(blind=st.booleans())
    def see_no_servers(self, *, blind: bool) -> None:
        self.cloud.inventory.look_away(self.cloud.now, blind=blind)

    @rule(mode=st.sampled_from(PreflightMode), tag=st.booleans())
    def edit_preflight(self, mode: PreflightMode, *, tag: bool) -> None:
        required: dict[str, Json] = {"requiredTag": {"key": MARK}} if tag else {}
        self.stored.edit(preflight={"mode": mode.value, **required})

    @rule(seconds=st.sampled_from((1, 60)))
    def use_up_the_budget(self, seconds: int) -> None:
        self.driver.budget_free = self.cloud.now + timedelta(seconds=seconds)

    @precondition(lambda self: FINALIZER in self.stored.finalizers)
    @rule()
    def lose_status(self) -> None:
        self.fresh_starts += 1
        self.stored.lose_status()
        self.cloud.forget_answers()
        self.cloud.end_refused()

    @precondition(lambda self: FINALIZER in self.stored.finalizers)
    @rule(boundary=st.sampled_from(Boundary))
    def lose_status_at(self, boundary: Boundary) -> None:
        self.at(boundary, self.lose_status)

    @invariant()
    def attempts_are_bounded(self) -> None:
        most = self.most_attempts * (self.fresh_starts + self.stored.given_back)
        assert all(spent <= most for spent in self.cloud.spent.values()), "more adds than attempts (P12)"

    def quarantined(self) -> bool:
        """A reset now would be a human's word that nothing is under way, which nobody can know (P2)."""
        return FINALIZER in self.stored.finalizers and not self.stored.status.get("lastBatch")

    def listed(self) -> frozenset[str]:
        return self.stored.read().spec.server_ids

    def teardown(self) -> None:
        if self.sound:
            self.ends_well()

    def ends_well(self) -> None:
        """In a fair world every server that is listed becomes a member, and then nothing is written any more."""
        cloud, driver, stored = self.cloud, self.driver, self.stored
        cloud.weather, cloud.pool_phase, cloud.cluster_phase = FAIR, "", "Available"
        cloud.next_calls.clear()
        cloud.hidden.clear()
        cloud.inventory.odd.clear()
        cloud.inventory.look_away(cloud.now, blind=False)
        driver.interruptions.clear()
        driver.unreachable = False
        driver.skew = 0.0
        cloud.end_jobs()
        if stored.deleted is not None:
            driver.run(FAIR_TIME, 1000, FAIR_PACE)
            assert stored.gone, "a deleted object is held for ever"
            self.recreate()
        stored.edit(suspend=False, batchSize=4)
        driver.run(FAIR_TIME, 1000, FAIR_PACE)
        for server, node in list(cloud.nodes.items()):
            if (node.pool_id, node.phase) != (POOL, ACTIVE):
                cloud.others_remove(server)
        self.request_reset()
        driver.run(FAIR_TIME, 1000, FAIR_PACE)
        membership = stored.read()
        status, listed = membership.status, membership.spec.server_ids
        active = cloud.listing().active_in(POOL, listed)
        missing = listed - active
        assert missing <= set(status.members), f"never joined: {missing}"
        assert set(status.members) == listed
        assert not status.open_batches
        assert status.surplus == 0
        held = bool(listed) and stored.spec.get("deletionPolicy") == "Remove"
        assert (FINALIZER in stored.finalizers) is held
        kinds = {c.type: c.status for c in status.conditions}
        assert kinds == ({"Ready": "False", "Stalled": "True"} if missing else {"Ready": "True"})
        writes, calls = stored.writes, cloud.sends
        driver.run(3600.0, 100)
        assert (stored.writes, cloud.sends) == (writes, calls), "an idle resync writes or calls"


def a_machine(servers: int, **fields: Json) -> Machine:
    """One whose object lists so many servers."""
    machine = Machine()
    machine.stored.spec = spec_json(IDS[:servers], **fields)
    return machine
