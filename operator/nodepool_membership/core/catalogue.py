"""Known error codes and texts of the cloud: what each is about, its reason, and the remedy for a user.

Not for: parsing answers (`cce.errors`), or what follows from a refusal (`calls`). One table; codes from the CCE and
APIGW error-code pages (dossier section 9.2).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from nodepool_membership.api.codec import plain_text
from nodepool_membership.api.reasons import FailureReason


class About(StrEnum):
    """What a refusal is about; only one about a server may be blamed on servers."""

    SERVER = "Server"
    POOL = "Pool"
    QUOTA = "Quota"
    ACCOUNT = "Account"


@dataclass(frozen=True, slots=True)
class Entry:
    """One known cause with its remedy, a sentence for the person on call."""

    about: About
    reason: FailureReason
    remedy: str


_QUOTA: Final = Entry(
    About.QUOTA, FailureReason.QUOTA_EXCEEDED, "raise the quota, or free some of it, then request a reconcile"
)
_SIZE: Final = Entry(
    About.QUOTA,
    FailureReason.QUOTA_EXCEEDED,
    "the cluster is at its maximum number of nodes: change the cluster's scale, or shorten spec.serverIDs",
)
_BALANCE: Final = Entry(
    About.ACCOUNT, FailureReason.INSUFFICIENT_BALANCE, "top up the account, then request a reconcile"
)
_FORBIDDEN: Final = Entry(
    About.ACCOUNT,
    FailureReason.FORBIDDEN,
    "grant cce:node:add (and cce:node:create) to the owner of the key, and check spec.nodePool.projectID",
)
_LOGIN: Final = Entry(
    About.ACCOUNT, FailureReason.UNAUTHENTICATED, "check the keys in the Secret named by spec.credentialsRef"
)
_STATE: Final = Entry(
    About.POOL, FailureReason.POOL_NOT_READY, "wait until cluster and node pool are idle, or look at their state in CCE"
)
_TEMPLATE: Final = Entry(
    About.POOL, FailureReason.POOL_NOT_READY, "correct the node pool's template in CCE, then request a reset"
)
_MISSING: Final = Entry(
    About.POOL, FailureReason.NOT_FOUND, "check projectID, clusterID and nodePoolID in spec.nodePool"
)
_OTHER: Final = Entry(
    About.ACCOUNT, FailureReason.REFUSED, "look the code up in the error codes of CCE, then request a reset"
)
_SERVER: Final = Entry(
    About.SERVER,
    FailureReason.REFUSED,
    "check that the servers meet the pool's conditions (VPC and subnet, flavor, disks, running, in no other cluster)",
)

CODES: Final[dict[str, Entry]] = {
    **{f"CCE.014000{n}": _QUOTA for n in ("07", "08", "09", "10", "11", "12", "13", "19", "20", "25")},
    "CCE.01400014": _SIZE,
    **{f"CCE.014000{n}": _TEMPLATE for n in ("02", "16", "18", "21", "22")},
    "CCE.01401001": _LOGIN,
    "CCE.01403001": _FORBIDDEN,
    "CCE.01403002": _FORBIDDEN,
    "CCE.01403008": _FORBIDDEN,
    **{f"CCE.014030{n}": _STATE for n in ("03", "06", "09")},
    "CCE.01404001": _MISSING,
    "CCE.01429004": _BALANCE,
    "CCE.01400001": _SERVER,
    "CCE.02400001": _SERVER,
    "CCE.03400001": _SERVER,
}

_BY_STATUS: Final = {400: _SERVER, 401: _LOGIN, 403: _FORBIDDEN, 404: _MISSING}

_JOB_TEXTS: Final = (
    (
        ("partition", "selector can not match any evs volume", "no available data disk"),
        FailureReason.DISK_PARTITIONED,
        "detach or wipe the server's data disks so that one is unpartitioned, remove the failed node in CCE",
    ),
)


def refusal(http_status: int, code: str) -> Entry:
    """What a definite refusal is about; of unknown codes only those of a 400 may be about a server (rule P15)."""
    return CODES.get(code) or _BY_STATUS.get(http_status, _OTHER)


def explain(text: str) -> tuple[FailureReason, str]:
    """Reason and one-line message for the text of a failed job: known texts get a name and a remedy."""
    lowered = text.lower()
    for needles, reason, remedy in _JOB_TEXTS:
        if any(needle in lowered for needle in needles):
            return reason, f"{plain_text(text, 600)}; {remedy}"
    return (
        FailureReason.INSTALL_FAILED,
        f"{plain_text(text, 600)}; look at the node in the CCE console, remove it there",
    )
