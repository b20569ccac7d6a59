"""One tenant cannot stop another: each attack by an editor of one namespace, while a victim in another one joins.

`-s` prints a table at the end: how much longer victims took than alone, when a plain client of the API server heard of
them, and the load of the machine, which all feel. An API server that is new is slow at its first flood of large
objects. Not for: attacks by an endpoint (`tests/contract/test_cce_transport.py`). The threat model
(docs/threat-model.md) names these tests.
"""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from os import getloadavg
from time import monotonic

import httpx
import pytest

from cce_simulator.config import (
    CLUSTER_ID,
    NODE_POOL_ID,
    Behaviour,
    ClusterConfig,
    NodePoolConfig,
    SimulatorConfig,
    TokenConfig,
    generated_id,
)
from cce_simulator.faults import FaultRule
from harness import Cluster, MembershipSpec, Operator, SimulatorProcess
from harness.attacker import Attacker, Hammer, silent_endpoint
from harness.bystander import Bystander
from harness.cluster import finalizers, has_reason, is_ready, status, wait_for_the_next_second
from harness.operator_process import FAST
from harness.programs import wait_for
from harness.scene import server_ids

QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)
OWN_CLUSTER, OWN_POOL = generated_id("attackers", "cluster", 0), generated_id("attackers", "pool", 0)
OWN_TOKENS = tuple(f"a-token-of-the-attacker-{number:04}" for number in range(100))
WITH_OWN = QUICK.model_copy(
    update={
        "tokens": tuple(TokenConfig(value=token) for token in OWN_TOKENS),
        "clusters": (
            ClusterConfig(id=CLUSTER_ID, node_pools=(NodePoolConfig(id=NODE_POOL_ID),)),
            ClusterConfig(id=OWN_CLUSTER, node_pools=(NodePoolConfig(id=OWN_POOL, server_count=2000),)),
        ),
        "faults": (FaultRule(name="slow", route="listNodes", cluster_id=OWN_CLUSTER, delay_seconds=0.3),),
    }
)
"""The attacker has an account of its own, and a cluster whose nodes are listed slowly."""
LIMIT_MIB = 256
"""The memory limit of `deploy/base/deployment.yaml`."""
SECONDS = 30.0
"""A victim is Ready by then; calm, it takes one or two."""
FORGED = "cce.nodepools.dev/release"


@dataclass
class Arena:
    """A victim's namespace, an attacker's, and one operator for both."""

    cluster: Cluster
    victims: str
    attacker: Attacker
    bystander: Bystander
    simulator: SimulatorProcess
    silent: str
    start: Callable[[], Operator]
    operator: Operator = field(init=False)
    calm: float = field(init=False)
    """Seconds that the victim takes alone."""
    attacked: list[tuple[str, float, float, float]] = field(default_factory=list)
    """Seconds that a victim took, after its name and those that it takes alone; and until a client hears of it."""

    def __post_init__(self) -> None:
        self.operator = self.start()
        self.calm = self.timed("calm")[0]

    def restart(self) -> None:
        """Kill the operator and start another, which is ready."""
        self.operator.check()
        self.operator.kill()
        self.operator = self.start()

    def join(self, name: str, ids: Sequence[str] | None = None, *, calm: float | None = None, **spec: object) -> None:
        """The victim joins under attack; `calm` is what it takes alone in a case like this one, if that is another."""
        self.attacked.append((name, self.calm if calm is None else calm, *self.timed(name, ids, **spec)))

    def timed(self, name: str, ids: Sequence[str] | None = None, **spec: object) -> tuple[float, float]:
        """Seconds until a membership that the victim makes is Ready, and until a plain client heard of it."""
        wanted = server_ids(2, name) if ids is None else ids
        begun = monotonic()
        self.cluster.create(MembershipSpec(name, wanted, self.simulator.url, self.victims, more=spec))
        done = self.cluster.wait(self.victims, name, "the victim is Ready", is_ready, seconds=SECONDS)
        seconds = monotonic() - begun
        assert status(done)["members"] == wanted
        assert {i: self.simulator.accepted()[i] for i in wanted} == dict.fromkeys(wanted, 1)
        return seconds, self.bystander.heard(self.victims, name) - begun

    def check(self) -> None:
        """The operator lives within its limit, and has told the attacker nothing of the victim."""
        self.operator.check()
        assert self.operator.get("/healthz").status_code == 200
        assert self.operator.peak_memory_mib() < LIMIT_MIB
        told = self.attacker.memberships() + str(self.cluster.events(self.attacker.namespace))
        assert self.victims not in told


@pytest.fixture(scope="module")
def table() -> Iterator[list[str]]:
    """A line an attack, printed when all are over."""
    lines = [f"{'attack: victim':<80} {'calm':>7} {'attacked':>9} {'ratio':>6} {'heard':>7} {'memory':>8} {'load':>5}"]
    yield lines
    print("", *lines, sep="\n")


@pytest.fixture
def config(request: pytest.FixtureRequest) -> SimulatorConfig:
    """Of the cloud; a test that needs another one says so."""
    made: SimulatorConfig = getattr(request, "param", QUICK)
    return made


@pytest.fixture
def arena(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    programs: ExitStack,
    request: pytest.FixtureRequest,
    table: list[str],
    config: SimulatorConfig,
) -> Iterator[Arena]:
    attackers = f"attackers-{secrets.token_hex(4)}"
    cluster.control_plane.ensure_namespace(attackers)
    programs.callback(cluster.clear, attackers)
    simulator = simulate(config)
    cluster.create_secret(namespace, config)
    silent = programs.enter_context(silent_endpoint())
    attacker = programs.enter_context(Attacker(cluster.control_plane, attackers))
    # Whoever waits for an endpoint that does not answer waits a minute to connect: longer than the victim may take.
    options = [*FAST, "--resync-interval=20s", "--http-timeout=4m", "--removal-delay=1s", f"--namespace={attackers}"]
    started = iter(range(10))

    def start() -> Operator:
        return operate([simulator.url, silent], options, name=f"operator-{next(started)}")

    bystander = programs.enter_context(Bystander(cluster.control_plane))
    made = Arena(cluster, namespace, attacker, bystander, simulator, silent, start)
    yield made
    made.check()
    memory = f"{made.operator.peak_memory_mib():>4.0f} MiB {getloadavg()[0]:>5.1f}"
    name = request.node.name.removeprefix("test_").replace("_", " ")
    for case, calm, slow, heard in made.attacked:
        times = f"{calm:>5.1f} s {slow:>7.1f} s {slow / calm:>6.1f} {heard:>5.1f} s"
        table.append(f"{f'{name}: {case}':<80} {times} {memory}")


def test_a_hundred_on_an_endpoint_that_does_not_answer(arena: Arena) -> None:
    attacker = arena.attacker
    attacker.create_secrets(
        ["cce-credentials"], {"accessKey": b"AK-OF-THE-ATTACKER", "secretKey": b"secret-of-the-attacker"}
    )
    attacker.create_all(attacker.one_each(100, arena.silent))
    for name in ("first", "second", "third"):
        arena.join(name)


def test_a_hundred_on_clusters_that_are_not_there(arena: Arena) -> None:
    attacker = arena.attacker
    key = QUICK.access_keys[0]
    pair = {"accessKey": key.access_key.encode(), "secretKey": b"not-the-right-secret"}
    attacker.create_secrets(["cce-credentials"], pair)
    attacker.create_all(attacker.one_each(100, arena.simulator.url))
    for name in ("first", "second", "third"):
        arena.join(name)


@pytest.mark.parametrize("config", [WITH_OWN], indirect=True, ids=["slow"])
def test_a_hundred_keys_of_its_own_for_a_cluster_that_is_read_slowly(arena: Arena) -> None:
    attacker = arena.attacker
    made = []
    for number, token in enumerate(OWN_TOKENS):
        secret, ids = f"token-{number}", server_ids(1, f"own-{number}")
        attacker.create_secrets([secret], {"token": token.encode()})
        where = (arena.simulator.url, attacker.namespace, OWN_CLUSTER, OWN_POOL)
        made.append(MembershipSpec(f"attack-{number}", ids, *where, secret=secret, more={"suspend": True}))
    attacker.create_all(made)
    for name in ("first", "second", "third"):
        arena.join(name)


def test_hundreds_of_pools_that_are_not_there_in_the_victims_cluster(arena: Arena) -> None:
    attacker = arena.attacker
    key = QUICK.access_keys[0]
    pair = {"accessKey": key.access_key.encode(), "secretKey": key.secret_key.encode()}
    attacker.create_secrets(["cce-credentials"], pair)
    where = (arena.simulator.url, attacker.namespace, CLUSTER_ID)
    attacker.create_all(
        MembershipSpec(f"attack-{n}", server_ids(1, f"pool-{n}"), *where, generated_id("made-up", "pool", n))
        for n in range(300)
    )
    for name in ("first", "second", "third"):
        arena.join(name)


def test_ids_of_others_in_an_object_that_looks_like_one_with_lost_calls(arena: Arena) -> None:
    ids = server_ids(60, "victims")
    attacker = arena.attacker
    spec = MembershipSpec("forged", ids, arena.simulator.url, attacker.namespace)
    assert attacker.create(spec, finalizers=[FORGED]).status_code in {201, 403}
    if not arena.cluster.exists(attacker.namespace, "forged"):
        # The admission policy is in the way. As it is without one: an administrator may do it.
        attacker.create(spec).raise_for_status()
        arena.cluster.patch(attacker.namespace, "forged", {"metadata": {"finalizers": [FORGED]}})
    arena.join("victim", ids)
    arena.cluster.patch(attacker.namespace, "forged", {"metadata": {"finalizers": None}})
    attacker.delete("forged")
    arena.join("later")


def test_ids_of_others_in_an_older_object_without_a_secret(arena: Arena) -> None:
    ids = server_ids(2, "victims")
    spec = MembershipSpec("older", ids, arena.simulator.url, arena.attacker.namespace)
    arena.attacker.create(spec).raise_for_status()
    arena.cluster.wait(arena.attacker.namespace, "older", "it has no Secret", has_reason("SecretNotFound"))
    wait_for_the_next_second(arena.cluster.get(arena.attacker.namespace, "older"))
    arena.join("victim", ids, deletionPolicy="Remove")
    arena.cluster.wait(arena.victims, "victim", "it is held for its removal", lambda m: bool(finalizers(m)))
    arena.cluster.delete(arena.victims, "victim")
    wait_for("the victim is gone", lambda: not arena.cluster.exists(arena.victims, "victim") or None)
    assert [call["removed"] for call in arena.simulator.entries("removeNodes")] == [ids]


def test_large_secrets(arena: Arena) -> None:
    attacker = arena.attacker
    names = [f"large-{number}" for number in range(60)]
    junk = {f"junk-{number}": b"x" * 100_000 for number in range(7)}
    attacker.create_secrets(names, {"accessKey": b"A" * 30_000, "secretKey": b"S" * 30_000, **junk})
    attacker.create_all(attacker.one_each(len(names), arena.silent, lambda number: names[number]))
    for name in ("first", "second"):
        arena.join(name)


def test_the_largest_memberships_also_across_a_restart(arena: Arena) -> None:
    arena.restart()
    calm = arena.timed("calm-after-a-restart")[0]
    arena.attacker.largest(60, arena.silent)
    arena.join("before")
    arena.check()
    arena.restart()
    arena.join("after", calm=calm)


def test_memberships_that_are_made_and_deleted_without_end(arena: Arena) -> None:
    attacker = arena.attacker
    made = list(attacker.one_each(36 * 60, arena.simulator.url))

    def blow(number: int) -> None:
        attacker.create(made[number]).raise_for_status()
        attacker.delete(made[number].name)

    with Hammer(blow, pause=1 / 36) as hammer:
        for name in ("first", "second", "third"):
            arena.join(name)
    assert hammer.blows > 10


def test_a_list_with_ids_of_others_that_is_edited_without_end(arena: Arena) -> None:
    victims = {name: server_ids(2, name) for name in ("first", "second", "third")}
    theirs = [i for ids in victims.values() for i in ids]
    attacker = arena.attacker
    attacker.create(MembershipSpec("edited", theirs, arena.simulator.url, attacker.namespace)).raise_for_status()

    def blow(number: int) -> None:
        attacker.edit("edited", {"serverIDs": [*theirs, *server_ids(1, f"blow-{number}")]})

    with Hammer(blow, pause=1 / 36) as hammer:
        for name, ids in victims.items():
            arena.join(name, ids)
    assert hammer.blows > 10


def test_connections_that_ask_for_metrics_without_end(arena: Arena) -> None:
    url = f"http://127.0.0.1:{arena.operator.port}/metrics"
    with (
        httpx.Client(trust_env=False, timeout=30) as http,
        Hammer(lambda _: http.get(url).raise_for_status(), threads=4) as hammer,
    ):
        for name in ("first", "second", "third"):
            arena.join(name)
    assert hammer.blows > 10
