"""The cloud's answers as types that take what the wire brings, and their conversion to what `core` works on.

Not for: HTTP (`client`). Only the fields that are used are read. Odd spellings are the cloud's: `jobid` in the answer
to an add, `serverId` on nodes, Go's time format (dossier sections 1, 3, 4, 5).
"""

import re
from datetime import UTC, datetime, timedelta, timezone
from sys import intern
from typing import Annotated, Final, TypeVar

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from nodepool_membership.core.observation import ClusterReport, JobPhase, JobReport, Node, PoolReport

_TIME: Final = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T](\d\d):(\d\d):(\d\d)(?:\.\d+)?\s*(?:Z|([+-])(\d\d):?(\d\d))?(?: [A-Z]+)?\Z"
)
_POOL_ANNOTATION: Final = "kubernetes.io/node-pool.id"
_NO_POOL: Final = "DefaultPool"

T = TypeVar("T")


def parse_time(text: str) -> datetime | None:
    """Go's `time.String()` or RFC 3339, to whole seconds, in UTC; None for anything else."""
    found = _TIME.match(text.strip())
    if found is None:
        return None
    sign, hours, minutes = found[7] or "+", int(found[8] or 0), int(found[9] or 0)
    try:
        offset = timezone(timedelta(hours=hours, minutes=minutes) * (1 if sign == "+" else -1))
        return datetime(*map(int, found.groups()[:6]), tzinfo=offset).astimezone(UTC)  # type: ignore[misc,arg-type]
    except (ValueError, OverflowError):
        return None


def _none_is_default(kind: type[T]) -> BeforeValidator:
    return BeforeValidator(lambda value: kind() if value is None else value)


Text = Annotated[str, _none_is_default(str)]
Texts = Annotated[dict[str, str | None], _none_is_default(dict)]


class _Metadata(BaseModel):
    uid: Text = ""
    annotations: Texts = {}
    created: Text = Field(default="", alias="creationTimestamp")
    owner: Annotated[dict[str, str | None] | list[object], _none_is_default(dict)] = Field(
        default_factory=dict, alias="ownerReferences"
    )


class _NodeStatus(BaseModel):
    phase: Text = ""
    server_id: Text = Field(default="", alias="serverId")
    job_id: Text = Field(default="", alias="jobID")


class NodeDocument(BaseModel):
    """A node as listed or got."""

    metadata: Annotated[_Metadata, BeforeValidator(lambda v: {} if v is None else v)] = _Metadata()
    status: Annotated[_NodeStatus, BeforeValidator(lambda v: {} if v is None else v)] = _NodeStatus()

    def node(self) -> Node:
        """The node with ids in lower case; no pool for nodes outside customized pools."""
        owner = self.metadata.owner if isinstance(self.metadata.owner, dict) else {}
        pool_id = self.metadata.annotations.get(_POOL_ANNOTATION) or owner.get("nodepoolID") or ""
        return Node(
            server_id=self.status.server_id.lower(),
            uid=self.metadata.uid.lower(),
            # Thousands of nodes share a few of these strings.
            pool_id="" if pool_id == _NO_POOL else intern(pool_id.lower()),
            phase=intern(self.status.phase),
            created=parse_time(self.metadata.created),
            job_id=self.status.job_id.lower(),
        )


class _PageInfo(BaseModel):
    next_marker: Text = Field(default="", alias="nextMarker")


class NodePage(BaseModel):
    """One page of nodes. `page_info` is absent in older deployments. `items` must be there: a listing that lacks them
    would prove the absence of everything."""

    items: list[NodeDocument]
    page_info: _PageInfo | None = Field(default=None, alias="pageInfo")


class _JobMetadata(BaseModel):
    uid: Text = ""


class _JobSpec(BaseModel):
    resource_id: Text = Field(default="", alias="resourceID")
    extend_param: Annotated[dict[str, object], _none_is_default(dict)] = Field(
        default_factory=dict, alias="extendParam"
    )
    sub_jobs: Annotated[list["JobDocument"], _none_is_default(list)] = Field(default_factory=list, alias="subJobs")


class _JobStatus(BaseModel):
    phase: Text = ""
    reason: Text = ""
    message: Text = ""


class JobDocument(BaseModel):
    """A job, with sub jobs at any depth."""

    metadata: _JobMetadata = _JobMetadata()
    spec: _JobSpec = Field(default_factory=_JobSpec)
    status: _JobStatus = _JobStatus()

    def report(self, job_id: str) -> JobReport:
        """What the job says as a whole, and of single servers or nodes."""
        explanations: dict[str, str] = {}
        self.explain(explanations)
        phase = _JOB_PHASES.get(self.status.phase, JobPhase.UNRECOGNISED)
        return JobReport(job_id, phase, self.status.reason or self.status.message, explanations)

    def explain(self, found: dict[str, str]) -> None:
        """Add the texts of failed sub jobs, at any depth, by server id and by node uid."""
        for job in self.spec.sub_jobs:
            text = job.status.reason or job.status.message
            if job.status.phase == "Failed" and text:
                server = job.spec.extend_param.get("serverID")
                for key in (server, job.spec.resource_id):
                    if isinstance(key, str) and key:
                        found[key.lower()] = text
            job.explain(found)


_JOB_PHASES: Final = {
    "Initializing": JobPhase.RUNNING,
    "Running": JobPhase.RUNNING,
    "Success": JobPhase.SUCCEEDED,
    "Failed": JobPhase.FAILED,
}


class _PoolStatus(BaseModel):
    phase: Text = ""
    current_node: int | None = Field(default=None, alias="currentNode")


class PoolDocument(BaseModel):
    """A node pool."""

    status: Annotated[_PoolStatus, BeforeValidator(lambda v: {} if v is None else v)] = _PoolStatus()

    def report(self) -> PoolReport:
        return PoolReport(self.status.phase, self.status.current_node)


class _ClusterStatus(BaseModel):
    phase: Text = ""


class ClusterDocument(BaseModel):
    """A cluster."""

    status: _ClusterStatus

    def report(self) -> ClusterReport:
        return ClusterReport(self.status.phase)


class AddAnswer(BaseModel):
    """The answer to an add: a job id and nothing else."""

    job_id: str = Field(alias="jobid", min_length=1)


ADD_ANSWER: Final = TypeAdapter(AddAnswer)
CLUSTER: Final = TypeAdapter(ClusterDocument)
JOB: Final = TypeAdapter(JobDocument)
NODE: Final = TypeAdapter(NodeDocument)
NODE_PAGE: Final = TypeAdapter(NodePage)
POOL: Final = TypeAdapter(PoolDocument)
