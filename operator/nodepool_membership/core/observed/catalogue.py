"""Known error codes and texts of the cloud: what each is about, its reason, and the remedy for a user.

Not for: parsing answers (`cce.errors`), or what follows from a refusal (`record`). One table, printed in
docs/error-codes.md; codes from the error-code pages of CCE and of the API gateway, texts from its guide and from
reports (docs/cloud-facts.md, Errors).
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason, Reason


class About(StrEnum):
    """What a refusal is about; only one about a server may be blamed on servers, one about the moment costs nothing."""

    SERVER = "Server"
    POOL = "Pool"
    QUOTA = "Quota"
    ACCOUNT = "Account"
    TRANSIENT = "Transient"


@dataclass(frozen=True, slots=True)
class Entry:
    """One known cause with its remedy, a sentence for the person on call."""

    about: About
    reason: Reason | FailureReason
    remedy: str
    may_be_one: bool = False
    """Not known from code and text whether it is about all or about one server among many: that is asked (rule P15)."""
    spares: bool = False
    """Nothing about any server could end it, so no server is blamed and no attempt is used up."""

    @property
    def condition(self) -> Reason:
        """The reason that a condition has for it."""
        return _CONDITIONS.get(self.reason.value, Reason.CALL_REFUSED)

    @property
    def blames(self) -> bool:
        """Whether the servers that the call named are recorded as failed."""
        return self.about is not About.TRANSIENT and not self.spares

    @property
    def failure(self) -> FailureReason:
        """The reason that a server is recorded with."""
        return _FAILURES.get(self.reason.value, FailureReason.REFUSED)


_CONDITIONS: Final = {reason.value: reason for reason in Reason}
_FAILURES: Final = {reason.value: reason for reason in FailureReason}

# Refusals that would be the same again until somebody does something.

_QUOTA: Final = Entry(
    About.QUOTA,
    FailureReason.QUOTA_EXCEEDED,
    "raise the quota, or free some of it, then set the annotation cce.nodepools.dev/reset-requested-at",
)
_LIMIT: Final = Entry(
    About.QUOTA,
    FailureReason.QUOTA_EXCEEDED,
    "raise the quota, or free some of it; if it is a limit of the server's own flavor, choose another server; then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
    may_be_one=True,
)
_SIZE: Final = Entry(
    About.QUOTA,
    FailureReason.QUOTA_EXCEEDED,
    "the cluster is at its maximum number of nodes: change the cluster's scale, or shorten spec.serverIDs",
)
_SOLD_OUT: Final = Entry(
    About.QUOTA,
    FailureReason.QUOTA_EXCEEDED,
    "the region has no more of the flavor or disk type: choose another one in the node pool, then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
    may_be_one=True,
)
_BALANCE: Final = Entry(
    About.ACCOUNT,
    FailureReason.INSUFFICIENT_BALANCE,
    "top up the account, then set the annotation cce.nodepools.dev/reset-requested-at",
)
_FORBIDDEN: Final = Entry(
    About.ACCOUNT,
    FailureReason.FORBIDDEN,
    "grant cce:node:add (and cce:node:create) to the owner of the key, check spec.nodePool.projectID, then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
)
_RESTRICTED: Final = Entry(
    About.ACCOUNT,
    FailureReason.FORBIDDEN,
    "the account is restricted: ask its owner, then set the annotation cce.nodepools.dev/reset-requested-at",
)
_AGENCY: Final = Entry(
    About.ACCOUNT,
    FailureReason.FORBIDDEN,
    "CCE's own agency lacks a right: grant it again in the CCE console, then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
)
_NOT_AUTHORISED: Final = Entry(
    About.ACCOUNT,
    FailureReason.FORBIDDEN,
    "the account has not authorized CCE to use its other services: let its owner open the CCE console in this region"
    " and confirm the authorization (agency cce_admin_trust), then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
    spares=True,
)
_NOT_LET_IN: Final = Entry(
    About.ACCOUNT,
    FailureReason.FORBIDDEN,
    "the gateway lets this user or address in no more: check its access rules and the account, then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
)
_LOGIN: Final = Entry(
    About.ACCOUNT,
    FailureReason.UNAUTHENTICATED,
    "check the keys in the Secret named by spec.credentialsRef, or the identity in spec.identityRef",
)
_TOKEN: Final = Entry(
    About.ACCOUNT,
    FailureReason.UNAUTHENTICATED,
    "the token has expired: put a new one into the Secret named by spec.credentialsRef",
)
_TEMPLATE: Final = Entry(
    About.POOL,
    FailureReason.POOL_NOT_READY,
    "correct the node pool's template in CCE, or choose a server that fits it, then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
    may_be_one=True,
)
_PROTECTED: Final = Entry(
    About.POOL,
    FailureReason.REFUSED,
    "end the deletion protection in CCE, then set the annotation cce.nodepools.dev/reset-requested-at",
    may_be_one=True,
)
_MISSING: Final = Entry(
    About.POOL,
    FailureReason.NOT_FOUND,
    "check projectID, clusterID and nodePoolID in spec.nodePool, and that the server exists in this project",
    may_be_one=True,
)
"""The code does not say what is missing. Cluster and pool were read directly before an add, so it may be a server."""
_NO_SUCH_API: Final = Entry(
    About.POOL,
    FailureReason.NOT_FOUND,
    "this call is not offered there: check region and endpoint in spec.nodePool; if reading works, ask the cloud's"
    " support whether it has the call that adds nodes to a pool (nodes/add)",
    spares=True,
)
_MANGLED: Final = Entry(
    About.POOL,
    FailureReason.REFUSED,
    "the gateway did not take the request as it came: check proxies on the way, try a smaller spec.batchSize, then set"
    " the annotation cce.nodepools.dev/reset-requested-at",
)
_OTHER: Final = Entry(
    About.ACCOUNT,
    FailureReason.REFUSED,
    "look the code up in the error codes of CCE, then set the annotation cce.nodepools.dev/reset-requested-at",
)

# About servers.

_SERVER: Final = Entry(
    About.SERVER,
    FailureReason.REFUSED,
    "check that the servers meet the pool's conditions (VPC and subnet, flavor, disks, running, in no other cluster)",
)
_IN_USE: Final = Entry(
    About.SERVER,
    FailureReason.SERVER_IN_USE,
    "the operator looks again; if the server is a node of another cluster, remove it there or take it off"
    " spec.serverIDs",
)

# About the moment: the same call may pass later, without anybody doing anything.

_LOCKED: Final = Entry(
    About.TRANSIENT, Reason.LOCKED, "the cluster or pool is busy with another task, the operator waits"
)
_THROTTLED: Final = Entry(About.TRANSIENT, Reason.THROTTLED, "the cloud limits requests, the operator waits")
_POOL_STATE: Final = Entry(
    About.TRANSIENT,
    Reason.POOL_NOT_READY,
    "the node pool's state forbids it, the operator waits; if it stays so, look at the node pool in CCE",
)
_CLUSTER_STATE: Final = Entry(
    About.TRANSIENT,
    Reason.CLUSTER_NOT_READY,
    "the cluster's state forbids it, the operator waits; if it stays so, look at the cluster in CCE",
)
_BROKEN: Final = Entry(
    About.TRANSIENT,
    Reason.CLOUD_UNREACHABLE,
    "the cloud has trouble of its own, the operator looks again; if it lasts, ask its support",
)

CODES: Final[dict[str, Entry]] = {
    **{f"CCE.014000{n}": _QUOTA for n in ("07", "19", "20")},
    **{f"CCE.014000{n}": _LIMIT for n in ("08", "09", "10", "11", "12", "13", "25")},
    "CCE.01400014": _SIZE,
    **{f"CCE.014000{n}": _TEMPLATE for n in ("02", "16", "18")},
    **{f"CCE.014000{n}": _SOLD_OUT for n in ("21", "22")},
    "CCE.01400023": _LOCKED,
    **{f"CCE.014000{n}": _CLUSTER_STATE for n in ("24", "74", "75")},
    "CCE.01400034": _PROTECTED,
    "CCE.01401001": _LOGIN,
    "CCE.01403001": _FORBIDDEN,
    "CCE.01403002": _RESTRICTED,
    "CCE.01403008": _AGENCY,
    **{f"CCE.014030{n}": _POOL_STATE for n in ("03", "06")},
    "CCE.01403009": _CLUSTER_STATE,
    "CCE.01404001": _MISSING,
    **{f"CCE.014090{n}": _LOCKED for n in ("01", "02")},
    **{f"CCE.014290{n}": _LOCKED for n in ("02", "03")},
    "CCE.01429004": _BALANCE,
    "CCE.02429001": _THROTTLED,
    **{f"CCE.0{n}400001": _SERVER for n in (1, 2, 3)},
    **{f"CCE.0{n}500001": _BROKEN for n in (1, 2, 3)},
    "E.CFE.4000201": _SERVER,
    "CCE_CM.0002": _POOL_STATE,
    "CCE_CM.0003": _MISSING,
    **{f"CCE_CM.{n}": _SERVER for n in ("0004", "0101", "0201", "0402")},
    "CCE_CM.0021": _SOLD_OUT,
    "CCE_CM.0410": _TEMPLATE,
    **{f"APIGW.{n}": _NO_SUCH_API for n in ("0101", "0103")},
    "APIGW.0201": _MANGLED,
    **{f"APIGW.{n}": _LOGIN for n in ("0301", "0303", "0305")},
    "APIGW.0307": _TOKEN,
    **{f"APIGW.{n}": _NOT_LET_IN for n in ("0302", "0304", "0306", "0310", "0801", "0802")},
    "APIGW.0308": _THROTTLED,
    **{f"APIGW.{n}": _BROKEN for n in ("0601", "0610", "0613")},
}
"""Every code of the two pages. That a 5xx or 409 is here does not make it a refusal (`cce.errors`, rule P6)."""

_UNKNOWN_FORBIDDEN: Final = replace(_FORBIDDEN, may_be_one=True)
UNKNOWN_CODES: Final = {400: _SERVER, 401: _LOGIN, 403: _UNKNOWN_FORBIDDEN, 404: _MISSING, 429: _THROTTLED}
"""For codes that are not in the table. Of a 403 with a code of its own it is not known that it is about rights."""

_INVALID: Final = frozenset({_SERVER})
_NOT_ALLOWED: Final = frozenset({_FORBIDDEN, _UNKNOWN_FORBIDDEN})
TEXTS: Final[tuple[tuple[frozenset[Entry], re.Pattern[str], Entry], ...]] = (
    (
        _INVALID,
        re.compile(
            r"already (?:been )?(?:added|accepted|managed|in (?:a|the|this|another) cluster|a node)"
            r"|being (?:added|accepted|managed)|(?:in|to|of|by) another cluster|CCE-Dynamic-Provisioning-Node",
            re.IGNORECASE,
        ),
        _IN_USE,
    ),
    (
        _NOT_ALLOWED,
        re.compile(
            r"\b(?:cluster|node ?pool)\b.{0,60}\b(?:not available|unavailable|creating|deleting|scaling|scalingup"
            r"|scalingdown|upgrading|resizing|rollingback|hibernat\w+|awaking|installing)\b",
            re.IGNORECASE | re.DOTALL,
        ),
        _CLUSTER_STATE,
    ),
    (
        _INVALID | _NOT_ALLOWED,
        re.compile(
            r"\bneeds? (?:to )?authori[sz]|\bauthori[sz]e (?:the )?(?:cce|cloud container engine)|cce_admin_trust"
            r"|\bcce (?:is|was|has) not (?:been )?authori[sz]ed|授权"
            r"|\bagency\b.{0,40}\b(?:not exist|not found|missing)",
            re.IGNORECASE | re.DOTALL,
        ),
        _NOT_AUTHORISED,
    ),
    (
        _INVALID | _NOT_ALLOWED,
        re.compile(
            r"insufficient (?:account )?balance|\bbalance\b.{0,20}\binsufficient|\barrears\b|欠费|余额不足",
            re.IGNORECASE,
        ),
        _BALANCE,
    ),
    (
        _INVALID | _NOT_ALLOWED,
        re.compile(
            r"\baccount\b.{0,30}\b(?:restricted|frozen|suspended)\b|\breal-?name auth|实名认证|账号.{0,6}(?:冻结|受限)",
            re.IGNORECASE | re.DOTALL,
        ),
        _RESTRICTED,
    ),
    (_INVALID, re.compile(r"\bquota\b|配额", re.IGNORECASE), _LIMIT),
)
"""What an entry is for codes that are too general: the text tells (of a 403: docs/cloud-facts.md)."""

_NO_SUCH_CALL: Final = re.compile(
    r"\bAPI\b.{0,20}\bnot (?:found|exist|published)|\bAPI does not exist|no route matched|404 page not found"
    r"|method not allowed|not implemented|no such api",
    re.IGNORECASE,
)
"""Of gateways that give no code. Others' 404 may be about what the call names."""


def is_no_such_call(http_status: int, text: str) -> bool:
    """Whether an answer without a code says that the gateway does not offer the call, so that nothing was done."""
    return http_status in {404, 405, 501} and _NO_SUCH_CALL.search(text) is not None


def refusal(http_status: int, code: str, text: str = "") -> Entry:
    """What a definite refusal is about; of unknown codes only those of a 400 are about servers (rule P15)."""
    if not code and is_no_such_call(http_status, text):
        return _NO_SUCH_API
    entry = CODES.get(code) or UNKNOWN_CODES.get(http_status, _OTHER)
    return next((better for general, known, better in TEXTS if entry in general and known.search(text)), entry)


# Texts of failed jobs. The servers have nodes, so the reasons are others than those of refusals: rules P1, P8.

_REMOVE: Final = "then remove the failed node in CCE"

JOB_TEXTS: Final = (
    (
        re.compile(r"partition|selector can not match any evs volume|no available data disk", re.IGNORECASE),
        Entry(
            About.SERVER,
            FailureReason.DISK_PARTITIONED,
            f"detach or wipe the server's data disks so that one is unpartitioned and matches the pool, {_REMOVE}",
        ),
    ),
    (
        re.compile(r"Ecs\.0314|key ?pair", re.IGNORECASE),
        Entry(
            About.POOL,
            FailureReason.TEMPLATE_INVALID,
            f"choose a key pair that exists in the node pool's template, {_REMOVE}",
        ),
    ),
    (
        re.compile(r"\bkms\b|encryption key|cmk", re.IGNORECASE),
        Entry(
            About.POOL,
            FailureReason.TEMPLATE_INVALID,
            f"enable the KMS key of the node pool's disks and let CCE's agency use it, {_REMOVE}",
        ),
    ),
    (
        re.compile(r"quota|limit exceeded|sold ?out|insufficient (?:resource|capacity)|out of stock", re.IGNORECASE),
        Entry(
            About.QUOTA,
            FailureReason.RESOURCES_SHORT,
            f"raise the quota that the text names, or choose a flavor that is not sold out, {_REMOVE}",
        ),
    ),
    (
        re.compile(r"security ?group", re.IGNORECASE),
        Entry(
            About.POOL,
            FailureReason.TEMPLATE_INVALID,
            f"choose a security group that exists in the node pool's template, {_REMOVE}",
        ),
    ),
    (
        re.compile(
            r"no such host|could not resolve|name resolution|\bdns\b|\bobs\b|pull(?:ing)? (?:the )?image|image ?pull"
            r"|download\w* (?:\w+ )?(?:failed|error|timed? ?out)|failed to download",
            re.IGNORECASE,
        ),
        Entry(
            About.POOL,
            FailureReason.DOWNLOAD_FAILED,
            "let the subnet's DNS resolve the cloud's own services (OBS), as its internal DNS servers do, and check"
            f" routes and security groups, {_REMOVE}",
        ),
    ),
)
_WITHOUT_NODE: Final = "look at the job in the CCE console"
_UNKNOWN_TEXT: Final = Entry(
    About.SERVER, FailureReason.INSTALL_FAILED, "look at the node in the CCE console, remove it there"
)


def job_failure(text: str) -> Entry:
    """What the text of a failed job is about."""
    return next((entry for known, entry in JOB_TEXTS if known.search(text)), _UNKNOWN_TEXT)


def explain(text: str) -> tuple[FailureReason, str]:
    """Reason and one-line message for the text of a failed job: known texts get a name and a remedy."""
    entry = job_failure(text)
    return entry.failure, f"{plain_text(text, 600)}; {entry.remedy}"


def explain_without_node(text: str) -> str:
    """The same message for a server of which no node is left; its reason is not the job's, since there is no node."""
    entry = job_failure(text)
    remedy = _WITHOUT_NODE if entry is _UNKNOWN_TEXT else entry.remedy.removesuffix(f", {_REMOVE}")
    return f"no node is left of the server: {plain_text(text, 600)}; {remedy}"
