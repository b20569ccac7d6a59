"""A replica that competes for the lease, on a clock of the test's own, at an API server that is a stand-in."""

import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from nodepool_membership.api.names import COMPONENT
from nodepool_membership.kube.api import KubeApi
from nodepool_membership.kube.errors import GoneError, KubeError, KubeForbiddenError, StaleError, UnansweredError
from nodepool_membership.kube.lease import LeaseObject, lease_namespace, micro_time
from nodepool_membership.runtime.scheduling.leader import Alone, Candidate, Timing, boot_time, own_identity

TIMING = Timing(lease=15, deadline=10)
OURS = {"app.kubernetes.io/name": "nodepool-membership"}


def test_identities_are_of_a_process_not_of_a_pod() -> None:
    one, other = own_identity({"POD_NAME": "pod-1"}), own_identity({"POD_NAME": "pod-1"})
    assert one.startswith("pod-1_")
    assert one != other


def test_the_clock_also_runs_while_the_machine_is_suspended() -> None:
    before = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert before <= boot_time() <= time.clock_gettime(time.CLOCK_BOOTTIME)


async def test_alone_there_is_nothing_to_win() -> None:
    alone = Alone()
    await alone.win()
    assert alone.may_call()
    assert alone.ready() is None
    await alone.release()


class Server(KubeApi):
    """One Lease, and what goes wrong with it."""

    def __init__(self) -> None:
        self.spec: dict[str, object] | None = {}
        self.labels: dict[str, str] = dict(OURS)
        self.version = 1
        self.fail: list[KubeError | None] = []
        self.may_create = True
        self.requests: list[str] = []
        self.served: Callable[[], None] = lambda: None
        self.second: Callable[[], None] = lambda: None
        """Happens while the second request is under way."""

    async def request(self, kind: str, method: str, resource: str, **rest: object) -> bytes:
        assert kind == "lease"
        self.requests.append(method)
        error = self.fail.pop(0) if self.fail else None
        if error is not None:
            raise error
        self.served()
        if len(self.requests) == 2:
            self.second()
        if method == "POST":
            assert resource == "/apis/coordination.k8s.io/v1/namespaces/ns/leases"
            if not self.may_create:
                raise KubeForbiddenError("403 Forbidden: cannot create")
            assert isinstance(rest["body"], dict)
            assert rest["body"]["metadata"] == {"name": COMPONENT, "namespace": "ns", "labels": OURS}
            self.spec, self.labels = {}, dict(OURS)
        elif method == "PATCH":
            body = rest["body"]
            assert isinstance(body, dict)
            if body["metadata"]["resourceVersion"] != str(self.version):
                raise StaleError("409 Conflict")
            self.spec = body["spec"]
            self.labels |= body["metadata"]["labels"]
            self.version += 1
        if self.spec is None:
            raise GoneError("404 NotFound")
        metadata = {"resourceVersion": str(self.version), "labels": self.labels}
        return json.dumps({"metadata": metadata, "spec": self.spec}).encode()

    def hold(self, holder: str, renewed: str = "r") -> None:
        """Somebody else writes."""
        self.version += 1
        spec = self.spec or {}
        self.spec = {"leaseTransitions": 4, **spec, "holderIdentity": holder, "leaseDurationSeconds": 15}
        self.spec["renewTime"] = renewed

    @property
    def holder(self) -> object:
        return (self.spec or {}).get("holderIdentity")


class World:
    """A candidate, its server and its clock, which runs only while the candidate sleeps."""

    def __init__(self) -> None:
        self.server = Server()
        self.time = 1000.0
        self.script: Callable[[], None] = lambda: None
        lease_object = LeaseObject(self.server, "ns")
        wall = datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC)
        self.candidate = Candidate(
            lease_object, "me", TIMING, clock=lambda: self.time, now=lambda: wall, sleep=self.sleep
        )

    async def sleep(self, seconds: float) -> None:
        assert 0 <= seconds <= 2.4
        self.time += seconds
        self.script()


@pytest.fixture
def world() -> World:
    return World()


async def test_the_record_is_the_one_client_go_writes(world: World) -> None:
    await world.candidate.win()
    moment = "2026-01-02T03:04:05.000006Z"
    assert world.server.spec == {
        "holderIdentity": "me",
        "leaseDurationSeconds": 15,
        "acquireTime": moment,
        "renewTime": moment,
        "leaseTransitions": 1,
    }
    assert world.candidate.may_call()
    await world.candidate.release()
    assert not world.candidate.may_call()
    assert (world.server.holder, (world.server.spec or {})["leaseDurationSeconds"]) == ("", 1)


async def test_a_lease_that_is_absent_is_made(world: World) -> None:
    world.server.spec = None
    await world.candidate.win()
    assert world.server.holder == "me"
    assert world.server.requests == ["GET", "POST", "PATCH"]


async def test_a_lease_that_may_not_be_made_is_waited_for_and_the_remedy_told(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.server.spec, world.server.may_create = None, False

    def applied() -> None:
        if world.time > 1030:
            world.server.spec = {}

    world.script = applied
    await world.candidate.win()
    told = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert len(told) == 1
    for word in (
        "ns/nodepool-membership-operator",
        "grant create on leases in ns",
        "--no-leader-elect",
        "cannot create",
    ):
        assert word in told[0]


async def test_a_namespace_that_is_absent_is_named(world: World) -> None:
    world.server.fail = [GoneError("404"), GoneError("404")]
    with pytest.raises(GoneError, match=r"no namespace 'ns'.*--lease-namespace"):
        await LeaseObject(world.server, "ns").read(timeout_seconds=1)


async def test_a_lease_that_may_not_be_read_is_told_with_its_name(world: World) -> None:
    world.server.fail = [KubeForbiddenError("403 Forbidden: cannot get")]
    with pytest.raises(KubeForbiddenError, match=rf"Role in ns .*--lease-name says, '{COMPONENT}'; 403"):
        await LeaseObject(world.server, "ns").read(timeout_seconds=1)


@pytest.mark.parametrize(
    ("labels", "spec", "says"),
    [
        ({}, {"holderIdentity": "kube-scheduler-1"}, "held by 'kube-scheduler-1'"),
        ({"app.kubernetes.io/name": "other"}, {"holderIdentity": "other-0"}, "held by 'other-0'"),
        ({}, {"holderIdentity": "", "leaseTransitions": 7}, "held by nobody now"),
        ({}, {"renewTime": "2026-01-02T03:04:05.000006Z"}, "held by nobody now"),
    ],
)
async def test_a_lease_of_another_program_is_never_taken(
    world: World, caplog: pytest.LogCaptureFixture, labels: dict[str, str], spec: dict[str, object], says: str
) -> None:
    world.server.labels, world.server.spec = labels, dict(spec)

    def labelled() -> None:
        ready.append(world.candidate.ready())
        if world.time > 1200:
            world.server.labels |= OURS

    ready: list[str | None] = []
    world.script = labelled
    await world.candidate.win()
    assert world.time > 1200
    assert world.server.requests.count("PATCH") == 1
    told = {r.getMessage() for r in caplog.records if r.levelno == logging.WARNING}
    assert len(told) == 1
    for text in (told.pop(), str(ready[0])):
        for word in ("another program's", says, "--lease-name", "app.kubernetes.io/name=nodepool-membership"):
            assert word in text


async def test_a_lease_that_nobody_ever_held_is_taken_and_labelled(world: World) -> None:
    """Whoever may not let the operator make it makes it for it."""
    world.server.labels = {"argocd.argoproj.io/instance": "nodepool-membership"}
    await world.candidate.win()
    assert world.server.holder == "me"
    assert world.server.labels == {"argocd.argoproj.io/instance": "nodepool-membership", **OURS}


async def test_what_is_no_lease_is_refused(world: World) -> None:
    world.server.spec = {"leaseTransitions": "many"}
    with pytest.raises(KubeError, match="cannot be read"):
        await LeaseObject(world.server, "ns").read(timeout_seconds=1)


async def test_a_follower_takes_over_when_the_holder_is_silent(world: World) -> None:
    world.server.hold("other")
    world.script = lambda: world.server.hold("other", str(world.time)) if world.time < 1060 else None
    await world.candidate.win()
    assert 1072 <= world.time <= 1078
    assert world.server.spec is not None
    assert world.server.spec["leaseTransitions"] == 5


async def test_a_follower_takes_over_at_once_when_the_lease_is_given_up(world: World) -> None:
    world.server.hold("other")
    world.script = lambda: world.server.hold("") if world.time > 1004 else world.server.hold("other", str(world.time))
    await world.candidate.win()
    assert world.time < 1008


async def test_of_two_that_want_it_the_guard_lets_one(world: World) -> None:
    def the_other_is_faster() -> None:
        world.server.hold("other")

    world.server.second = the_other_is_faster
    world.script = lambda: world.server.hold("") if world.time > 1010 else None
    await world.candidate.win()
    assert world.server.requests[:4] == ["GET", "PATCH", "GET", "GET"]
    assert world.time > 1010


async def test_a_leader_renews_without_reading(world: World) -> None:
    await world.candidate.win()
    world.script = lambda: world.server.hold("thief") if world.time > 1100 else None
    await world.candidate.hold()
    assert set(world.server.requests[2:-2]) == {"PATCH"}
    assert 1100 < world.time < 1105
    assert not world.candidate.may_call()
    assert world.server.holder == "thief"


async def test_a_change_of_the_object_by_somebody_else_costs_one_try(world: World) -> None:
    await world.candidate.win()

    def labelled() -> None:
        world.server.version += 1
        world.script = lambda: None if world.time < 1060 else world.server.hold("thief")

    world.script = labelled
    await world.candidate.hold()
    assert world.time >= 1060


@pytest.mark.parametrize("error", [UnansweredError("TimeoutError"), KubeForbiddenError("403"), GoneError("404")])
async def test_a_leader_that_cannot_renew_stops_at_the_deadline(
    world: World, error: KubeError, caplog: pytest.LogCaptureFixture
) -> None:
    await world.candidate.win()
    world.server.fail = [error] * 20
    await world.candidate.hold()
    assert world.time == 1010
    assert not world.candidate.may_call()
    assert "the lease is lost" in caplog.text
    assert str(error) in caplog.text
    assert world.server.holder == "me"


async def test_a_leader_survives_an_outage_that_is_shorter_than_the_deadline(world: World) -> None:
    await world.candidate.win()
    world.server.fail = [UnansweredError("TimeoutError")] * 3
    world.script = lambda: world.server.hold("thief") if world.time > 1040 else None
    await world.candidate.hold()
    assert world.time > 1040


async def test_a_write_that_was_stored_but_not_answered_is_ours(world: World) -> None:
    def lost() -> None:
        world.server.hold("me")
        raise UnansweredError("TimeoutError")

    world.server.second = lost
    await world.candidate.win()
    assert world.server.requests == ["GET", "PATCH", "GET", "PATCH"]
    assert world.candidate.may_call()


async def test_who_is_frozen_while_it_takes_the_lease_does_not_lead(world: World) -> None:
    def frozen() -> None:
        world.time += 60

    world.server.second = frozen
    await world.candidate.win()
    assert not world.candidate.may_call()
    await world.candidate.hold()
    await world.candidate.release()
    assert world.server.holder == ""


async def test_only_its_own_lease_is_given_up(world: World) -> None:
    world.server.hold("other")
    await world.candidate.release()
    assert world.server.holder == "other"


async def test_a_lease_that_cannot_be_given_up_is_told(world: World, caplog: pytest.LogCaptureFixture) -> None:
    await world.candidate.win()
    world.server.fail = [UnansweredError("ClientConnectorError")]
    await world.candidate.release()
    assert "is not given up" in caplog.text


async def test_ready_is_who_has_seen_the_lease_lately(world: World) -> None:
    assert "not seen yet" in str(world.candidate.ready())
    world.server.hold("other")

    def silence() -> None:
        if world.time < 1020:
            world.server.hold("other", str(world.time))
            assert world.candidate.ready() is None
        elif world.time < 1040:
            world.server.fail = [UnansweredError("TimeoutError")]

    world.script = silence
    seen: list[str | None] = []
    world.server.served = lambda: seen.append(world.candidate.ready())
    await world.candidate.win()
    assert any("not seen for" in str(said) for said in seen)
    assert world.candidate.ready() is None


def test_where_the_lease_is(tmp_path: Path) -> None:
    (tmp_path / "namespace").write_text("from-the-account\n")
    assert lease_namespace({"POD_NAMESPACE": "from-the-pod"}, tmp_path) == "from-the-pod"
    assert lease_namespace({}, tmp_path) == "from-the-account"
    assert lease_namespace({}, tmp_path / "none") == "nodepool-membership"


def test_times_have_microseconds() -> None:
    assert micro_time(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000Z"
