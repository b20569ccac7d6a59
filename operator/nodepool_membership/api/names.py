"""Names of the resource that the API server, GitOps tools and users rely on.

Not for: reasons (`reasons`) or fields (`spec`, `status`).
"""

from typing import Final

GROUP: Final = "cce.nodepools.dev"
VERSION: Final = "v1alpha1"
PLURAL: Final = "nodepoolmemberships"
KIND: Final = "NodePoolMembership"
API_VERSION: Final = f"{GROUP}/{VERSION}"

FINALIZER: Final = f"{GROUP}/release"
"""On the object from before its first intent until nothing is open or owed (protocol rule P2)."""

FIELD_MANAGER: Final = "nodepool-membership"
COMPONENT: Final = "nodepool-membership-operator"

RECONCILE_ANNOTATIONS: Final = ("reconcile.fluxcd.io/requestedAt", f"{GROUP}/reconcile-requested-at")
RESET_ANNOTATIONS: Final = ("reconcile.fluxcd.io/resetAt", f"{GROUP}/reset-requested-at")
"""The first that is present counts; each new value is one request."""
RESET_ONLY_ANNOTATION: Final = f"{GROUP}/reset-only"
"""Narrows a reset to reasons of `status.failures` or to server ids, separated by commas."""
PAUSED_ANNOTATION: Final = f"{GROUP}/paused"
"""On an object or its Namespace: no call is started while it is there; its value says why."""

APPROVED_PLAN_ANNOTATION: Final = f"{GROUP}/approved-plan"
"""Names the `status.plan.id` that a person has said yes to; taken off, the approval is withdrawn."""

CREDENTIALS_MARK: Final = f"{GROUP}/credentials"
"""The type of a Secret that is to be used, or its label with the value "true"."""
CREDENTIALS_KEYS: Final = ("accessKey", "secretKey", "securityToken", "token")
"""Of such a Secret; others are not read."""

MAX_SERVERS: Final = 10_000
MAX_BATCH: Final = 200
MAX_OBJECT_BYTES: Final = 1_200_000
"""Upper bound for the stored object; etcd refuses 1.5 MB with a 500 (rule P4)."""
MAX_JOBS: Final = 100
"""Entries of `status.jobs`: a status with more of them is refused, and is so for ever (rule P4)."""
