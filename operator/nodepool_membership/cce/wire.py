"""The cloud's answers as types that take what the wire brings, and their conversion to what `core` works on.

Not for: HTTP (`client`). Only the fields that are used are read. Odd spellings are the cloud's: `jobid` in the answer
to an add, `serverId` on nodes, Go's time format (docs/cloud-facts.md).
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice
from sys import intern
from typing import Annotated, Final

from pydantic import AliasChoices, BaseModel, BeforeValidator, Field, TypeAdapter

from nodepool_membership.cce.lenient import table
from nodepool_membership.cce.template_wire import ClusterSpec, PoolSpec, hindering
from nodepool_membership.core.observed.observation import ClusterReport, JobPhase, JobReport, Node, PoolReport

_TIME: Final = re.compile(r"(\d{4}-\d\d-\d\d)[ Tt](\d\d:\d\d:\d\d)(?:\.\d+)? ?([Zz]|[+-]\d\d:?\d\d)?(?: .*)?", re.ASCII)
"""Date, time and zone. Go appends the zone's name, and sometimes the reading of another clock."""
MAX_ID: Final = 128
"""Characters of an id; the cloud's have 36."""
MAX_TEXT: Final = 1024
"""Characters that are kept of any other text: some of them are kept for every node, page or job."""
MAX_PAGE_ITEMS: Final = 4000
"""Twice what is asked for at most."""
MAX_POOLS: Final = 1000
"""Of a cluster; far more than any has."""
MAX_SUB_JOBS: Final = 1000
"""Of a job, five for each server of the largest call: what a job says is kept while it runs."""
MAX_EXPLAINED: Final = 64 << 10
"""Characters of all texts of sub jobs that are kept of a job."""
_NO_POOL: Final = "DefaultPool"


def parse_time(text: str) -> datetime | None:
    """Go's `time.String()` or RFC 3339, to whole seconds, in UTC; None for anything else."""
    found = _TIME.fullmatch(text.strip())
    if found is None:
        return None
    try:
        moment = datetime.fromisoformat(f"{found[1]}T{found[2]}{(found[3] or 'Z').upper()}").astimezone(UTC)
    except (ValueError, OverflowError):
        return None
    # Go writes a time that was never set as the first of January of the year 1.
    return moment if moment.year > 1 else None


def _text(value: object) -> object:
    if isinstance(value, str):
        return value[:MAX_TEXT]
    return "" if value is None else value


def _document(value: object) -> object:
    return {} if value is None else value


def _document_only(value: object) -> object:
    return value if isinstance(value, dict) else None


def _id(text: str) -> str:
    """In lower case; what is not one word is no id, and would not fit into a line of a `NodeTable`."""
    return text.lower() if len(text) <= MAX_ID and len(text.split()) == 1 else ""


# What is null is taken for absent.
Text = Annotated[str, BeforeValidator(_text)]
Null = BeforeValidator(_document)


class _Annotations(BaseModel):
    pool_id: Text = Field(default="", alias="kubernetes.io/node-pool.id")


class _Owner(BaseModel):
    pool_id: Text = Field(default="", alias="nodepoolID")


class _Metadata(BaseModel):
    uid: Text = ""
    annotations: _Annotations | None = None
    created: Text = Field(default="", alias="creationTimestamp")
    # A single object, unlike Kubernetes' list of that name; a list is none of ours.
    owner: Annotated[_Owner | None, BeforeValidator(_document_only)] = Field(default=None, alias="ownerReferences")

    @property
    def pool_id(self) -> str:
        return (self.annotations and self.annotations.pool_id) or (self.owner and self.owner.pool_id) or ""


class _NodeStatus(BaseModel):
    phase: Text = ""
    server_id: Text = Field(default="", alias="serverId")
    job_id: Text = Field(default="", alias="jobID")


class NodeDocument(BaseModel):
    """A node as listed or got."""

    # No validator before these: it would be given the whole document as Python objects, of which little is read.
    metadata: _Metadata | None = None
    status: _NodeStatus | None = None

    @property
    def uid(self) -> str:
        return self.metadata.uid if self.metadata else ""

    def node(self) -> Node:
        """The node with ids in lower case; no pool for nodes outside customized pools."""
        metadata, status = self.metadata or _Metadata(), self.status or _NodeStatus()
        pool_id = metadata.pool_id
        # The older form for a node outside customized pools names zone, flavor and system: az#flavor#os.
        outside = pool_id == _NO_POOL or "#" in pool_id
        return Node(
            server_id=_id(status.server_id),
            uid=_id(metadata.uid),
            # Thousands of nodes share a few of these strings.
            pool_id="" if outside else intern(_id(pool_id)),
            phase=intern(status.phase[:MAX_ID]),
            created=parse_time(metadata.created),
            job_id=_id(status.job_id),
        )


class _PageInfo(BaseModel):
    next_marker: Text = Field(default="", alias="nextMarker")


class NodePage(BaseModel):
    """One page of nodes. `page_info` is absent in older deployments. `items` must be there: a listing that lacks them
    would prove the absence of everything. They may be null, which is how Go writes an empty list."""

    items: Annotated[list[NodeDocument], Field(max_length=MAX_PAGE_ITEMS, fail_fast=True)] | None
    page_info: _PageInfo | None = Field(default=None, alias="pageInfo")

    @property
    def documents(self) -> Sequence[NodeDocument]:
        return self.items or ()

    @property
    def next_marker(self) -> str:
        """Empty on the last page, and on every page of older deployments."""
        return self.page_info.next_marker if self.page_info else ""


class _JobMetadata(BaseModel):
    uid: Text = ""


class _JobSpec(BaseModel):
    resource_id: Text = Field(default="", alias="resourceID")
    extend_param: dict[str, object] | None = Field(default=None, alias="extendParam")
    sub_jobs: list["JobDocument"] | None = Field(default=None, alias="subJobs")


class _JobStatus(BaseModel):
    phase: Text = ""
    reason: Text = ""
    message: Text = ""

    @property
    def text(self) -> str:
        return self.reason or self.message


class JobDocument(BaseModel):
    """A job, with sub jobs at any depth."""

    # No defaults but null: a copy of one would be made for each of thousands of sub jobs that say nothing.
    metadata: _JobMetadata | None = None
    spec: _JobSpec | None = None
    status: _JobStatus | None = None

    def report(self, job_id: str) -> JobReport:
        """What the job says as a whole, and of single servers or nodes."""
        explanations: dict[str, str] = {}
        uids: set[str] = set()
        left = MAX_EXPLAINED
        for job in islice(self.sub_jobs(), MAX_SUB_JOBS):
            left -= job.explain(explanations, left)
            if job.metadata and (uid := _id(job.metadata.uid)):
                uids.add(uid)
        status = self.status or _JobStatus()
        phase = _JOB_PHASES.get(status.phase, JobPhase.UNRECOGNISED)
        return JobReport(job_id, phase, status.text, explanations, frozenset(uids))

    def sub_jobs(self) -> Iterator["JobDocument"]:
        """All of them, at any depth."""
        for job in (self.spec and self.spec.sub_jobs) or ():
            yield job
            yield from job.sub_jobs()

    def explain(self, found: dict[str, str], most: int) -> int:
        """Add at most so many characters of its text, if it failed, by server id and by node uid; returns how many."""
        if not (self.status and self.spec and self.status.phase == "Failed"):
            return 0
        text = self.status.text[:most]
        server = (self.spec.extend_param or {}).get("serverID")
        for key in (server, self.spec.resource_id):
            if text and isinstance(key, str) and (named := _id(key)):
                found[named] = text
        return len(text)


_JOB_PHASES: Final = {
    "Initializing": JobPhase.RUNNING,
    "Running": JobPhase.RUNNING,
    "Success": JobPhase.SUCCEEDED,
    "Failed": JobPhase.FAILED,
}


class _PoolStatus(BaseModel):
    phase: Text = ""
    current_node: int | None = Field(default=None, alias="currentNode")
    conditions: object = None


class PoolDocument(BaseModel):
    """A node pool. `status` must be there: a pool without a phase counts as usable."""

    status: _PoolStatus
    spec: Annotated[PoolSpec, BeforeValidator(table)] = Field(default_factory=PoolSpec)

    def report(self) -> PoolReport:
        status = self.status
        return PoolReport(
            status.phase, status.current_node, self.spec.template(), hindrances=hindering(status.conditions)
        )


class _PoolMetadata(BaseModel):
    uid: Text = ""


class _ListedPool(PoolDocument):
    metadata: Annotated[_PoolMetadata, Null] = _PoolMetadata()


class PoolList(BaseModel):
    """All pools of a cluster. `items` must be there; they may be null, which is how Go writes an empty list."""

    items: Annotated[list[_ListedPool], Field(max_length=MAX_POOLS, fail_fast=True)] | None

    def reports(self) -> dict[str, PoolReport]:
        """By id; one without an id is nobody's."""
        return {pool.metadata.uid.lower(): pool.report() for pool in self.items or () if pool.metadata.uid}


class _ClusterStatus(BaseModel):
    phase: Text = ""


class ClusterDocument(BaseModel):
    """A cluster."""

    status: _ClusterStatus
    spec: Annotated[ClusterSpec, BeforeValidator(table)] = Field(default_factory=ClusterSpec)

    def report(self) -> ClusterReport:
        return ClusterReport(self.status.phase, self.spec.network(), self.spec.most_nodes)


JobID = Annotated[str, Field(pattern=r"^[0-9A-Za-z_-]{1,128}$")]
"""What our status cannot hold is none."""


class AddAnswer(BaseModel):
    """The answer to an add: a job id and nothing else."""

    job_id: JobID = Field(validation_alias=AliasChoices("jobid", "jobID", "jobId"))


class _RemoveStatus(BaseModel):
    job_id: JobID = Field(validation_alias=AliasChoices("jobID", "jobid", "jobId"))


class RemoveAnswer(BaseModel):
    """The answer to a removal: the request, and a job id in its status."""

    status: _RemoveStatus

    @property
    def job_id(self) -> str:
        return self.status.job_id


ADD_ANSWER: Final = TypeAdapter(AddAnswer)
CLUSTER: Final = TypeAdapter(ClusterDocument)
JOB: Final = TypeAdapter(JobDocument)
NODE: Final = TypeAdapter(NodeDocument)
NODE_PAGE: Final = TypeAdapter(NodePage)
POOL: Final = TypeAdapter(PoolDocument)
POOLS: Final = TypeAdapter(PoolList)
REMOVE_ANSWER: Final = TypeAdapter(RemoveAnswer)
