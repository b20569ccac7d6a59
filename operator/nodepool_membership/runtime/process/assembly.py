"""The reconciler with everything it needs of the cloud, put together from the options.

Not for: running it (`process`). The one place where the parts of `cce`, `kube` and `runtime` meet.
"""

import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Final

import httpx

from nodepool_membership.cce.breaker import Breakers
from nodepool_membership.cce.budget import Budgets
from nodepool_membership.cce.calls import Observe, nobody
from nodepool_membership.cce.client import CloudClient
from nodepool_membership.cce.credentials import Source
from nodepool_membership.cce.endpoints import AllowList, origin_of
from nodepool_membership.cce.lockout import Lockouts
from nodepool_membership.cce.reads import ReadBudgets, Waited
from nodepool_membership.cce.reads import nobody as nobody_waits
from nodepool_membership.cce.servers import ServerEndpoints, ServersClient
from nodepool_membership.cce.snapshots import SNAPSHOTS_A_POLL, Snapshots, Watcher
from nodepool_membership.cce.sources.exchange import Via
from nodepool_membership.cce.sources.pod_identity import AGENT_SECONDS
from nodepool_membership.cce.transport import make_http
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.kube.events import Events
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.kube.secrets import Secrets
from nodepool_membership.kube.service_accounts import ServiceAccounts
from nodepool_membership.net.proxies import DIRECT, Proxies
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.claims.initial_sync import InitialSync
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.cloud.clouds import Clouds
from nodepool_membership.runtime.cloud.identities import Identities, Own
from nodepool_membership.runtime.cloud.jobs import Jobs
from nodepool_membership.runtime.cloud.locks import Locks
from nodepool_membership.runtime.ops.metrics import Metrics
from nodepool_membership.runtime.ops.options import Options
from nodepool_membership.runtime.reconcile.memory import Memories
from nodepool_membership.runtime.reconcile.reconcile import Parts, Reconciler
from nodepool_membership.runtime.reconcile.send import Sender
from nodepool_membership.runtime.reconcile.store import Store
from nodepool_membership.runtime.scheduling.leader import MayCall
from nodepool_membership.runtime.scheduling.queue import Key

SNAPSHOT_SHARE: Final = 10
"""A snapshot shows who is there for this share (1/n) of the resync interval after its end."""


def _now() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def open_clouds(  # noqa: PLR0913 - the parts of the process, put together once
    options: Options,
    secrets: Secrets,
    accounts: ServiceAccounts,
    wake: Callable[[Key], None],
    observe: Observe = nobody,
    watcher: Watcher | None = None,
    waited: Waited = nobody_waits,
    *,
    open_http: Callable[[float, Proxies, Path | None], httpx.AsyncClient] = make_http,
    now: Callable[[], datetime] = _now,
    monotonic: Callable[[], float] = monotonic,
) -> AsyncIterator[Clouds]:
    """Open the connections to the clouds; `wake` is called with a membership whose snapshot is there.

    `open_http` takes the time-out of a call in seconds, the proxies and the file with further CAs; it and the clocks
    are what a test may want to be its own.
    """
    timeout = options.http_timeout.total_seconds()
    lockouts = Lockouts(clock=monotonic)
    breakers = Breakers(clock=monotonic)
    reads = ReadBudgets(options.reads_per_second, clock=monotonic, waited=waited)
    async with (
        open_http(timeout, options.proxies, options.ca_file) as http,
        # The agent on the node is link-local: no proxy has a way to it, and none may see its keys.
        open_http(AGENT_SECONDS, DIRECT, None) as agent_http,
    ):

        def connect(endpoint: str, project_id: str, source: Source) -> CloudClient:
            return CloudClient(
                http,
                endpoint,
                project_id,
                source,
                now=now,
                timeout_seconds=timeout,
                lockout=lockouts.get(endpoint, source.fingerprint, source.identity),
                breaker=breakers.get(endpoint),
                reads=reads.get(endpoint, source.identity),
                observe=observe,
            )

        def connect_servers(endpoint: str, project_id: str, source: Source) -> ServersClient | None:
            known = options.services.of(endpoint)
            if known.ecs is None:
                return None
            return ServersClient(
                http,
                ServerEndpoints(known.ecs, known.bms or "", known.evs or "", known.vpc or ""),
                project_id,
                source,
                now=now,
                timeout_seconds=timeout,
                lockout=lambda place: lockouts.get(place, source.fingerprint, source.identity),
                reads=lambda place: reads.get(place, source.identity),
                observe=observe,
            )

        identities = Identities(
            Via(http, now, timeout, observe),
            accounts,
            options.services,
            frozenset(origin_of(endpoint) for endpoint in options.allow_endpoints),
            Own(
                options.operator_identity,
                frozenset(options.operator_identity_for),
                Via(agent_http, now, AGENT_SECONDS, observe),
                os.environ,
            ),
            monotonic=monotonic,
            random=random.random,
        )
        snapshots = Snapshots(
            wake,
            keep_seconds=options.resync_interval.total_seconds() / SNAPSHOT_SHARE,
            pace_seconds=options.poll_interval.total_seconds() / SNAPSHOTS_A_POLL,
            now=now,
            monotonic=monotonic,
            watcher=watcher,
        )
        clouds = Clouds(
            connect,
            secrets,
            identities,
            AllowList.parse((*options.allow_endpoints, *options.services.cce_endpoints())),
            Budgets(options.writes_per_minute, random=random.random, clock=monotonic),
            snapshots,
            Jobs(options.poll_interval.total_seconds(), monotonic=monotonic),
            Locks(options.poll_interval.total_seconds(), monotonic=monotonic),
            monotonic=monotonic,
            connect_servers=connect_servers,
            grants=options.grants,
            now=now,
        )
        try:
            yield clouds
        finally:
            await snapshots.close()
            await identities.close()


@asynccontextmanager
async def make_reconciler(  # noqa: PLR0913 - the parts of the process, put together once
    options: Options,
    memberships: Memberships,
    secrets: Secrets,
    accounts: ServiceAccounts,
    events: Events,
    metrics: Metrics,
    may_call: MayCall,
    wake: Callable[[Key], None],
    unread: Unread,
    *,
    open_http: Callable[[float, Proxies, Path | None], httpx.AsyncClient] = make_http,
    now: Callable[[], datetime] = _now,
    monotonic: Callable[[], float] = monotonic,
) -> AsyncIterator[Reconciler]:
    """Put the parts together; `Reconciler.close` must have returned before they are left.

    `wake` has a membership looked at at once, `unread` is told of changes.
    """
    settings = Settings(options.poll_interval, options.settle_window, options.resync_interval, options.removal_delay)
    async with open_clouds(
        options,
        secrets,
        accounts,
        wake,
        metrics.cloud_request,
        metrics,
        metrics.read_waited,
        open_http=open_http,
        now=now,
        monotonic=monotonic,
    ) as clouds:
        claims = Claims(wake, options.settle_window, now=now)
        initial_sync = InitialSync(memberships, options.namespaces, wake, clock=monotonic)
        parts = Parts(
            memberships=memberships,
            store=Store(memberships, events, metrics, claims, clouds, settings),
            sender=Sender(now=now, monotonic=monotonic, may_call=may_call),
            clouds=clouds,
            memories=Memories(claims, initial_sync, clouds, metrics, now=now),
            claims=claims,
            initial_sync=initial_sync,
            now=now,
            may_call=may_call,
            unread=unread,
        )
        yield Reconciler(parts, settings)
