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

from nodepool_membership.api.reasons import FailureReason
from nodepool_membership.core.decision.record import Answer, Refused
from nodepool_membership.core.observed.catalogue import About
from nodepool_membership.core.observed.observation import (
    ACTIVE,
    LEAVING,
    ClusterReport,
    JobPhase,
    JobReport,
    Node,
    NodeTable,
    PoolReport,
)
from nodepool_membership.core.preflight.facts import Network, Template
from property import answers
from property.answers import Reply
from property.inventory import NETWORK, Inventory

EPOCH: Final = datetime(2026, 1, 1, tzinfo=UTC)
POOL: Final = "66666666-7777-8888-9999-000000000000"
OTHER_POOL: Final = "66666666-7777-8888-9999-111111111111"
UNSEEN: Final = 590
"""Seconds for which an accepted server may be missing from listings; the protocol allows 600."""
OVER: Final = 600
"""Seconds after the end of a job, or after a request of unknown outcome was accepted, until it cannot act any more."""
SIGNATURE: Final = 900
"""Seconds around its date for which the gateway takes a signature, also from a request that it has held meanwhile."""
LATEST_ACCEPTANCE: Final = 530
"""Seconds for which the gateway holds a request with a token: nothing else bounds it, so clocks may jump the rest."""


def server_id(number: int) -> str:
    """The id of the n-th server; ids sort like their numbers."""
    return str(uuid.UUID(int=(number + 1) << 64 | 0xA1B2C3D4E5F6))


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
    explains: str = ""
    """What a failed job says of each of its servers."""
    job_runs: JobPhase = JobPhase.RUNNING
    held: int = 0
    """How long the gateway holds a request whose answer is lost; a refusal names a server if it is 0."""
    refusal: tuple[int, str] = (400, "CCE.01400001")
    text: str = ""
    """What the refusal says of a server."""
    retry_after: float | None = None
    how: int = 0
    """Which of the ways on the wire in which such a reply shows."""


FAIR: Final = CallPlan()


@dataclass(slots=True)
class _Add:
    """One add that was accepted, as it acts on one server: changes of its node (None: gone) still to come."""

    accepted: datetime
    over: datetime
    changes: list[tuple[datetime, str | None]]
    in_part: bool = False
    """Of a call that was refused."""


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
    tokens: bool = False
    """Requests carry a token instead of a signature: they are good for ever."""
    weather: CallPlan = FAIR
    next_calls: list[CallPlan] = field(default_factory=list)
    pool_phase: str = ""
    cluster_phase: str = "Available"
    nodes: dict[str, Node] = field(default_factory=dict)
    hidden: set[str] = field(default_factory=set)
    """Servers whose nodes are left out of listings, though the pool counts them."""
    telltales: set[str] = field(default_factory=set)
    """Servers whose node shows that a refused call was carried out; nobody removes them."""
    inventory: Inventory = field(default_factory=Inventory)
    template: Template = field(default_factory=Template)
    """Of the pool."""
    pool_conditions: tuple[str, ...] = ()
    most_nodes: int | None = None
    network: Network = NETWORK
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

    def add(self, servers: Sequence[str], signed_at: datetime, *, answer_arrives: bool = True) -> Answer:
        """Take an add call. `answer_arrives` is False when the operator dies before it can keep the answer."""
        plan = self.next_calls.pop(0) if self.next_calls else self.weather
        if (early := self._turned_away(plan, signed_at)) is not None:
            if isinstance(early, Refused):
                self._spend(servers)
            return early
        self._judge(servers)
        if plan.reply in {Reply.REFUSED, Reply.REFUSED_IN_PART}:
            return self._refuse(plan, servers)
        self._spend(servers)
        if plan.reply is Reply.LOST:
            return answers.lost(plan.how)
        known = answer_arrives and plan.reply is Reply.ACCEPTED
        job = self._accept(servers, plan, self._accepts_at(plan, signed_at, known=known), known=known)
        return answers.accepted(job.job_id) if known else answers.lost(plan.how)

    def _turned_away(self, plan: CallPlan, signed_at: datetime) -> Answer | None:
        """The answer to a call that comes to nothing whatever it asks for."""
        if plan.reply is Reply.NOT_SENT:
            return answers.not_sent(plan.how)
        self.sends += 1
        if not self.tokens and abs((self.now - signed_at).total_seconds()) > SIGNATURE:
            return answers.expired()
        if plan.reply is Reply.LOCKED:
            return answers.locked(plan.how, plan.retry_after)
        if plan.reply is Reply.THROTTLED:
            return answers.throttled(plan.how, plan.retry_after)
        return None

    def _accepts_at(self, plan: CallPlan, signed_at: datetime, *, known: bool) -> datetime:
        if known:
            return self.now
        if self.tokens:
            return self.now + timedelta(seconds=min(plan.held, LATEST_ACCEPTANCE))
        return min(self.now + timedelta(seconds=plan.held), signed_at + timedelta(seconds=SIGNATURE))

    def remove(self, uids: Sequence[str], signed_at: datetime, *, answer_arrives: bool = True) -> Answer:
        """Take a removal; nodes are named by their uids. `answer_arrives` as for `add`."""
        plan = self.next_calls.pop(0) if self.next_calls else self.weather
        if (early := self._turned_away(plan, signed_at)) is not None:
            return early
        if plan.reply in {Reply.REFUSED, Reply.REFUSED_IN_PART}:
            return answers.refused(*plan.refusal, "no node may be removed")
        if plan.reply is Reply.LOST:
            return answers.lost(plan.how)
        known = answer_arrives and plan.reply is Reply.ACCEPTED
        nodes = {node.uid: node for node in self.nodes.values()}
        if known and not all(uid in nodes for uid in uids):
            return answers.refused(404, "CCE.01404001", "a node is not found")
        if known and any(nodes[uid].phase in {"Installing", LEAVING} for uid in uids):
            return answers.refused(403, "CCE.01403006", "a node is being changed")
        at = self._accepts_at(plan, signed_at, known=known)
        self._serial += 1
        job = _Job(str(uuid.UUID(int=self._serial)), plan, at + timedelta(seconds=plan.job), ())
        self._jobs[job.job_id] = job
        base = job.ends if known else at
        for index, uid in enumerate(uids):
            fate = plan.fates[index % len(plan.fates)]
            if uid in nodes and fate is not Fate.BREAKS:
                goes = base + timedelta(seconds=0 if fate is Fate.JOINS else UNSEEN)
                changes: list[tuple[datetime, str | None]] = [(min(at, goes), LEAVING), (goes, None)]
                self._removals.append((nodes[uid].server_id, uid, changes))
        return answers.accepted(job.job_id) if known else answers.lost(plan.how)

    def _judge(self, servers: Iterable[str]) -> None:
        for server in servers:
            if server in self.nodes:
                self.wrongs.append(f"{server} has a node")
            if any(s == server and (add.over > self.now or add.changes) for s, add in self._adds):
                self.wrongs.append(f"{server} is in an earlier add that can still act")

    def _accept(self, servers: Sequence[str], plan: CallPlan, at: datetime, *, known: bool) -> _Job:
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
            in_part = plan.reply is Reply.REFUSED_IN_PART
            self._adds.append((server, _Add(at, base + timedelta(seconds=OVER), changes, in_part)))
        return job

    def forget_answers(self) -> None:
        """What the operator knew of jobs is lost: from now on no add acts later than the protocol allows for that."""
        for _, add in self._adds:
            self._hasten(add, add.accepted + timedelta(seconds=OVER))

    def end_refused(self) -> None:
        """Nobody remembers a refusal: what it did all the same shows now, or never. That it did is not to be known."""
        for _, add in self._adds:
            if add.in_part:
                add.over = min(add.over, self.now)
                add.changes = [(self.now, phase) for _, phase in add.changes[:1]]
        self.advance(0)

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

    def _refuse(self, plan: CallPlan, servers: Sequence[str]) -> Answer:
        """A refusal about servers costs those an attempt that it is found to be about, others nothing (P12, P15)."""
        text = plan.text or "is not allowed"
        text = f"server {servers[0]} {text}" if plan.held == 0 else f"a server {text}"
        answer = answers.refused(*plan.refusal, text)
        if not isinstance(answer, Refused) or answer.entry.reason is FailureReason.SERVER_IN_USE:
            return answer
        if answer.entry.about is not About.SERVER or len(servers) == 1:
            self._spend(servers)
            return answer
        self._spend(servers[:1] if plan.held == 0 else ())
        if plan.reply is Reply.REFUSED_IN_PART and not plan.text:
            self._carry_out_in_part(plan, servers[1:])
        return answer

    def _carry_out_in_part(self, plan: CallPlan, servers: Sequence[str]) -> None:
        """Add servers though the call was refused; one of them shows at once, which is all that can be hoped for."""
        self._spend(servers)
        first, *rest = servers
        self.telltales.add(first)
        # What a refused call does is known to nobody, as if its answer were lost.
        self._accept([first], replace(plan, fates=(Fate.JOINS,), appears=(0,)), self.now, known=False)
        if rest:
            self._accept(rest, plan, self.now, known=False)
        self.advance(0)

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
        if server in self.telltales and self.is_acting(server):
            return
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

    def listing(self, begun: datetime | None = None) -> NodeTable:
        """Every node that is not hidden, as of now; `begun` as the operator's clock has it."""
        shown = [node for server, node in self.nodes.items() if not self._hides(server)]
        return NodeTable(begun or self.now, shown)

    def _hides(self, server: str) -> bool:
        node = self.nodes[server]
        return server in self.hidden and node.pool_id == POOL and node.phase != LEAVING

    def job(self, job_id: str) -> JobReport:
        """What the cloud says of a job."""
        job = self._jobs[job_id]
        if self.now < job.ends:
            return JobReport(job_id, job.plan.job_runs)
        why = {
            s: job.plan.explains or f"node {s} could not be installed"
            for i, s in enumerate(job.servers)
            if job.plan.fates[i % len(job.plan.fates)] is not Fate.JOINS
        }
        failed = job.plan.job_ends is JobPhase.FAILED
        return JobReport(job_id, job.plan.job_ends, "some nodes failed" if failed else "", why if failed else {})

    def pool(self) -> PoolReport:
        everything = NodeTable(self.now, list(self.nodes.values()))
        shown = everything.count_in(POOL)
        return PoolReport(self.pool_phase, shown, template=self.template, hindrances=self.pool_conditions)

    def cluster(self) -> ClusterReport:
        return ClusterReport(self.cluster_phase, self.network, self.most_nodes)


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
