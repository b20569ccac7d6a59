"""From spec.identityRef and spec.assumeAgency to a source of temporary keys, one for all that ask for the same.

Not for: the ways to keys (`cce.sources`), Secrets, tokens (`tokens`), or when keys are renewed (`cce.sources.renewal`).
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import AgencyRef, IdentityMethod, IdentityRef, NodePoolRef
from nodepool_membership.cce.credentials import Source
from nodepool_membership.cce.endpoints import EndpointNotAllowedError, Origin, origin_of, url_of
from nodepool_membership.cce.services import ServiceBook
from nodepool_membership.cce.sources.agency import Agency
from nodepool_membership.cce.sources.exchange import TimedGrant, Via
from nodepool_membership.cce.sources.federation import Federation, TokenOf
from nodepool_membership.cce.sources.pod_identity import PodIdentity, read_token
from nodepool_membership.cce.sources.renewal import Renewing
from nodepool_membership.cce.sources.sts import AssumeWithOidc, Trust
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.runtime.cloud.error_mapping import TroubleError
from nodepool_membership.runtime.cloud.tokens import MakesTokens, token_of_account
from nodepool_membership.runtime.ops.options import OidcFile, OperatorIdentity

Fetch = Callable[[], Awaitable[TimedGrant]]
_OPERATOR_FILE: Final = "the file of --operator-identity"
MOST: Final = 32
"""Sources of one namespace: IAM counts requests by account and address, and all namespaces have one address."""
SPARE_SECONDS: Final = 900.0
"""One that was not asked for as long makes room for another of its namespace."""


@dataclass(frozen=True, slots=True)
class Own:
    """The operator's own identity, and by whom and for what it may be used: namespace, project, cluster."""

    identity: OperatorIdentity | None = None
    grants: frozenset[tuple[str, str, str]] = frozenset()
    agent: Via | None = None
    """How the agent on the node is reached: by no proxy. Set for pod identity."""
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class _Held:
    """`namespace` is empty for what is the operator's own."""

    namespace: str
    source: Renewing


class Identities:
    """The sources of one process, kept while they are used."""

    def __init__(  # noqa: PLR0913 - made in one place, by name
        self,
        via: Via,
        accounts: MakesTokens,
        services: ServiceBook,
        allowed: frozenset[Origin],
        own: Own,
        *,
        monotonic: Callable[[], float],
        random: Callable[[], float],
    ) -> None:
        """`allowed` are addresses that spec.identityRef.endpoint may name beside those that `services` knows."""
        self._via = via
        self._accounts = accounts
        self._services = services
        self._allowed = allowed | services.identity_origins()
        self._own = own
        self._monotonic = monotonic
        self._random = random
        self._sources: dict[str, _Held] = {}

    def of(self, namespace: str, pool: NodePoolRef, identity: IdentityRef, cce: str) -> Renewing:
        """The source of an identity's keys; `cce` is the endpoint that the membership calls.

        Raises:
            TroubleError: an address is not known or not allowed, the operator's own identity may not be used, or the
                namespace has too many.
        """
        if identity.operator:
            return self._of_operator(namespace, pool, cce)
        if identity.service_account_name is None or identity.audience is None or identity.method is None:
            raise ValueError("an identity of nobody: the definition lets none through")
        url = self._url(identity.method, identity.endpoint, cce)
        account, audience = identity.service_account_name, identity.audience
        token = token_of_account(self._accounts, namespace, account, audience)
        if identity.sts is not None:
            trust = Trust(identity.sts.provider_urn, identity.sts.agency_urn, identity.sts.duration_seconds)
            name = f"account {namespace}/{account} for {audience} at {url} as {trust}"
            return self._sts(namespace, name, url, trust, token)
        if identity.federation is None:
            raise ValueError("an identity without the settings of its method: the definition lets none through")
        provider = identity.federation.identity_provider
        name = f"account {namespace}/{account} for {audience} at {url} by {provider}"
        user = f"account {namespace}/{account} at {url} by {provider}"
        return self._shared(namespace, user, name, lambda: Federation(self._via, url, provider, token).fetch)

    def agency(
        self, namespace: str, base: Source, agency: AgencyRef, identity: IdentityRef | None, cce: str
    ) -> Renewing:
        """The source of an agency's keys, assumed with those of another.

        Raises:
            TroubleError: an address is not known or not allowed, or the namespace has too many.
        """
        method = IdentityMethod.FEDERATION if agency.agency_urn is None else IdentityMethod.STS
        # The same service as the identity's own, so the same address.
        endpoint = identity.endpoint if identity is not None and identity.method is method else None
        url = self._url(method, endpoint, cce)
        user = agency.agency_urn or f"agency {agency.agency_name} of {agency.domain_id or agency.domain_name} at {url}"
        name = f"{agency} at {url} on {base.fingerprint}"
        return self._shared(namespace, user, name, lambda: Agency(self._via, url, agency, base).fetch)

    async def close(self) -> None:
        """End all exchanges under way."""
        while self._sources:
            _, held = self._sources.popitem()
            await held.source.close()

    def _of_operator(self, namespace: str, pool: NodePoolRef, cce: str) -> Renewing:
        own = self._own
        if own.identity is None:
            raise TroubleError(
                Trouble(
                    Reason.IDENTITY_REFUSED,
                    "spec.identityRef.operator is true, and the operator has no identity of its own: start it with"
                    " --operator-identity, or use credentialsRef or a service account",
                )
            )
        wanted = (namespace, pool.project_id, pool.cluster_id)
        if wanted not in own.grants:
            raise TroubleError(
                Trouble(
                    Reason.IDENTITY_REFUSED,
                    "the operator's own identity may not be used from this namespace for this project and cluster: let"
                    " the administrator start it with --operator-identity-for=NAMESPACE/PROJECT/CLUSTER of this"
                    f" membership (namespace {namespace!r}), or use credentialsRef or a service account",
                )
            )
        if not isinstance(own.identity, OidcFile):
            agent, environ = own.agent or self._via, own.environ
            return self._shared("", "operator", "operator by its agent", lambda: PodIdentity(agent, environ).fetch)
        path, provider = own.identity.path, own.identity.provider

        async def token() -> str:
            return read_token(path, _OPERATOR_FILE)

        if own.identity.agency_urn is not None:
            url = self._url(IdentityMethod.STS, None, cce)
            trust = Trust(provider, own.identity.agency_urn, own.identity.seconds)
            return self._sts("", f"operator at {url} as {trust}", url, trust, token)
        url = self._url(IdentityMethod.FEDERATION, None, cce)
        name = f"operator at {url} by {provider}"
        return self._shared("", name, name, lambda: Federation(self._via, url, provider, token).fetch)

    def _sts(self, namespace: str, name: str, url: str, trust: Trust, token: TokenOf) -> Renewing:
        # The cloud counts by the agency, whoever assumes it, and however long the keys live.
        way = AssumeWithOidc(self._via, url, trust, token)
        return self._shared(namespace, trust.agency_urn, name, lambda: way.fetch)

    def _shared(self, namespace: str, user: str, name: str, way: Callable[[], Fetch]) -> Renewing:
        if name not in self._sources:
            # No exchange takes so long: one that is idle, or can be spared, has none under way.
            self._sources = {n: held for n, held in self._sources.items() if not held.source.is_idle}
            if namespace:
                self._make_room(namespace)
            source = Renewing(user, name, way(), monotonic=self._monotonic, random=self._random)
            self._sources[name] = _Held(namespace, source)
        return self._sources[name].source

    def _make_room(self, namespace: str) -> None:
        """Have fewer than `MOST` of a namespace; what it edits away again and again must not keep it from more."""
        own = {name: held.source for name, held in self._sources.items() if held.namespace == namespace}
        if len(own) < MOST:
            return
        name, longest = max(own.items(), key=lambda item: item[1].unused)
        if longest.unused < SPARE_SECONDS:
            raise TroubleError(
                Trouble(
                    Reason.IDENTITY_REFUSED,
                    f"memberships of namespace {namespace!r} ask for more than {MOST} different identities and"
                    " agencies, each of which would have to ask IAM or STS: let them share some",
                )
            )
        del self._sources[name]

    def _url(self, method: IdentityMethod, endpoint: str | None, cce: str) -> str:
        if endpoint is None:
            known = self._services.of(cce)
            url, what = (known.sts, "STS") if method is IdentityMethod.STS else (known.iam, "IAM")
            if url is None:
                raise _not_allowed(
                    f"no address of {what} is known beside the CCE endpoint {cce}: name it in"
                    " spec.identityRef.endpoint, or start the operator with --endpoints and a file that has it"
                )
            return url
        try:
            origin = origin_of(endpoint)
        except EndpointNotAllowedError as error:
            raise _not_allowed(f"spec.identityRef.endpoint: {error}") from None
        if origin not in self._allowed:
            scheme, host, port = origin
            name = f"[{host}]" if ":" in host else host
            raise _not_allowed(
                f"spec.identityRef.endpoint {endpoint!r} is not allowed: start the operator with"
                f" --allow-endpoint={scheme}://{name}:{port}, or name the address of a public IAM or STS"
            )
        return url_of(origin)


def _not_allowed(text: str) -> TroubleError:
    return TroubleError(Trouble(Reason.ENDPOINT_NOT_ALLOWED, text))
