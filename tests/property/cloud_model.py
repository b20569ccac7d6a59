"""A small pure model of the cloud in virtual time, with a judge of every server that an add call names.

Not for: the wire (the simulator has it). It stays within what `protocol.md` assumes of the cloud and is as nasty as
that allows: a server shows in listings up to 10 minutes late, jobs tell lies, a failed node may go and come back.
"""

import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.calls import Accepted, Answer, NotNow, NotSent, Refused, Unknown
from nodepool_membership.core.catalogue import About, refusal
from nodepool_membership.core.observation import ACTIVE, ClusterReport, JobPhase, JobReport, Node, NodeTable, PoolReport

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
POOL: Final = "66666666-7777-8888-9999-000000000000"
OTHER_POOL: Final = "66666666-7777-8888-9999-111111111111"
UNSEEN: Final = 590
"""Seconds for which an accepted server may be missing from listings; the protocol allows 600."""
OVER: Final = 600
"""Seconds after the end of a job, or after a request of unknown outcome was accepted, until it cannot act any more."""
LATEST_ACCEPTANCE: Final = 1190
"""Seconds for which the gateway may hold a signed request: 15 minutes, and 5 of clock skew."""


def server_id(number: int) -> str:
    """The id of the n-th server; ids sort like their numbers."""
    return str(uuid.UUID(int=(number + 1) << 64 | 0xA1B2C3D4E5F6))


class Reply(StrEnum):
    """What becomes of a call."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    LOCKED = "locked"
    THROTTLED = "throttled"
    NOT_SENT = "not sent"
    LOST_BUT_ACCEPTED = "answer lost, accepted"
    LOST = "answer lost, not accepted"


class Fate(StrEnum):
    """What becomes of one server of an accepted add; in a removal JOINS go in time, BREAKS stay, others go late."""

    JOINS = "joins"
    BREAKS = "its node ends in Error"
    GOES = "its node installs, then is gone"
    BLINKS = "its node breaks, is gone, and is there again"
    NEVER = "no node ever"


@dataclass(frozen=True, slots=True)
class CallPlan:
    """How the cloud treats one call. Servers of the call take `fates` and `appears` in turn; times in seconds."""

    reply: Reply = Reply.ACCEPTED
    fates: tuple[Fate, ...] = (Fate.JOINS,)
    appears: tuple[int, ...] = (20,)
    installs: int = 100
    job: int = 180
    job_ends: JobPhase = JobPhase.SUCCEEDED
    job_runs: JobPhase = JobPhase.RUNNING
    held: int = 0
    """How long the gateway holds a request whose answer is lost."""
    refusal: tuple[int, str] = (400, "CCE.01400001")
    retry_after: float | None = None


FAIR: Final = CallPlan()


@dataclass(slots=True)
class _Add:
    """One add that was accepted, as it acts on one server: changes of its node (None: gone) still to come."""

    accepted: datetime
    over: datetime
    changes: list[tuple[datetime, str | None]]


@dataclass(slots=True)
class _Job:
    job_id: str
    plan: CallPlan
    ends: datetime
    servers: tuple[str, ...]


@dataclass(slots=True)
class Cloud:
    """The cloud: its clock, nodes, jobs, and what the operator did to each server."""

    now: datetime = EPOCH
    weather: CallPlan = FAIR
    next_calls: list[CallPlan] = field(default_factory=list)
    pool_phase: str = ""
    cluster_phase: str = "Available"
    nodes: dict[str, Node] = field(default_factory=dict)
    sends: int = 0
    spent: dict[str, int] = field(default_factory=dict)
    """Adds per server that cost an attempt, since it last was an Active node of the pool."""
    accepted: dict[str, int] = field(default_factory=dict)
    wrongs: list[str] = field(default_factory=list)
    """Servers that were named although an earlier add could still act, or they had a node. Must stay empty."""
    removed: set[str] = field(default_factory=set)
    """Servers whose node was removed by a call."""
    _removals: list[tuple[str, str, list[tuple[datetime, str | None]]]] = field(default_factory=list)
    """Server, uid of its node, and changes of that node still to come."""
    _adds: list[tuple[str, _Add]] = field(default_factory=list)
    _jobs: dict[str, _Job] = field(default_factory=dict)
    _serial: int = 0

    def advance(self, seconds: float) -> None:
        """Let time pass; nodes change when their changes are due."""
        self.now += timedelta(seconds=seconds)
        due = [(at, s, phase) for s, add in self._adds for at, phase in add.changes if at <= self.now]
        for at, server, phase in sorted(due, key=lambda change: change[0]):
            self._change(server, phase, at)
        for _, add in self._adds:
            add.changes = [change for change in add.changes if change[0] > self.now]
        for server, uid, changes in self._removals:
            while changes and changes[0][0] <= self.now:
                self._leave(server, uid, changes.pop(0)[1])

    def _leave(self, server: str, uid: str, phase: str | None) -> None:
        node = self.nodes.get(server)
        if node is None or node.uid != uid:
            return
        if phase is None:
            del self.nodes[server]
            self.removed.add(server)
            # What an add still had in mind for the server ends with its node.
            self._adds = [(s, add) for s, add in self._adds if s != server]
        else:
            self.nodes[server] = replace(node, phase=phase)

    def _change(self, server: str, phase: str | None, at: datetime) -> None:
        node = self.nodes.get(server)
        if phase is None:
            self.nodes.pop(server, None)
        elif node is None:
            self._serial += 1
            self.nodes[server] = Node(server, str(uuid.UUID(int=self._serial)), POOL, phase, at)
        else:
            self.nodes[server] = replace(node, phase=phase)
        if phase == ACTIVE:
            self.spent.pop(server, None)

    def add(self, servers: Sequence[str], *, answer_arrives: bool = True) -> Answer:
        """Take an add call. `answer_arrives` is False when the operator dies before it can keep the answer."""
        plan = self.next_calls.pop(0) if self.next_calls else self.weather
        if plan.reply is Reply.NOT_SENT:
            return NotSent("connection refused")
        self.sends += 1
        self._judge(servers)
        if plan.reply is Reply.LOCKED:
            return NotNow(Reason.LOCKED, f"node pool {POOL} is being changed", plan.retry_after)
        if plan.reply is Reply.THROTTLED:
            return NotNow(Reason.THROTTLED, "too many requests", plan.retry_after)
        if plan.reply is Reply.REFUSED:
            return self._refuse(plan, servers)
        self._spend(servers)
        if plan.reply is Reply.LOST:
            return Unknown("the answer was cut off")
        known = answer_arrives and plan.reply is Reply.ACCEPTED
        job = self._accept(servers, plan, known=known)
        return Accepted(job.job_id) if known else Unknown("502 from a gateway")

    def remove(self, uids: Sequence[str], *, answer_arrives: bool = True) -> Answer:
        """Take a removal; nodes are named by their uids. `answer_arrives` as for `add`."""
        plan = self.next_calls.pop(0) if self.next_calls else self.weather
        if plan.reply is Reply.NOT_SENT:
            return NotSent("connection refused")
        self.sends += 1
        if plan.reply is Reply.LOCKED:
            return NotNow(Reason.LOCKED, f"node pool {POOL} is being changed", plan.retry_after)
        if plan.reply is Reply.THROTTLED:
            return NotNow(Reason.THROTTLED, "too many requests", plan.retry_after)
        if plan.reply is Reply.REFUSED:
            return Refused(refusal(*plan.refusal), "no node may be removed")
        if plan.reply is Reply.LOST:
            return Unknown("the answer was cut off")
        known = answer_arrives and plan.reply is Reply.ACCEPTED
        held = 0 if known else min(plan.held, LATEST_ACCEPTANCE - 60)
        nodes = {node.uid: node for node in self.nodes.values()}
        if known and not all(uid in nodes for uid in uids):
            return Refused(refusal(404, "CCE.01404001"), "a node is not found")
        if known and any(nodes[uid].phase in {"Installing", "Deleting"} for uid in uids):
            return Refused(refusal(403, "CCE.01403006"), "a node is being changed")
        at = self.now + timedelta(seconds=held)
        self._serial += 1
        job = _Job(str(uuid.UUID(int=self._serial)), plan, at + timedelta(seconds=plan.job), ())
        self._jobs[job.job_id] = job
        base = job.ends if known else at
        for index, uid in enumerate(uids):
            fate = plan.fates[index % len(plan.fates)]
            if uid in nodes and fate is not Fate.BREAKS:
                goes = base + timedelta(seconds=0 if fate is Fate.JOINS else UNSEEN)
                changes: list[tuple[datetime, str | None]] = [(min(at, goes), "Deleting"), (goes, None)]
                self._removals.append((nodes[uid].server_id, uid, changes))
        return Accepted(job.job_id) if known else Unknown("502 from a gateway")

    def _judge(self, servers: Iterable[str]) -> None:
        for server in servers:
            if server in self.nodes:
                self.wrongs.append(f"{server} has a node")
            if any(s == server and (add.over > self.now or add.changes) for s, add in self._adds):
                self.wrongs.append(f"{server} is in an earlier add that can still act")

    def _accept(self, servers: Sequence[str], plan: CallPlan, *, known: bool) -> _Job:
        at = self.now if known else self.now + timedelta(seconds=min(plan.held, LATEST_ACCEPTANCE - 60))
        self._serial += 1
        job = _Job(str(uuid.UUID(int=self._serial)), plan, at + timedelta(seconds=plan.job), tuple(servers))
        self._jobs[job.job_id] = job
        # Without the job's id nobody can wait for its end: then the protocol counts from the request.
        base = job.ends if known else at
        for index, server in enumerate(servers):
            self.accepted[server] = self.accepted.get(server, 0) + 1
            fate = plan.fates[index % len(plan.fates)]
            appears = at + timedelta(seconds=plan.appears[index % len(plan.appears)])
            changes = _changes(fate, min(appears, base + timedelta(seconds=UNSEEN)), plan, base)
            self._adds.append((server, _Add(at, base + timedelta(seconds=OVER), changes)))
        return job

    def forget_answers(self) -> None:
        """What the operator knew of jobs is lost: from now on no add acts later than the protocol allows for that."""
        for _, add in self._adds:
            self._hasten(add, add.accepted + timedelta(seconds=OVER))

    def end_jobs(self) -> None:
        """Let every job end now."""
        for job in self._jobs.values():
            job.ends = min(job.ends, self.now)
        for _, add in self._adds:
            self._hasten(add, self.now + timedelta(seconds=OVER))
        for _, _, changes in self._removals:
            changes[:] = [(min(at, self.now + timedelta(seconds=UNSEEN)), phase) for at, phase in changes]

    def _hasten(self, add: _Add, over: datetime) -> None:
        add.over = min(add.over, over)
        latest = max(self.now, over - timedelta(seconds=OVER - UNSEEN))
        add.changes = [(min(at, latest), phase) for at, phase in add.changes]
        self.advance(0)

    def is_acting(self, server: str) -> bool:
        """Whether an add may still act on the server."""
        return any(s == server and (add.over > self.now or add.changes) for s, add in self._adds)

    def _refuse(self, plan: CallPlan, servers: Sequence[str]) -> Refused:
        """A refusal about servers costs those an attempt that it is found to be about, others nothing (P12, P15)."""
        entry, names_one = refusal(*plan.refusal), plan.held == 0
        text = f"server {servers[0]} is not allowed" if names_one else "a server is not allowed"
        if entry.about is About.MOMENT:
            return Refused(entry, text, text)
        about_all = entry.about is not About.SERVER or len(servers) == 1
        self._spend(servers if about_all else servers[:1] if names_one else ())
        return Refused(entry, text, text)

    def _spend(self, servers: Sequence[str]) -> None:
        for server in servers:
            self.spent[server] = self.spent.get(server, 0) + 1

    def others_add(self, server: str, pool: str, phase: str) -> None:
        """Somebody else makes the server a node, unless the cloud is at work on it."""
        if server not in self.nodes and not self.is_acting(server):
            self._serial += 1
            self.nodes[server] = Node(server, str(uuid.UUID(int=self._serial)), pool, phase, self.now)
            if phase == ACTIVE and pool == POOL:
                self.spent.pop(server, None)

    def others_remove(self, server: str) -> None:
        """Somebody else removes the server's node; the cloud lets no job bring it back."""
        if self.nodes.pop(server, None) is not None:
            self._adds = [(s, add) for s, add in self._adds if s != server]

    def others_move(self, server: str) -> None:
        """Somebody else moves the server's node to the other pool, or back."""
        node = self.nodes.get(server)
        if node is not None and not self.is_acting(server):
            self.nodes[server] = replace(node, pool_id=OTHER_POOL if node.pool_id == POOL else POOL)

    def others_break(self, server: str) -> None:
        """The server's node breaks down."""
        if server in self.nodes:
            self.nodes[server] = replace(self.nodes[server], phase="Abnormal")

    def listing(self) -> NodeTable:
        """Every node, as of now."""
        return NodeTable(self.now, list(self.nodes.values()))

    def job(self, job_id: str) -> JobReport:
        """What the cloud says of a job."""
        job = self._jobs[job_id]
        if self.now < job.ends:
            return JobReport(job_id, job.plan.job_runs)
        why = {
            s: f"node {s} could not be installed"
            for i, s in enumerate(job.servers)
            if job.plan.fates[i % len(job.plan.fates)] is not Fate.JOINS
        }
        failed = job.plan.job_ends is JobPhase.FAILED
        return JobReport(job_id, job.plan.job_ends, "some nodes failed" if failed else "", why if failed else {})

    def pool(self) -> PoolReport:
        return PoolReport(self.pool_phase)

    def cluster(self) -> ClusterReport:
        return ClusterReport(self.cluster_phase)


def _changes(fate: Fate, appears: datetime, plan: CallPlan, base: datetime) -> list[tuple[datetime, str | None]]:
    installed = appears + timedelta(seconds=plan.installs)
    match fate:
        case Fate.JOINS:
            return [(appears, "Installing"), (installed, ACTIVE)]
        case Fate.BREAKS:
            return [(appears, "Installing"), (installed, "Error")]
        case Fate.GOES:
            return [(appears, "Installing"), (installed, None)]
        case Fate.BLINKS:
            back = base + timedelta(seconds=UNSEEN)
            gone = min(installed, back)
            return [(min(appears, gone), "Error"), (gone, None), (back, "Error")]
        case Fate.NEVER:
            return []
