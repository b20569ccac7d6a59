"""A preview by the rights of the person who types: the cloud is read with the membership's own credentials.

Not for: what would be done (`core.decision.preview`), or how it is printed (`plan`). Writes nothing, calls nothing:
the cloud's client is the operator's, and only looks are performed with it (`runtime.reconcile.previewing`).
"""

import asyncio
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.reasons import Reason
from nodepool_membership.cce.services import PUBLIC_ONLY, ServiceBook
from nodepool_membership.core.decision.preview import Preview
from nodepool_membership.core.observed.observation import NamespaceState, Trouble
from nodepool_membership.core.program.foreseeing import foresee
from nodepool_membership.core.program.memory import Known
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.kube.errors import GoneError, KubeError, KubeForbiddenError
from nodepool_membership.kube.secrets import Secrets, UnusableSecretError
from nodepool_membership.kube.service_accounts import ServiceAccounts
from nodepool_membership.net.proxies import ProxyError, proxies_from
from nodepool_membership.plugin.cluster import Cluster, UnusableError
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.ops.options import Options
from nodepool_membership.runtime.process.assembly import open_clouds
from nodepool_membership.runtime.reconcile.previewing import Previewer

_ALONE: Final = (
    "memberships of other namespaces were not looked at: a server that is theirs stays theirs (--all-namespaces looks)"
)


@dataclass(frozen=True, slots=True)
class Reach:
    """Where a cloud may be, as `run` has it."""

    allow_endpoints: tuple[str, ...] = ()
    services: ServiceBook = PUBLIC_ONLY
    ca_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Planned:
    """A preview, and what limits it."""

    membership: Membership
    preview: Preview
    notes: tuple[str, ...]


async def plan(cluster: Cluster, name: str, reach: Reach, *, everywhere: bool) -> Planned:
    """What the operator would do with a membership; `everywhere`: by the claims of all namespaces.

    Raises:
        UnusableError: the membership, its credentials or the cloud cannot be read.
    """
    found = await cluster.read(name)
    if isinstance(found, UnreadableStatus):
        raise UnusableError(f"the status of {name} cannot be understood, so nothing is called: {found.problem}")
    secrets, accounts = Secrets(cluster.api), ServiceAccounts(cluster.api)
    await _may_use(found, secrets, accounts)
    claims, notes = await _claims(cluster, found, everywhere=everywhere)

    async def namespace_state(_: str) -> NamespaceState:
        return await cluster.namespace_state()

    try:
        options = Options(
            allow_endpoints=reach.allow_endpoints,
            services=reach.services,
            ca_file=reach.ca_file,
            proxies=proxies_from(os.environ),
        )
    except ProxyError as error:
        raise UnusableError(str(error)) from None
    there = asyncio.Event()
    async with open_clouds(options, secrets, accounts, lambda _: there.set()) as clouds:
        previewer = Previewer(clouds, claims, namespace_state, now=_now)
        try:
            preview: Preview | Trouble | Known = Known(found.metadata.resource_version, _now())
            while isinstance(preview, Known):
                there.clear()
                preview = await previewer.run(foresee(found, preview, Settings()))
                if isinstance(preview, Known):
                    await there.wait()
        except KubeError as error:
            raise UnusableError(f"the API server {cluster.api.login.server} does not answer: {error}") from None
    if isinstance(preview, Trouble):
        raise UnusableError(f"the cloud cannot be looked at: {preview.reason}: {preview.message}{_hint(preview)}")
    return Planned(found, preview, notes)


def _hint(trouble: Trouble) -> str:
    """The message is about the operator's options: here the same ones are given to the verb."""
    if trouble.reason is not Reason.ENDPOINT_NOT_ALLOWED:
        return ""
    return "; give plan the --allow-endpoint or --endpoints that the operator has"


async def _may_use(membership: Membership, secrets: Secrets, accounts: ServiceAccounts) -> None:
    """See whether the person has the rights to the credentials: messages about the operator's rights are no help."""
    spec, namespace = membership.spec, membership.metadata.namespace
    identity = spec.identity_ref
    if identity is not None and identity.operator:
        raise UnusableError(
            "spec.identityRef.operator is true: only the operator can use its own identity; with spec.suspend: true it"
            " tells in status.plan what it would do"
        )
    try:
        if spec.credentials_ref is not None:
            await secrets.read(namespace, spec.credentials_ref.name)
        elif identity is not None and identity.service_account_name and identity.audience:
            await accounts.token(namespace, identity.service_account_name, identity.audience)
    except KubeForbiddenError as error:
        raise UnusableError(
            f"not allowed: {error}; plan looks at the cloud with the membership's credentials, by your own rights"
        ) from None
    except GoneError:
        raise UnusableError(
            f"service account {identity and identity.service_account_name!r} does not exist in namespace {namespace!r}:"
            " create it, or correct spec.identityRef.serviceAccountName"
        ) from None
    except (UnusableSecretError, KubeError) as error:
        raise UnusableError(f"the membership's credentials cannot be read: {error}") from None


async def _claims(cluster: Cluster, found: Membership, *, everywhere: bool) -> tuple[Claims, tuple[str, ...]]:
    claims = Claims(lambda _: None, Settings().settle_window, now=_now)
    claims.note(found)
    notes = () if everywhere else (_ALONE,)
    try:
        async for other in cluster.others(found.metadata.uid, everywhere=everywhere):
            claims.note(other)
    except KubeForbiddenError as error:
        if everywhere:
            raise UnusableError(f"not allowed: {error}") from None
        notes = (f"other memberships were not looked at ({error}): a server that is theirs stays theirs",)
    except KubeError as error:
        raise UnusableError(f"other memberships cannot be read: {error}") from None
    return claims, notes


def _now() -> datetime:
    return datetime.now(UTC)
