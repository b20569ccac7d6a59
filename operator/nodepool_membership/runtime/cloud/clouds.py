"""From a membership to what it may use of the cloud: endpoint, credentials, client, write budget, shared snapshots.

Not for: the wire (`cce`) or decisions (`core`). Looks; every trouble becomes a `TroubleError`.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import CREDENTIALS_MARK, FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Phase
from nodepool_membership.cce.budget import WINDOW_SECONDS, Budgets, Taken, WriteBudget
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import CredentialsError, Source, parse_credentials
from nodepool_membership.cce.endpoints import AllowList, EndpointNotAllowedError, UnknownRegionError, resolve_endpoint
from nodepool_membership.cce.errors import CloudError
from nodepool_membership.cce.servers import ServersClient
from nodepool_membership.cce.snapshots import Outcome, Snapshot, SnapshotKey, Snapshots, Taking
from nodepool_membership.cce.survey import SurveyError, survey
from nodepool_membership.core.decision.record import SEND_WITHIN, Answer
from nodepool_membership.core.observed.observation import Freshness, JobReport, Trouble
from nodepool_membership.core.preflight.facts import Inspection
from nodepool_membership.core.program.effects import Awaited, ClusterView, InspectServers, ReadCluster
from nodepool_membership.kube.errors import KubeForbiddenError, RejectedError
from nodepool_membership.kube.secrets import Secrets, UnusableSecretError
from nodepool_membership.runtime.cloud import error_mapping, inspecting
from nodepool_membership.runtime.cloud.error_mapping import TroubleError
from nodepool_membership.runtime.cloud.flavors import FlavorLists
from nodepool_membership.runtime.cloud.identities import Identities
from nodepool_membership.runtime.cloud.jobs import Jobs
from nodepool_membership.runtime.cloud.locks import Locks
from nodepool_membership.runtime.ops.grants import ANY, Grants

_log = logging.getLogger(__name__)

Connect = Callable[[str, str, Source], CloudClient]
"""Makes a client for endpoint, project id and source of credentials."""
ConnectServers = Callable[[str, str, Source], ServersClient | None]
"""Makes one that reads servers, where their services' addresses are known."""


def _unknown(_endpoint: str, _project_id: str, _source: Source) -> None:
    """No address is known."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Access:
    """What one membership uses of the cloud during one reconcile."""

    client: CloudClient
    snapshot_key: SnapshotKey
    source: Source
    """Of the credentials."""
    budgets: Budgets
    servers: ServersClient | None = None
    """None where no address of ECS is known."""

    @property
    def budget(self) -> WriteBudget:
        """Looked up at each use: one that is idle may be dropped and made anew."""
        return self.budgets.get(self.snapshot_key.endpoint, self.source.identity)


def recent_calls(found: Membership | UnreadableStatus, now: datetime) -> list[float]:
    """Ages in seconds of the calls that count against the budget of writes yet, as far as they are stored."""
    jobs = found.status.jobs if isinstance(found, Membership) else ()
    ages = [_age(batch, now) for batch in jobs if batch.phase is not Phase.WITHDRAWN]
    return [age for age in ages if age is not None and age < WINDOW_SECONDS]


def _age(batch: Batch, now: datetime) -> float | None:
    """Seconds since the call of a batch at least, 0 if it may be this moment; None if none was made.

    Servers are read, and the intent is stored, between a submitTime and its call.
    """
    if batch.submit_time is None:
        return None
    return max((now - batch.submit_time - SEND_WITHIN).total_seconds(), 0.0)


class Clouds:
    """Every cloud endpoint the process talks to."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        connect: Connect,
        secrets: Secrets,
        identities: Identities,
        allow: AllowList,
        budgets: Budgets,
        snapshots: Snapshots,
        jobs: Jobs,
        locks: Locks,
        *,
        monotonic: Callable[[], float],
        connect_servers: ConnectServers = _unknown,
        grants: Grants = ANY,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._connect = connect
        self._secrets = secrets
        self._identities = identities
        self._allow = allow
        self._budgets = budgets
        self._snapshots = snapshots
        self._jobs = jobs
        self._locks = locks
        self._monotonic = monotonic
        self._connect_servers = connect_servers
        self._grants = grants
        self._now = now
        self._flavors = FlavorLists(monotonic)
        self._kept: dict[str, Source] = {}
        """The last good ones of objects that have the finalizer, by uid; in memory only."""

    async def access(self, membership: Membership, *, fresh_secret: bool = False) -> Access:
        """Resolve endpoint and credentials; `fresh_secret` reads the Secret in any case.

        Raises:
            TroubleError: pool not granted, endpoint not allowed, region unknown, Secret missing or unusable.
            KubeError: the API server did not answer.
        """
        pool = membership.spec.node_pool
        if (why := self._grants.why_not(membership.metadata.namespace, pool)) is not None:
            raise TroubleError(Trouble(Reason.NOT_GRANTED, why))
        try:
            endpoint = resolve_endpoint(pool.region, pool.endpoint, self._allow)
        except (EndpointNotAllowedError, UnknownRegionError) as error:
            raise TroubleError(error_mapping.of_setup(error)) from None
        source = await self._source(membership, endpoint, fresh=fresh_secret)
        return Access(
            client=self._connect(endpoint, pool.project_id, source),
            snapshot_key=SnapshotKey(endpoint, pool.project_id, pool.cluster_id, source.fingerprint),
            source=source,
            budgets=self._budgets,
            servers=self._connect_servers(endpoint, pool.project_id, source),
        )

    async def recall(self, membership: Membership, now: datetime) -> None:
        """Count calls that an earlier process made: to be awaited at the first read of an object, before any write.

        Whose credentials cannot be had is not counted: nothing can be called with them either.

        Raises:
            KubeError: the API server did not answer.
        """
        recent = recent_calls(membership, now)
        if not recent:
            return
        try:
            access = await self.access(membership)
        except TroubleError as error:
            _log.warning("calls of a minute ago are not counted: %s", error, extra={"calls": len(recent)})
            return
        access.budget.seed(self._monotonic(), recent)

    def forget(self, uid: str) -> None:
        """The object has no finalizer any more: its credentials are not needed after it."""
        self._kept.pop(uid, None)

    async def _source(self, membership: Membership, endpoint: str, *, fresh: bool) -> Source:
        """That of the spec, else of a deleting object the last good one (rule P20): its Secret is deleted with it."""
        meta = membership.metadata
        try:
            source = await self._asked_for(membership, endpoint, fresh=fresh)
        except TroubleError:
            kept = self._kept.get(meta.uid) if meta.deleting else None
            if kept is None:
                raise
            return kept
        if FINALIZER in meta.finalizers:
            self._kept[meta.uid] = source
        return source

    async def _asked_for(self, membership: Membership, endpoint: str, *, fresh: bool) -> Source:
        spec = membership.spec
        base = await self._base(membership, endpoint, fresh=fresh)
        if spec.assume_agency is None:
            return base
        namespace = membership.metadata.namespace
        return self._identities.agency(namespace, base, spec.assume_agency, spec.identity_ref, endpoint)

    async def _base(self, membership: Membership, endpoint: str, *, fresh: bool) -> Source:
        spec, namespace = membership.spec, membership.metadata.namespace
        if spec.identity_ref is not None:
            return self._identities.of(namespace, spec.node_pool, spec.identity_ref, endpoint)
        if spec.credentials_ref is None:
            text = "neither spec.credentialsRef nor spec.identityRef is set: set one of them"
            raise TroubleError(Trouble(Reason.CREDENTIALS_INVALID, text))
        try:
            return parse_credentials(await self._secret(namespace, spec.credentials_ref.name, fresh=fresh), namespace)
        except CredentialsError as error:
            raise TroubleError(error_mapping.of_setup(error)) from None

    async def _secret(self, namespace: str, name: str, *, fresh: bool) -> Mapping[str, bytes]:
        try:
            data = await self._secrets.read(namespace, name, fresh=fresh)
        except UnusableSecretError as error:
            raise TroubleError(Trouble(Reason.CREDENTIALS_INVALID, str(error))) from None
        except (KubeForbiddenError, RejectedError) as error:
            text = f"Secret {name!r} cannot be read: {error}; the operator needs the right to get Secrets here"
            raise TroubleError(Trouble(Reason.SECRET_NOT_FOUND, text)) from None
        if data is None:
            text = (
                f"Secret {name!r} does not exist in namespace {namespace!r}; create it of type"
                f" {CREDENTIALS_MARK} with the keys accessKey and secretKey, or token, or correct spec.credentialsRef"
            )
            raise TroubleError(Trouble(Reason.SECRET_NOT_FOUND, text))
        return data

    def look(self, access: Access, wanted: ReadCluster) -> ClusterView | Awaited:
        """See a snapshot; where there is none that will do, one is ordered.

        Raises:
            TroubleError: the cloud, or the pool, cannot be looked at.
        """

        async def take(pools: frozenset[str]) -> Outcome:
            try:
                return await survey(access.client, wanted.pool.cluster_id, pools, self._now)
            except SurveyError as error:
                return error_mapping.of_read(error.error, error.subject, access.client.clock_offset_seconds)

        async def prepare() -> Trouble | None:
            try:
                await access.source.current()
            except CloudError as error:
                return error_mapping.of_read(error, "the cluster")
            return None

        pool_id = wanted.pool.node_pool_id
        found = self._snapshots.find(access.snapshot_key, wanted.key, pool_id, _after(wanted), Taking(prepare, take))
        if isinstance(found, Trouble):
            raise TroubleError(found)
        return Awaited() if found is None else _view(access, found, pool_id)

    def is_at_hand(self, access: Access, wanted: ReadCluster) -> bool:
        """Whether `look` would answer at once."""
        pool_id = wanted.pool.node_pool_id
        return self._snapshots.peek(access.snapshot_key, wanted.key, pool_id, _after(wanted)) is not None

    async def inspect(self, wanted: InspectServers, access: Access) -> Inspection:
        """Read servers before a call names them."""
        key = access.snapshot_key
        source = (key.endpoint, key.project_id, key.credential)
        flavors = partial(self._flavors.get, source)
        return await inspecting.inspect(wanted, access.client, access.servers, now=self._now, flavors=flavors)

    def take(self, membership: Membership, access: Access) -> Taken | float:
        """A place in the write budget, or the seconds until there is one for this membership."""
        locked = self._locks.left(access.snapshot_key, membership)
        if locked > 0:
            return locked
        meta = membership.metadata
        return access.budget.try_take(self._monotonic(), meta.uid, meta.namespace)

    def until_turn(self, membership: Membership, access: Access) -> float:
        """Seconds until there may be a place for this membership; none is taken."""
        locked = self._locks.left(access.snapshot_key, membership)
        # Whoever waits for the lock keeps no turn: others may write meanwhile.
        if locked > 0:
            return locked
        meta = membership.metadata
        return access.budget.until_turn(self._monotonic(), meta.uid, meta.namespace)

    def held_back(self, membership: Membership, access: Access) -> Reason | None:
        """Why nobody who shares its credentials may write now."""
        if self._locks.left(access.snapshot_key, membership) > 0:
            return Reason.LOCKED
        return Reason.THROTTLED if access.budget.is_closed(self._monotonic()) else None

    def answered(self, membership: Membership, access: Access, answer: Answer) -> None:
        """A call was answered so."""
        self._locks.answered(access.snapshot_key, membership, answer)

    def ended(self, access: Access, place: Taken) -> None:
        """The call for which the place was taken is over, however it went."""
        access.budget.ended(place, self._monotonic())

    async def jobs(self, access: Access, job_ids: tuple[str, ...]) -> dict[str, JobReport]:
        """What the cloud says of some jobs. One that cannot be read is still on its way, as far as anybody knows.

        Raises:
            TroubleError: it did not answer for all, for a cause that is not the job.
        """
        return await self._jobs.ask(access.client, access.snapshot_key, job_ids)


def _after(wanted: ReadCluster) -> datetime | None:
    """When the snapshot has to begin at the earliest; None: one that was taken lately will do."""
    return None if wanted.freshness is Freshness.RECENT else wanted.read_at


def _view(access: Access, found: Snapshot, pool_id: str) -> ClusterView:
    if (error := found.unread.get(pool_id)) is not None:
        raise _not_seen(access, error, "the node pool")
    return ClusterView(found.nodes, found.pools[pool_id], found.cluster, found.clock_offset_seconds)


def _not_seen(access: Access, error: CloudError, subject: str) -> TroubleError:
    return TroubleError(error_mapping.of_read(error, subject, access.client.clock_offset_seconds))
