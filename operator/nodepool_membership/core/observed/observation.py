"""What the cloud was seen to hold: nodes, jobs, pool and cluster, or why they could not be seen.

Not for: fetching it (`cce`). The types are built there, decisions over them are made in `core`.
"""

from array import array
from collections.abc import Collection, Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.observed.drift import Absences
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.observed.waiting import Waiting
from nodepool_membership.core.preflight.facts import Inspection, Network, Template

ACTIVE: Final = "Active"
BROKEN: Final = frozenset({"Error", "Abnormal", "RepairFailed", "Shelved", "Unknow"})
"""Node phases that say a node is not well (docs/cloud-facts.md); every other phase but Active is on its way."""
LEAVING: Final = "Deleting"

MAX_SKEW: Final = timedelta(minutes=5)
"""So far our clock may be off the cloud's (rule P21)."""

_NO_TIME: Final = -1


@dataclass(frozen=True, slots=True)
class Node:
    """One server's node as a listing showed it. `created` is None where the cloud named no time."""

    server_id: str
    uid: str
    pool_id: str
    phase: str
    created: datetime | None = None
    job_id: str = ""


class NodeTable:
    """A listing of one cluster's nodes that came to its end, held compactly (about 0.2 KB a node).

    `begun` is the moment before its first page was asked for: it proves absence only as of its start (rule P13).
    Whoever reads it page by page, so that no more than a page is held in full, calls `close` after the last one.
    A node that comes again (by its uid) is counted once. Nodes without a server id are only counted.

    Several nodes of one server are told as one, whatever their order. Nodes that are leaving give way to others. Of
    what is left the least healthy is shown, without uid: nobody knows which record is true, so the server is neither
    free for an add, nor a member that is well, and no removal can name a node of it.
    """

    __slots__ = ("_codes", "_counts", "_created", "_doubted", "_index", "_instead", "_jobs", "_known", "_repeats",
                 "_uids", "begun")  # fmt: skip

    def __init__(self, begun: datetime, nodes: Iterable[Node] = ()) -> None:
        self.begun = begun
        self._codes: dict[tuple[str, str], int] = {}
        """Of pool and phase: few, so that Python holds each number once."""
        self._counts: list[int] = []
        """Nodes by code, those without a server and all of one server among them."""
        self._index: dict[str, int] = {}
        """The code of each server's node, in the order of the columns."""
        self._instead: dict[str, Node] = {}
        """What is shown of servers that have several nodes."""
        self._created = array("q")
        # A string per page, a line per node: a uid is looked up for a few servers, the ids for all of them.
        self._uids: list[str] = []
        self._jobs: list[str] = []
        self._known: dict[str, tuple[str, int]] = {}
        """Server and code of every uid until `close`."""
        self._repeats = False
        self._doubted: set[str] = set()
        """Pools of which two pages said different things."""
        self.extend(nodes)

    def extend(self, nodes: Iterable[Node]) -> None:
        """Add a page."""
        uids: list[str] = []
        jobs: list[str] = []
        others: list[Node] = []
        for node in nodes:
            code = self._codes.setdefault((node.pool_id, node.phase), len(self._codes))
            if code == len(self._counts):
                self._counts.append(0)
            if not self._is_new(node, code):
                continue
            self._counts[code] += 1
            if not node.server_id:
                continue
            if node.server_id in self._index:
                others.append(node)
                continue
            self._index[node.server_id] = code
            self._created.append(_NO_TIME if node.created is None else int(node.created.timestamp()))
            uids.append(node.uid)
            jobs.append(node.job_id)
        if uids:
            self._uids.append("\n".join(uids))
            self._jobs.append("\n".join(jobs))
        for node in others:
            shown = _shown_of_two(self.nodes((node.server_id,))[node.server_id], node)
            self._index[node.server_id] = self._codes[shown.pool_id, shown.phase]
            self._instead[node.server_id] = shown

    def _is_new(self, node: Node, code: int) -> bool:
        """Whether this node is to be added: not if an earlier page (or line) has shown the very same."""
        before = self._known.get(node.uid) if node.uid else None
        if before is None:
            if node.uid:
                self._known[node.uid] = (node.server_id, code)
            return True
        self._repeats = True
        if before == (node.server_id, code):
            return False
        self._doubted |= {pool for (pool, _), known in self._codes.items() if known in (before[1], code)}
        return True

    def close(self) -> None:
        """There is no further page: what only pages need is freed."""
        self._known = {}

    def is_complete_for(self, pool_id: str, counts: Collection[int], offset: int = 0) -> bool:
        """Whether what this listing lacks is not in the pool either.

        `counts` is what the pool itself said before and after: the listing's number must lie between them, or be
        `offset` short of that. Where the pool says nothing, a node that came twice tells that pages have shifted, so
        that another one may have been left out.
        """
        if pool_id in self._doubted:
            return False
        if not counts:
            return not self._repeats
        shown = self.count_in(pool_id)
        return any(min(counts) <= number <= max(counts) for number in (shown, shown + offset))

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, server_id: str) -> bool:
        return server_id in self._index

    def present(self, ids: Set[str]) -> set[str]:
        """Those of `ids` that have a node in any phase and any pool."""
        return {i for i in ids if i in self._index}

    def active_in(self, pool_id: str, ids: Iterable[str]) -> set[str]:
        """Those of `ids` whose node is Active in the pool."""
        code = self._codes.get((pool_id, ACTIVE))
        if code is None:
            return set()
        code_of = self._index.get
        return {i for i in ids if code_of(i) == code}

    def count_in(self, pool_id: str) -> int:
        """Nodes of the pool but those that are leaving: what `currentNode` of a pool counts (docs/cloud-facts.md)."""
        kinds = zip(self._codes, self._counts, strict=True)
        return sum(count for (pool, phase), count in kinds if pool == pool_id and phase != LEAVING)

    def nodes(self, ids: Iterable[str]) -> dict[str, Node]:
        """The nodes of those of `ids` that have one."""
        wanted = {i for i in ids if i in self._index}
        if not wanted:
            return {}
        kinds = list(self._codes)
        uids = (uid for page in self._uids for uid in page.split("\n"))
        jobs = (job for page in self._jobs for job in page.split("\n"))
        columns = zip(self._index.items(), uids, jobs, self._created, strict=True)
        return {
            i: self._instead.get(i) or Node(i, uid, *kinds[code], _moment(created), job)
            for (i, code), uid, job, created in columns
            if i in wanted
        }


def _shown_of_two(one: Node, other: Node) -> Node:
    """What is shown of a server with two nodes: the same whichever came first."""
    if (one.phase == LEAVING) != (other.phase == LEAVING):
        return other if one.phase == LEAVING else one
    if one.uid and one.uid == other.uid:
        return min(one, other, key=_health)
    return replace(min(one, other, key=_health), uid="")


def _health(node: Node) -> tuple[int, str, str, int, str]:
    """Order by how well a node is, the worst first; then by anything that does not depend on the order of pages."""
    rank = 0 if node.phase in BROKEN else 2 if node.phase == ACTIVE else 1
    created = _NO_TIME if node.created is None else int(node.created.timestamp())
    return rank, node.pool_id, node.phase, created, node.job_id


def _moment(created: int) -> datetime | None:
    return None if created == _NO_TIME else datetime.fromtimestamp(created, UTC)


class JobPhase(StrEnum):
    """A job as the cloud answered for it. Unrecognised phases are on their way, never over."""

    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    UNRECOGNISED = "Unrecognised"
    UNREADABLE = "Unreadable"
    """The cloud's answer for it cannot be read: it may still act, and the nodes are read meanwhile."""
    LOST = "Lost"
    """The cloud does not know the job (404 after retention): "read the nodes", never failure."""


@dataclass(frozen=True, slots=True)
class JobReport:
    """A job and what it says of single servers. The node list decides, the job explains (promise 3).

    `explanations` maps a server id or node uid to the text of its failed sub job.
    """

    job_id: str
    phase: JobPhase
    reason: str = ""
    explanations: Mapping[str, str] = field(default_factory=dict)
    sub_jobs: frozenset[str] = frozenset()
    """Ids of the sub jobs that the job's document names; there may be more."""

    @property
    def is_over(self) -> bool:
        return self.phase in {JobPhase.SUCCEEDED, JobPhase.FAILED, JobPhase.LOST}


@dataclass(frozen=True, slots=True)
class PoolReport:
    """A node pool. `phase` is empty for a usable pool (docs/cloud-facts.md)."""

    phase: str
    current_nodes: int | None = None
    template: Template = field(default_factory=Template)
    counted_before: int | None = None
    """`current_nodes` as it was before the nodes were listed; None where it was not asked or not told."""
    hindrances: tuple[str, ...] = ()
    """Conditions by which the pool says that it may take no nodes, as `Scalable=False`, sorted."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Between the least and the greatest of these a listing of its nodes must lie (rule P13); empty: unknown."""
        return tuple(count for count in (self.counted_before, self.current_nodes) if count is not None)


@dataclass(frozen=True, slots=True)
class ClusterReport:
    """A cluster. Adds are accepted while it is `Available` (docs/cloud-facts.md)."""

    phase: str
    network: Network = field(default_factory=Network)
    most_nodes: int | None = None
    """How many its flavor takes; None where that is not known."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why the cloud could not be looked at or called, in words for the user.

    `retry_after` is what the cloud asked us to wait, in seconds.
    """

    reason: Reason
    message: str
    retry_after: float | None = None


class Freshness(StrEnum):
    """How new a listing must be. Presence may be read from a shared recent one, absence may not (rule P13)."""

    RECENT = "Recent"
    AFTER_READ = "AfterRead"
    """Comes with a look at the node pool, whose count it must agree with to prove absence, and at the cluster."""


@dataclass(frozen=True, slots=True)
class Query:
    """What a decision needs to know first; nothing is decided yet. One kind of question at a time, cheap first."""

    jobs: tuple[str, ...] = ()
    listing: Freshness | None = None
    write: bool = False
    """A place in the write budget."""
    turn: bool = False
    """How long it takes until there may be such a place; none is taken."""
    namespace_state: bool = False
    """Whether what the object lives in is there to stay."""
    servers: frozenset[str] = frozenset()
    """Servers as ECS or BMS describes them."""


@dataclass(frozen=True, slots=True)
class NamespaceState:
    """What the object lives in: its namespace and the definition of its type (rule P20).

    `keeps` says why a deletion must leave the servers alone; None: nothing but this object is being deleted.
    `paused` is the reason in the namespace's annotation that pauses all that is in it; None: there is none.
    """

    keeps: str | None = None
    paused: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """What was seen in this reconcile so far, or the first trouble met while looking."""

    read_at: datetime
    """When the object was read: absence needs a listing begun after it (rule P1)."""
    object_bytes: int = 0
    """Size of the object as it was read."""
    listing: NodeTable | None = None
    jobs: Mapping[str, JobReport] = field(default_factory=dict)
    pool: PoolReport | None = None
    cluster: ClusterReport | None = None
    write_wait: float | None = None
    """Seconds until the write budget has a place, 0 when one is held; None when it was not asked."""
    namespace_state: NamespaceState | None = None
    held_back: Reason | None = None
    """Why nobody may write now: another's write was throttled, or refused since the pool is locked."""
    turn: float | None = None
    """Seconds until the write budget may have a place; None when that was not asked."""
    waiting: Waiting | None = None
    """What a call waited for at the last look, as the last decision left it."""
    clock_offset_seconds: float | None = None
    """The cloud's clock minus ours (rule P21)."""
    trouble: Trouble | None = None
    failed_reads: int = 0
    """Consecutive reconciles, this one included, that could not look."""

    rivals: Rivals | None = field(default_factory=dict)
    """Servers of this membership that others claim; None while not all memberships were read since the start."""

    accepted_offset: int = 0
    """So many nodes more than the list shows the pool may count, by the word of a person (rule P13)."""

    absences: Absences = field(default_factory=dict)
    """Members that earlier listings did not show, as the last decision left them."""

    inspection: Inspection | None = None
    """What was read of servers for this decision."""
    refused: Mapping[str, datetime] = field(default_factory=dict)
    """When servers that were read and not sent were read last, as the last decision left it."""

    @property
    def is_fresh(self) -> bool:
        """Whether the listing was begun after the object was read, and pool and cluster were looked at with it."""
        looked = self.listing is not None and self.pool is not None and self.cluster is not None
        return looked and self.listing is not None and self.listing.begun >= self.read_at

    @property
    def is_skewed(self) -> bool:
        """Whether our clock cannot tell how much time has passed (rule P21)."""
        return self.clock_offset_seconds is not None and abs(self.clock_offset_seconds) > MAX_SKEW.total_seconds()

    @property
    def tells_time(self) -> bool:
        """Whether this look compared our clock with the cloud's, if that tells its own, and found it right."""
        return self.is_fresh and not self.is_skewed

    def is_set_back(self, now: datetime) -> bool:
        """Whether `now`, whole seconds, is by a clock that was set back since the listing was begun."""
        return self.listing is not None and self.is_fresh and now < self.listing.begun.replace(microsecond=0)

    def proves_absence(self, pool_id: str) -> bool:
        """Whether what a fresh listing lacks is not there: not if the pool itself counts other nodes (rule P13)."""
        if self.listing is None or self.pool is None or not self.is_fresh:
            return False
        return self.listing.is_complete_for(pool_id, self.pool.counts, self.accepted_offset)
