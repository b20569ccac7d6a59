"""What a user asks for: the `spec` of a NodePoolMembership, normalised.

Not for: defaults and bounds as users see them; those are in `crds/nodepoolmemberships.yaml`, and the API server
applies them before anything arrives here.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from pydantic import ConfigDict

from nodepool_membership.api.codec import WIRE, LowerID, LowerIDs


@dataclass(frozen=True, slots=True)
class NodePoolRef:
    """The customized node pool, as the user wrote it. At least one of region and endpoint is set (CEL)."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    project_id: LowerID
    cluster_id: LowerID
    node_pool_id: LowerID
    region: str | None = None
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class SecretRef:
    """A Secret in the membership's own namespace."""

    name: str


class IdentityMethod(StrEnum):
    """Which service of the cloud gives temporary keys for a service account's token."""

    FEDERATION = "Federation"
    STS = "STS"


@dataclass(frozen=True, slots=True)
class FederationRef:
    """An OpenID Connect identity provider of the old IAM (v3)."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    identity_provider: str


@dataclass(frozen=True, slots=True)
class STSRef:
    """A provider and a trust agency of the new IAM. `duration_seconds` 900..43200, at most the agency's maximum."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    provider_urn: str
    agency_urn: str
    duration_seconds: int = 3600


@dataclass(frozen=True, slots=True)
class IdentityRef:
    """A service account of the membership's namespace, and who takes its token; or the operator's own identity.

    Either `operator` is true and nothing else is set, or the first three are set, and what `method` names (CEL).
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    service_account_name: str | None = None
    audience: str | None = None
    method: IdentityMethod | None = None
    federation: FederationRef | None = None
    sts: STSRef | None = None
    endpoint: str | None = None
    operator: bool = False


@dataclass(frozen=True, slots=True)
class AgencyRef:
    """An agency by URN (STS), or by its name and the name or id of the account that owns it (IAM v3) (CEL)."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    agency_urn: str | None = None
    external_id: str | None = None
    agency_name: str | None = None
    domain_name: str | None = None
    domain_id: str | None = None


class RemovalPolicy(StrEnum):
    """What becomes of the nodes of servers that are wanted no more: off the list, or their resource deleted."""

    RETAIN = "Retain"
    REMOVE = "Remove"


class DriftPolicy(StrEnum):
    """What becomes of a member that vanished from the pool."""

    REPORT = "Report"
    REJOIN = "Rejoin"


class PreflightMode(StrEnum):
    """What follows from what is read of a server before it is wiped."""

    OFF = "Off"
    REPORT = "Report"
    ENFORCE = "Enforce"


@dataclass(frozen=True, slots=True)
class RequiredTag:
    """The mark that the owner of a server sets on it to say that it may be wiped."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    key: str
    value: str | None = None
    """None: the id of the node pool."""


@dataclass(frozen=True, slots=True)
class Preflight:
    """What is read of servers before a call wipes them, and what follows."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    mode: PreflightMode = PreflightMode.REPORT
    required_tag: RequiredTag | None = None

    @property
    def reads(self) -> bool:
        """Whether servers are read at all."""
        return self.mode is not PreflightMode.OFF or self.required_tag is not None


@dataclass(frozen=True, slots=True)
class Rollout:
    """How many servers meet a new template of the node pool first; 0: as many as any other call names."""

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    canary: int = 0


class Approval(StrEnum):
    """Whether calls wait for a person's word."""

    AUTOMATIC = "Automatic"
    MANUAL = "Manual"


@dataclass(frozen=True, slots=True)
class Spec:
    """The desired state. Server ids are a set in lower case: order and duplicates mean nothing.

    Exactly one of `credentials_ref` and `identity_ref` is set (CEL).
    """

    __pydantic_config__: ClassVar[ConfigDict] = WIRE

    node_pool: NodePoolRef
    server_ids: LowerIDs
    credentials_ref: SecretRef | None = None
    identity_ref: IdentityRef | None = None
    assume_agency: AgencyRef | None = None
    batch_size: int = 200
    max_parallel_jobs: int = 1
    max_attempts: int = 3
    join_timeout_seconds: int = 3600
    removal_policy: RemovalPolicy = RemovalPolicy.RETAIN
    deletion_policy: RemovalPolicy = RemovalPolicy.RETAIN
    drift_policy: DriftPolicy = DriftPolicy.REPORT
    suspend: bool = False
    preflight: Preflight = Preflight()
    rollout: Rollout = Rollout()
    approval: Approval = Approval.AUTOMATIC
