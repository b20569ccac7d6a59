"""Guarded writes, each of which ends with the membership as it is afterwards.

Not for: when to write what. Nothing is written where nothing changes.
"""

from dataclasses import replace

from nodepool_membership.api.membership import Membership
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.status import Status
from nodepool_membership.core.program.effects import (
    AddFinalizer,
    KeepLedger,
    Key,
    Program,
    RemoveFinalizer,
    TellStored,
    WriteStatus,
)
from nodepool_membership.core.state.ledger import ledger_of


def key_of(membership: Membership) -> Key:
    return membership.metadata.namespace, membership.metadata.name


def store(membership: Membership, status: Status) -> Program[Membership]:
    """Store a status; people are told of it only afterwards.

    Raises:
        StoreError: it is not stored, or (`NoAnswerError`) may not be.
    """
    if status == membership.status:
        return membership
    version = yield from WriteStatus(membership, status)
    meta = replace(membership.metadata, resource_version=version)
    stored = replace(membership, metadata=meta, status=status)
    if (ledger := ledger_of(status)) is not None and membership.status.last_batch is not None:
        # Of the first one after a loss it is not known yet what it lacks.
        yield from KeepLedger(key_of(membership), ledger)
    yield from TellStored(membership, stored)
    return stored


def hold(membership: Membership) -> Program[Membership]:
    """Put the finalizer on the object (rule P2)."""
    version = yield from AddFinalizer(membership.metadata)
    return _with_finalizers(membership, version, (*membership.metadata.finalizers, FINALIZER))


def release(membership: Membership) -> Program[Membership]:
    """Take the finalizer off the object."""
    version = yield from RemoveFinalizer(membership.metadata)
    left = tuple(f for f in membership.metadata.finalizers if f != FINALIZER)
    return _with_finalizers(membership, version, left)


def _with_finalizers(membership: Membership, version: str, finalizers: tuple[str, ...]) -> Membership:
    return replace(membership, metadata=replace(membership.metadata, resource_version=version, finalizers=finalizers))
