"""From spec.identityRef to a source of temporary keys, one for all memberships that ask for the same.

Not for: the ways to keys (`cce.sources`), Secrets, or when keys are renewed (`cce.sources.renewal`).
"""

import re
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Final, Protocol

import httpx

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import IdentityMethod, IdentityRef
from nodepool_membership.cce.endpoints import EndpointNotAllowedError, Origin, origin_of, url_of
from nodepool_membership.cce.errors import IdentityError
from nodepool_membership.cce.services import ServiceBook
from nodepool_membership.cce.sources.exchange import Lease
from nodepool_membership.cce.sources.federation import Federation, TokenOf
from nodepool_membership.cce.sources.renewal import Renewing
from nodepool_membership.cce.sources.sts import AssumeWithOidc, Trust
from nodepool_membership.core.observation import Trouble
from nodepool_membership.kube.errors import ForbiddenError, GoneError, KubeError, RejectedError
from nodepool_membership.runtime.troubles import TroubleError

_ACCOUNT: Final = re.compile(r'User "system:serviceaccount:([^:"]+:[^:"]+)"')
"""The operator's own, as the API server calls it when it says no."""


class MakesTokens(Protocol):
    """What makes tokens of service accounts (`kube.service_accounts`)."""

    async def token(self, namespace: str, name: str, audience: str) -> str:
        """A new token. Raises KubeError."""


class Identities:
    """The sources of one process, kept while they are used."""

    def __init__(
        self,
        http: httpx.AsyncClient,
        accounts: MakesTokens,
        services: ServiceBook,
        allowed: frozenset[Origin],
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float],
        random: Callable[[], float],
        timeout_seconds: float,
    ) -> None:
        """`allowed` are IAM's and STS's addresses that a spec may name beside those that `services` knows."""
        self._http = http
        self._accounts = accounts
        self._services = services
        self._allowed = allowed | services.identity_origins()
        self._now = now
        self._monotonic = monotonic
        self._random = random
        self._timeout = timeout_seconds
        self._sources: dict[tuple[str, str, IdentityRef], Renewing] = {}

    def of(self, namespace: str, identity: IdentityRef, cce: str) -> Renewing:
        """The source of a service account's keys; `cce` is the endpoint that the membership calls.

        Raises:
            TroubleError: the address of IAM or STS is not known, or not allowed.
        """
        url = self._url(identity, cce)
        key = (url, namespace, identity)
        if key not in self._sources:
            # No exchange takes an hour: an idle one has none under way.
            self._sources = {k: source for k, source in self._sources.items() if not source.is_idle}
            self._sources[key] = self._make(url, namespace, identity)
        return self._sources[key]

    async def close(self) -> None:
        """End all exchanges under way."""
        while self._sources:
            _, source = self._sources.popitem()
            await source.close()

    def _url(self, identity: IdentityRef, cce: str) -> str:
        if identity.endpoint is None:
            known = self._services.of(cce)
            url, what = (known.sts, "STS") if identity.method is IdentityMethod.STS else (known.iam, "IAM")
            if url is None:
                raise TroubleError(
                    Trouble(
                        Reason.ENDPOINT_NOT_ALLOWED,
                        f"no address of {what} is known beside the CCE endpoint {cce}: name it in"
                        " spec.identityRef.endpoint, or start the operator with --endpoints and a file that has it",
                    )
                )
            return url
        try:
            origin = origin_of(identity.endpoint)
        except EndpointNotAllowedError as error:
            raise TroubleError(Trouble(Reason.ENDPOINT_NOT_ALLOWED, f"spec.identityRef.endpoint: {error}")) from None
        if origin not in self._allowed:
            scheme, host, port = origin
            name = f"[{host}]" if ":" in host else host
            raise TroubleError(
                Trouble(
                    Reason.ENDPOINT_NOT_ALLOWED,
                    f"spec.identityRef.endpoint {identity.endpoint!r} is not allowed: start the operator with"
                    f" --allow-endpoint={scheme}://{name}:{port}, or name the address of a public IAM or STS",
                )
            )
        return url_of(origin)

    def _make(self, url: str, namespace: str, identity: IdentityRef) -> Renewing:
        user, fetch = self._way(url, namespace, identity)
        name = f"{url} {namespace} {identity!r}"
        return Renewing(user, name, fetch, monotonic=self._monotonic, random=self._random)

    def _way(self, url: str, namespace: str, identity: IdentityRef) -> tuple[str, Callable[[], Awaitable[Lease]]]:
        """Whom the cloud takes us for, and how keys are had."""
        token_of = self._token_of(namespace, identity)
        if identity.sts is not None:
            sts = identity.sts
            trust = Trust(sts.provider_urn, sts.agency_urn, sts.duration_seconds)
            way = AssumeWithOidc(self._http, url, trust, token_of, now=self._now, timeout_seconds=self._timeout)
            # The cloud counts by the agency, whoever assumes it, and however long the keys live.
            return sts.agency_urn, way.fetch
        if identity.federation is None:
            raise ValueError("an identity without the settings of its method")
        provider = identity.federation.identity_provider
        other = Federation(self._http, url, provider, token_of, now=self._now, timeout_seconds=self._timeout)
        return f"{url} {provider} {namespace} {identity.service_account_name}", other.fetch

    def _token_of(self, namespace: str, identity: IdentityRef) -> TokenOf:
        name, audience = identity.service_account_name, identity.audience

        async def token() -> str:
            try:
                return await self._accounts.token(namespace, name, audience)
            except GoneError:
                raise IdentityError(
                    f"service account {name!r} does not exist in namespace {namespace!r}: create it, or correct"
                    " spec.identityRef.serviceAccountName"
                ) from None
            except ForbiddenError as error:
                raise IdentityError(_how_to_grant(namespace, name, str(error))) from None
            except RejectedError as error:
                raise IdentityError(
                    f"the API server makes no token of service account {name!r} for the audience {audience!r}: {error};"
                    " correct spec.identityRef"
                ) from None
            except KubeError as error:
                raise IdentityError(
                    f"the API server makes no token of service account {name!r}: {error}; it is asked again",
                    reason=Reason.CLOUD_UNREACHABLE,
                ) from None

        return token


def _how_to_grant(namespace: str, name: str, said: str) -> str:
    """What the owner of a namespace has to apply, ready to be typed."""
    found = _ACCOUNT.search(said)
    operator = found[1] if found is not None else "OPERATOR-NAMESPACE:OPERATOR-SERVICE-ACCOUNT"
    role = f"npmem-token-{name}"
    create = f"kubectl -n {namespace} create"
    return (
        f"the operator may not make tokens of service account {name!r}; let it: {create} role {role}"
        f" --verb=create --resource=serviceaccounts/token --resource-name={name} && {create} rolebinding {role}"
        f" --role={role} --serviceaccount={operator} (or deploy/samples/identity); the API"
        f" server says: {said}"
    )
