"""Every reason a condition, an Event or a failure of a server can carry. Stable: users alert on them.

Not for: which reason applies when (`core`). A reason enters here with the code that uses it.
"""

from enum import StrEnum
from typing import Final


class Reason(StrEnum):
    """Why a membership's condition has its status (Kubernetes API conventions: CamelCase, stable)."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    PROGRESSING_WITH_RETRY = "ProgressingWithRetry"
    SUCCEEDED = "Succeeded"
    SUSPENDED = "Suspended"
    DELETING = "Deleting"

    SECRET_NOT_FOUND = "SecretNotFound"  # noqa: S105 - a reason, not a secret
    CREDENTIALS_INVALID = "CredentialsInvalid"
    UNAUTHENTICATED = "Unauthenticated"
    FORBIDDEN = "Forbidden"
    IDENTITY_REFUSED = "IdentityRefused"
    ENDPOINT_NOT_ALLOWED = "EndpointNotAllowed"
    REGION_UNKNOWN = "RegionUnknown"
    NOT_GRANTED = "NotGranted"
    NOT_FOUND = "NotFound"
    POOL_NOT_READY = "PoolNotReady"
    CLUSTER_NOT_READY = "ClusterNotReady"
    CLOUD_UNREACHABLE = "CloudUnreachable"
    THROTTLED = "Throttled"
    LOCKED = "Locked"
    LISTING_IMPLAUSIBLE = "ListingImplausible"
    QUOTA_EXCEEDED = "QuotaExceeded"
    INSUFFICIENT_BALANCE = "InsufficientBalance"
    CALL_REFUSED = "CallRefused"
    CLOCK_SKEW = "ClockSkew"
    SERVER_IN_USE = "ServerInUse"

    STARTING = "Starting"
    PAUSED = "Paused"
    AWAITING_APPROVAL = "AwaitingApproval"
    CONFLICT = "Conflict"

    SERVERS_FAILED = "ServersFailed"
    JOB_OVERDUE = "JobOverdue"
    POOL_REFUSES = "PoolRefuses"
    TOO_MANY_FAILURES = "TooManyFailures"
    CANARY_FAILED = "CanaryFailed"
    STATUS_LOST = "StatusLost"
    STATUS_INVALID = "StatusInvalid"
    STATUS_FULL = "StatusFull"
    TOO_MANY_MEMBERSHIPS = "TooManyMemberships"


class FailureReason(StrEnum):
    """Why a single server did not become, is no longer, or still is a member of the pool."""

    REFUSED = "Refused"
    SERVER_IN_USE = "ServerInUse"
    QUOTA_EXCEEDED = "QuotaExceeded"
    INSUFFICIENT_BALANCE = "InsufficientBalance"
    FORBIDDEN = "Forbidden"
    UNAUTHENTICATED = "Unauthenticated"
    NOT_FOUND = "NotFound"
    POOL_NOT_READY = "PoolNotReady"
    INSTALL_FAILED = "InstallFailed"
    DISK_PARTITIONED = "DiskPartitioned"
    TEMPLATE_INVALID = "TemplateInvalid"
    RESOURCES_SHORT = "ResourcesShort"
    DOWNLOAD_FAILED = "DownloadFailed"
    NODE_ERROR = "NodeError"
    NODE_VANISHED = "NodeVanished"
    OTHER_POOL = "OtherPool"
    NEVER_APPEARED = "NeverAppeared"
    JOIN_TIMEOUT = "JoinTimeout"
    INSTALLING = "Installing"
    MEMBER_MISSING = "MemberMissing"
    LISTING_IMPLAUSIBLE = "ListingImplausible"
    MEMBER_NOT_ACTIVE = "MemberNotActive"
    REMOVAL_FAILED = "RemovalFailed"
    OTHER = "Other"

    SERVER_NOT_FOUND = "ServerNotFound"
    SERVER_IS_NODE = "ServerIsNode"
    REQUIRED_TAG_MISSING = "RequiredTagMissing"
    SERVER_NOT_RUNNING = "ServerNotRunning"
    SPOT_SERVER = "SpotServer"
    OTHER_VPC = "OtherVPC"
    OTHER_SUBNET = "OtherSubnet"
    SEVERAL_INTERFACES = "SeveralInterfaces"
    OTHER_FLAVOR = "OtherFlavor"
    SERVER_TOO_SMALL = "ServerTooSmall"
    OTHER_SERVER_GROUP = "OtherServerGroup"
    OTHER_RESERVATION = "OtherReservation"
    OTHER_ENTERPRISE_PROJECT = "OtherEnterpriseProject"
    OTHER_DISK_COUNT = "OtherDiskCount"
    OTHER_DISK_SIZE = "OtherDiskSize"
    OTHER_POOL_KIND = "OtherPoolKind"
    NO_IPV6 = "NoIPv6"
    FLAVOR_NOT_FOR_TURBO = "FlavorNotForTurbo"
    SERVER_FROZEN = "ServerFrozen"
    SERVER_LOCKED = "ServerLocked"
    ABOUT_TO_TERMINATE = "AboutToTerminate"


class FindingReason(StrEnum):
    """What is told of servers or of their pool and stops nothing."""

    OTHER_BILLING = "OtherBilling"
    STALE_CCE_TAG = "StaleCCETag"
    WINDOWS_SERVER = "WindowsServer"
    SERVERS_UNREAD = "ServersUnread"
    ABSENT_BY_TAG = "AbsentByTag"
    AUTOSCALING_ON = "AutoscalingOn"
    DESIRED_COUNT_LOW = "DesiredCountLow"
    TEMPLATE_CHANGED = "TemplateChanged"
    POOL_CONDITIONS = "PoolConditions"
    CLUSTER_FULL = "ClusterFull"


EXPLAINED: Final = frozenset(
    {
        FailureReason.INSTALL_FAILED,
        FailureReason.DISK_PARTITIONED,
        FailureReason.TEMPLATE_INVALID,
        FailureReason.RESOURCES_SHORT,
        FailureReason.DOWNLOAD_FAILED,
    }
)
"""A failed job told why the server's node is broken."""

HOLDS_NODE: Final = frozenset(
    {
        *EXPLAINED,
        FailureReason.NODE_ERROR,
        FailureReason.OTHER_POOL,
        FailureReason.JOIN_TIMEOUT,
        FailureReason.INSTALLING,
        FailureReason.MEMBER_NOT_ACTIVE,
    }
)
"""The server has a node: it is never sent while it has (rules P1, P10)."""

VANISHED: Final = frozenset({FailureReason.MEMBER_MISSING, FailureReason.LISTING_IMPLAUSIBLE})
"""A recorded member that has no node any more."""

DRIFT: Final = VANISHED | {FailureReason.MEMBER_NOT_ACTIVE}
"""A recorded member that the node list does not show as Active in the pool. Costs no attempt."""


PREFLIGHT: Final = frozenset(
    {
        FailureReason.SERVER_NOT_FOUND,
        FailureReason.SERVER_IS_NODE,
        FailureReason.REQUIRED_TAG_MISSING,
        FailureReason.SERVER_NOT_RUNNING,
        FailureReason.SPOT_SERVER,
        FailureReason.OTHER_VPC,
        FailureReason.OTHER_SUBNET,
        FailureReason.SEVERAL_INTERFACES,
        FailureReason.OTHER_FLAVOR,
        FailureReason.SERVER_TOO_SMALL,
        FailureReason.OTHER_SERVER_GROUP,
        FailureReason.OTHER_RESERVATION,
        FailureReason.OTHER_ENTERPRISE_PROJECT,
        FailureReason.OTHER_DISK_COUNT,
        FailureReason.OTHER_DISK_SIZE,
        FailureReason.OTHER_POOL_KIND,
        FailureReason.NO_IPV6,
        FailureReason.FLAVOR_NOT_FOR_TURBO,
        FailureReason.SERVER_FROZEN,
        FailureReason.SERVER_LOCKED,
        FailureReason.ABOUT_TO_TERMINATE,
    }
)
"""The server was read before a call and not sent. Costs no attempt; it is read again later, and sent once mended."""


class EventReason(StrEnum):
    """Reasons of Kubernetes Events; one per change of state, never per look."""

    BATCH_SUBMITTED = "BatchSubmitted"
    BATCH_SUCCEEDED = "BatchSucceeded"
    BATCH_FAILED = "BatchFailed"
    BATCH_REFUSED = "BatchRefused"
    BATCH_WITHDRAWN = "BatchWithdrawn"
    BATCH_VERIFYING = "BatchVerifying"
    REMOVAL_OWED = "RemovalOwed"
    FOREIGN_ADD = "ForeignAdd"
    REMOVAL_WITHHELD = "RemovalWithheld"
