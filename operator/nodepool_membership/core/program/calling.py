"""From a plan to its record: finalizer, reservation, intent, call, record, each only after the one before is done.

Not for: what is planned, or what an answer means (`core.decision.record`). Rules P2, P3, P9, P15, P16, P22.
"""

from typing import Final

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Batch, Operation, Status
from nodepool_membership.core.decision.decide import Schedule, acknowledge
from nodepool_membership.core.decision.record import Answer, NotSent, Unknown, is_doubtful, record
from nodepool_membership.core.observed.observation import Observation
from nodepool_membership.core.program.effects import (
    AskLease,
    Call,
    ConflictError,
    FindNaming,
    IsDoubted,
    LogText,
    NoAnswerError,
    Program,
    ReadObject,
    Reserve,
    Shield,
    Sleep,
    StoreError,
    WriteLog,
)
from nodepool_membership.core.program.observer import whole_second
from nodepool_membership.core.program.requeue import NOW, Requeue
from nodepool_membership.core.program.storing import hold, key_of, store
from nodepool_membership.core.state.settings import Settings

FIRST_WAIT: Final = 1.0
LONGEST_WAIT: Final = 5.0
"""Of a few records only; the process ends about 15 s after its last call when one cannot be stored."""


def carry_out(
    membership: Membership, status: Status, intent: Batch, seen: Observation, settings: Settings
) -> Program[Requeue]:
    """Make the call that `status` holds as an intent, by what was `seen`; a place in the write budget is held for it.

    Raises:
        StoreError: the intent is not stored; nothing was sent.
    """
    if intent.operation is Operation.REMOVE and (yield from _is_named(membership, intent)):
        return Requeue(Schedule.POLL)
    if FINALIZER not in membership.metadata.finalizers:
        if membership.status.last_batch is None:
            # The witness of rule P2: a finalizer without this counter means a lost status.
            now = yield from whole_second()
            membership = yield from store(membership, acknowledge(membership, now, settings))
        membership = yield from hold(membership)
    if not (yield from AskLease()):
        yield from WriteLog(LogText.LEASE_LOST, key_of(membership), intent)
        return NOW
    listed = seen.read_at if seen.listing is None else seen.listing.begun
    if not (yield from Reserve(membership, intent, listed)):
        yield from WriteLog(LogText.TAKEN_MEANWHILE, key_of(membership), intent)
        return NOW
    try:
        membership = yield from store(membership, status)
    except NoAnswerError:
        # It counts as written: what may stand there is withdrawn, since nothing was sent.
        yield from _withdraw_if_stored(membership, intent, settings)
        raise
    yield from call_and_record(membership, intent, settings)
    return NOW


def _is_named(membership: Membership, intent: Batch) -> Program[bool]:
    """Whether a list names a server of a removal that the claims know nothing of yet: its key waits to be read."""
    other = yield from FindNaming(key_of(membership), intent.server_ids)
    if other is not None:
        yield from WriteLog(LogText.NAMED_MEANWHILE, key_of(membership), intent, "/".join(other))
    return other is not None


def call_and_record(membership: Membership, intent: Batch, settings: Settings) -> Program[None]:
    """Make the call of an intent that is stored in `membership`, and record its answer, whatever it is."""
    yield from Shield(membership, intent)
    answer = yield from Call(membership, intent)
    if is_doubtful(answer) and (yield from IsDoubted(membership.spec.node_pool)):
        answer = Unknown(answer.message)
    yield from record_answer(membership, intent, answer, settings)


def _withdraw_if_stored(membership: Membership, intent: Batch, settings: Settings) -> Program[None]:
    found = yield from ReadObject(key_of(membership))
    if isinstance(found, Membership) and found.metadata.uid == membership.metadata.uid and intent in found.status.jobs:
        why = "the API server did not answer when the intent was stored"
        answer = NotSent(why, Reason.PROGRESSING)
        yield from Shield(found, intent, answer)
        yield from record_answer(found, intent, answer, settings)


def record_answer(membership: Membership, intent: Batch, answer: Answer, settings: Settings) -> Program[None]:
    """Record the answer to a call, however long that takes, unless the object is gone (rule P9).

    An unanswered write is made again from a fresh read: `record` says the same whatever the status holds.
    """
    current: Membership | None = membership
    wait = FIRST_WAIT
    while current is not None:
        now = yield from whole_second()
        try:
            yield from store(current, record(current, intent, answer, now, settings))
        except ConflictError:
            pass
        except StoreError as error:
            yield from WriteLog(LogText.NOT_STORED_YET, key_of(current), intent, error)
            yield from Sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)
        else:
            return
        current = yield from _read_again(current)
    yield from WriteLog(LogText.KEPT_NOWHERE, key_of(membership), intent, answer)


def _read_again(membership: Membership) -> Program[Membership | None]:
    wait = FIRST_WAIT
    while True:
        try:
            found = yield from ReadObject(key_of(membership))
        except StoreError as error:
            yield from WriteLog(LogText.NOT_READ_YET, key_of(membership), None, error)
            yield from Sleep(wait)
            wait = min(wait * 2, LONGEST_WAIT)
            continue
        if found is None or found.metadata.uid != membership.metadata.uid:
            return None
        if isinstance(found, UnreadableStatus):
            # Somebody broke the status meanwhile: it is as good as lost, and rebuilt from the answer on (rule P24).
            return Membership(found.metadata, found.spec)
        return found
