"""Kills the operator again and again on a real API server, and looks whether every server still joins exactly once.

Not for: the boundaries one by one (`boundaries`). Several memberships with small batches, bad servers, lost answers,
nodes that show late, a listing of several pages, restarts of the API server; SIGKILL, and a new process.
What is done follows from the seed; when it meets the operator, from the machine: runs of one seed are alike, not equal.
"""

import ssl
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from random import Random
from typing import Final

from chaos.kills_fleet import NAMESPACE, Member, cloud, dice, fleet
from chaos.kills_operators import Operators
from chaos.kills_positions import Death, name, open_calls, positions
from chaos.kills_report import KillReport
from chaos.kills_steering import LOST, ApiGate, CloudGate, Plan, Position, Steering, plans
from chaos.kills_verdict import unsettled, verdict
from chaos.kills_wire import Wire
from controlplane import ControlPlane, credentials
from harness import Cluster, SimulatorProcess, wait_for
from harness.cluster import OPERATOR_ACCOUNT, OPERATOR_NAMESPACE
from harness.simulator_process import Document

SETTLE_SECONDS: Final = 12
"""Longer than a held call and a late node take together."""
_OPTIONS: Final = (
    f"--namespace={NAMESPACE}",
    "--poll-interval=100ms",
    "--resync-interval=5s",
    f"--settle-window={SETTLE_SECONDS}s",
    "--writes-per-minute=1000",
    "--reads-per-second=1000",
)
_OPEN_MEMBERSHIPS: Final = 3
_KILLS_PER_OUTAGE: Final = 20
_KILLS_PER_FREEZE: Final = 10
_REACH_SECONDS: Final = 60.0
_MORE_WORK_SECONDS: Final = 3.0
_CONVERGE_SECONDS: Final = 240.0
_LOOK_SECONDS: Final = 0.5
_READS_THAT_FAIL: Final = 0.2
_READS: Final = ("listNodes", "getJob", "getNodePool", "getCluster")

Say = Callable[[str], None]
"""Receives one line at a time of what is being done."""


def run(seed: int, kills: int, say: Say, *, replicas: int = 1) -> KillReport:
    """Survive so many kills, let everything converge, and report; two replicas hold a lease in turn."""
    begun = time.monotonic()
    with _stage(seed, kills, replicas) as chaos:
        for number, plan in enumerate(plans(seed, kills), 1):
            chaos.survive(plan)
            if number % 10 == 0 or number == kills:
                say(f"killed {number} of {kills} times; {len(chaos.made)} memberships")
        chaos.converge(say)
        return chaos.report(seed, kills, time.monotonic() - begun)


@contextmanager
def _stage(seed: int, kills: int, replicas: int) -> Iterator["_Chaos"]:
    """A control plane with the product installed, a cloud, and proxies between them and the operator."""
    members = fleet(seed, 2 * kills + 8)
    config = cloud(seed, members)
    with ExitStack() as stack:
        workdir = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kills-")))
        control_plane = stack.enter_context(ControlPlane())
        cluster = stack.enter_context(Cluster(control_plane))
        cluster.install()
        control_plane.ensure_namespace(NAMESPACE)
        cluster.create_secret(NAMESPACE, config)
        simulator = stack.enter_context(SimulatorProcess(workdir, config))
        wire = stack.enter_context(Wire())
        steering = Steering(seed, simulator.url, {server: m.name for m in members for server in m.servers})
        endpoint = wire.proxy(simulator.url, CloudGate(steering))
        tls = ssl.create_default_context(cafile=control_plane.ca_file)
        kubeconfig = workdir / "proxied.kubeconfig"
        credentials.write_kubeconfig(
            kubeconfig,
            server=wire.proxy(control_plane.url, ApiGate(steering), tls),
            ca_file=control_plane.ca_file,
            user="operator",
            token=control_plane.service_account_token(OPERATOR_NAMESPACE, OPERATOR_ACCOUNT),
        )
        random = dice(seed, "chaos")
        operators = Operators(workdir, kubeconfig, endpoint, _OPTIONS, random, replicas=replicas)
        stack.callback(operators.close)
        yield _Chaos(cluster, simulator, wire, steering, operators, members, endpoint, random, kills=kills)


class _Chaos:
    """One run: what exists, and what has happened so far."""

    def __init__(
        self,
        cluster: Cluster,
        simulator: SimulatorProcess,
        wire: Wire,
        steering: Steering,
        operators: Operators,
        members: Sequence[Member],
        endpoint: str,
        random: Random,
        *,
        kills: int,
    ) -> None:
        self._cluster = cluster
        self._simulator = simulator
        self._wire = wire
        self._steering = steering
        self._operators = operators
        self._to_make = list(reversed(members))
        self._endpoint = endpoint
        self._random = random
        self._outages = frozenset(random.sample(range(kills), max(1, kills // _KILLS_PER_OUTAGE)))
        self._deaths: list[Death] = []
        self._open: set[tuple[str, int]] = set()
        self._restarts = 0
        self._freezes = 0
        self.made: list[Member] = []

    def survive(self, plan: Plan) -> None:
        """Bring the operator to the position of the plan, kill it there, and note what is found."""
        outage = len(self._deaths) in self._outages
        away = outage and self._random.random() < 0.5
        self._operators.start()
        self._disturb()
        self._steering.arm(plan)
        if outage and not away:
            self._cluster.control_plane.stop_apiserver()
            self._start_apiserver()
        self._reach(plan)
        # The moment is the point: nothing is waited for.
        time.sleep(plan.pause)
        if away:
            self._cluster.control_plane.stop_apiserver()
        self._operators.kill()
        moment, records = time.time(), self._steering.under_way()
        decided = frozenset(int(str(add["seq"])) for add in self._adds())
        if away:
            self._start_apiserver()
        self._note(moment, records, decided)

    def _disturb(self) -> None:
        """Now and then a read fails, or the leader is frozen past the end of its lease."""
        if self._random.random() < _READS_THAT_FAIL:
            answer = {"status": 503, "html": True}
            rule = {"name": "read", "route": self._random.choice(_READS), "times": 1, "answer": answer}
            self._simulator.post("faults", rule)
        if self._operators.several and self._random.random() < 1 / _KILLS_PER_FREEZE:
            self._freeze()

    def _freeze(self) -> None:
        """Freeze the leader between an intent and its call: on waking it must not make it (rules P5, P22)."""
        self._steering.hold_intent()
        self._work_until_reached("an intent is stored")
        self._operators.freeze(self._steering.release)
        self._operators.start()
        self._freezes += 1

    def _reach(self, plan: Plan) -> None:
        """Return when a call is where the plan wants it."""
        self._make(_OPEN_MEMBERSHIPS - sum(not self._steering.called.issuperset(m.servers) for m in self.made))
        if plan.position is None:
            return
        self._work_until_reached(f"an add call can be cut at {plan.position}")
        if plan.position is Position.ACCEPTED:
            wait_for("the cloud decides", lambda: self._is_decided() or None, every=0.02)

    def _work_until_reached(self, what: str) -> None:
        """Make memberships until there are calls enough."""
        deadline = time.monotonic() + _REACH_SECONDS
        while not self._steering.reached.wait(_MORE_WORK_SECONDS):
            self._check()
            if time.monotonic() > deadline:
                raise TimeoutError(f"not within {_REACH_SECONDS:.0f} s: {what}")
            self._make(1)

    def _is_decided(self) -> bool:
        """Whether the call that the plan is for is in the ledger."""
        newest = max((max(death.decided, default=0) for death in self._deaths), default=0)
        return any(add["server_ids"] == list(self._steering.taken) for add in self._adds(since=newest))

    def _adds(self, since: int = 0) -> Sequence[Document]:
        """Add calls that the cloud has decided, in the order of their decisions."""
        found = self._simulator.get("ledger", route="addNodes", since=since)["entries"]
        assert isinstance(found, list)
        return found

    def _note(self, moment: float, records: Mapping[str, tuple[str, ...]], decided: frozenset[int]) -> None:
        self._check()
        calls = open_calls(self._cluster.memberships())
        # An intent that an earlier process left may not have been looked at since.
        fresh = tuple(call for call in calls if (call.membership, call.batch) not in self._open)
        self._open.update((call.membership, call.batch) for call in calls)
        self._deaths.append(Death(moment, fresh, decided, records))

    def _start_apiserver(self) -> None:
        self._cluster.start_apiserver()
        self._restarts += 1

    def _make(self, count: int) -> None:
        for _ in range(count):
            member = self._to_make.pop()
            self._cluster.create(member.spec(self._endpoint))
            self.made.append(member)

    def _check(self) -> None:
        for failure in self._wire.failures:
            raise failure
        self._simulator.check()

    def converge(self, say: Say) -> None:
        """Let an undisturbed operator bring everything to its end, as far as it can in the time it has."""
        self._steering.calm()
        self._simulator.delete("faults")
        self._operators.start()
        deadline = time.monotonic() + _CONVERGE_SECONDS
        say("no more kills: everything is to converge")
        while self._unsettled() and time.monotonic() < deadline:
            self._check()
            self._operators.start()
            time.sleep(_LOOK_SECONDS)

    def _unsettled(self) -> dict[str, str]:
        reasons = {name(m): unsettled(m) for m in self._cluster.memberships()}
        return {member: why for member, why in reasons.items() if why is not None}

    def report(self, seed: int, kills: int, seconds: float) -> KillReport:
        """Hold what is stored against the ledger."""
        adds = self._adds()
        hit = [positions(death, adds) for death in self._deaths]
        summary = self._simulator.get("summary")
        stored = {name(m): m for m in self._cluster.memberships()}
        found = verdict(self.made, stored, self._simulator.accepted())
        return KillReport(
            seed=seed,
            kills=kills,
            by_position={p: sum(p in each for each in hit) for p in Position},
            elsewhere=sum(not each for each in hit),
            freezes=self._freezes,
            api_restarts=self._restarts,
            memberships=len(self.made),
            servers=sum(len(m.servers) for m in self.made),
            bad_servers=sum(len(m.bad) for m in self.made),
            add_calls=len(adds),
            accepted_adds=sum(bool(add["accepted"]) for add in adds),
            lost_answers=sum(add["fault"] == LOST for add in adds),
            double_adds=int(str(summary["double_adds"])),
            repeated=found.repeated,
            lost=found.lost,
            unreported=found.unreported,
            removals=int(str(summary["remove_calls"])) + int(str(summary["delete_calls"])),
            unsettled=self._unsettled(),
            seconds=seconds,
        )
