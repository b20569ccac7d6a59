"""One reconcile of one membership: read, look, decide, store, call, record - in the write-ahead order.

Not for: what is decided (`core.decision.decide`), or how an effect is performed. The order is the promise: the intent
is stored before the call is made, the answer is recorded before the program ends (rules P2, P3, P9).
"""

from dataclasses import replace
from datetime import timedelta

from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.status import Status
from nodepool_membership.core.conditions import verdict
from nodepool_membership.core.conditions.finalizer import Finalizer
from nodepool_membership.core.decision.decide import Decision, Schedule, acknowledge, remembered
from nodepool_membership.core.observed.observation import Observation
from nodepool_membership.core.program import requeue
from nodepool_membership.core.program.calling import carry_out
from nodepool_membership.core.program.effects import (
    ConflictError,
    Doubt,
    Forget,
    KeepLedger,
    Key,
    LogText,
    Now,
    Program,
    ReadObject,
    RecallLedger,
    Remember,
    RemoveFinalizer,
    TakeOver,
    TellDecided,
    TellReleased,
    TellWithheld,
    WaitForOthers,
    WriteConditions,
    WriteLog,
)
from nodepool_membership.core.program.memory import Known, Memory
from nodepool_membership.core.program.observer import Observer, whole_second
from nodepool_membership.core.program.requeue import AWAITED, NOW, Requeue
from nodepool_membership.core.program.storing import hold, key_of, release, store
from nodepool_membership.core.state.ledger import is_behind, ledger_of
from nodepool_membership.core.state.requests import unhandled_reset
from nodepool_membership.core.state.settings import Settings


def reconcile(key: Key, settings: Settings) -> Program[Requeue | None]:
    """Work one key; ends with when to work it again, None when the object is gone.

    Raises:
        StoreError: the API server refused or did not answer; the key is to be tried again.
    """
    wait = yield from WaitForOthers(key)
    if wait is not None:
        return Requeue(Schedule.NOW, at_least=wait)
    found = yield from ReadObject(key)
    if found is None:
        yield from Forget(key)
        return None
    memory = yield from TakeOver(found)
    # Whoever was to be read by itself waits for the rest of them, too.
    wait = yield from WaitForOthers(key)
    if wait is not None:
        return Requeue(Schedule.NOW, at_least=wait)
    try:
        if isinstance(found, UnreadableStatus):
            return (yield from _report(found, memory, settings))
        return (yield from _work(found, memory, settings))
    except ConflictError:
        yield from WriteLog(LogText.CHANGED_MEANWHILE, key)
        return NOW


def _work(membership: Membership, memory: Memory, settings: Settings) -> Program[Requeue | None]:
    membership = yield from _with_calls(membership, settings)
    known = yield from _known(membership, memory)
    if known is not memory.known:
        # Whoever changed it wants to see what comes of it.
        memory = replace(memory, waiting=None)
    looking = Observer(membership, known, memory, settings)
    made = yield from looking.decide()
    if made is None:
        yield from Remember(key_of(membership), replace(memory, known=looking.known))
        return AWAITED
    membership, decision, seen = made.membership, made.decision, made.seen
    known = Known(membership.metadata.resource_version, seen.read_at)
    memory = _remembered(replace(memory, known=known), decision, seen)
    yield from Remember(key_of(membership), memory)
    if decision.doubted:
        # Before a call: a removal may be part of the same decision.
        yield from Doubt(membership)
    yield from TellDecided(membership, decision, seen, made.now)
    if decision.intent is not None:
        requeued = yield from carry_out(membership, decision.status, decision.intent, seen, settings)
        yield from _tell_withheld(membership, decision)
        return requeued
    if membership.metadata.deleting and decision.finalizer is Finalizer.OFF:
        yield from _tell_withheld(membership, decision)
        yield from _let_go(membership, decision.status, seen)
        return None
    membership = yield from store(membership, decision.status)
    yield from _tell_withheld(membership, decision)
    on = FINALIZER in membership.metadata.finalizers
    if decision.finalizer is Finalizer.ON and not on:
        membership = yield from hold(membership)
    if decision.finalizer is Finalizer.OFF and on:
        membership = yield from release(membership)
    if membership.metadata.resource_version != known.version:
        known = Known(membership.metadata.resource_version, (yield from Now()))
        yield from Remember(key_of(membership), replace(memory, known=known))
    return requeue.after(membership, decision, memory)


def _known(membership: Membership, memory: Memory) -> Program[Known]:
    """Since when the object is known to be as it was just read: it may have been read, or written, so before."""
    now = yield from Now()
    known, version = memory.known, membership.metadata.resource_version
    # One from the future was known before the clock was set back (rule P21).
    return known if known is not None and known.version == version and known.since <= now else Known(version, now)


def _with_calls(membership: Membership, settings: Settings) -> Program[Membership]:
    """The membership with the calls that the process knows of, should its status lack them (rule P2)."""
    key = key_of(membership)
    known = yield from RecallLedger(key)
    if known is not None and is_behind(membership.status, known):
        now = yield from whole_second()
        yield from WriteLog(LogText.BEHIND, key)
        return (yield from store(membership, remembered(membership, known, now, settings)))
    ledger = ledger_of(membership.status)
    if ledger is not None and ledger != known:
        yield from KeepLedger(key, ledger)
    return membership


def _remembered(memory: Memory, decision: Decision, seen: Observation) -> Memory:
    memory = replace(memory, absences=decision.absences, refused=decision.refused, waiting=decision.waiting)
    if decision.intent is not None:
        return memory
    growing = decision.schedule is Schedule.BACKOFF and (seen.trouble is not None or decision.delay is None)
    return replace(
        memory,
        failed_reads=memory.failed_reads + 1 if seen.trouble is not None else 0,
        backoffs=memory.backoffs + 1 if growing else 0,
    )


def _tell_withheld(membership: Membership, decision: Decision) -> Program[None]:
    if decision.withheld:
        yield from TellWithheld(membership, decision.withheld)


def _let_go(membership: Membership, status: Status, seen: Observation) -> Program[None]:
    """Let a deleted object go; what it leaves behind is told (rules P19, P20)."""
    if FINALIZER in membership.metadata.finalizers:
        yield from TellReleased(membership, status, seen)
        yield from release(membership)


def _report(found: UnreadableStatus, memory: Memory, settings: Settings) -> Program[Requeue | None]:
    """Say that the status cannot be understood; nothing is called for it (rule P24)."""
    meta, key = found.metadata, (found.metadata.namespace, found.metadata.name)
    limit = settings.settle_window + timedelta(seconds=found.spec.join_timeout_seconds)
    now = yield from whole_second()
    if meta.deletion_timestamp is not None and now > meta.deletion_timestamp + limit:
        yield from WriteLog(LogText.RELEASED_UNREADABLE, key, None, found.problem)
        if FINALIZER in meta.finalizers:
            yield from RemoveFinalizer(meta)
        return None
    if unhandled_reset(meta, found.handled_reset) is not None:
        yield from _rebuild(found, settings)
        return NOW
    if memory.unreadable != meta.resource_version:
        told = verdict.stalled(
            Reason.STATUS_INVALID,
            f"the status cannot be understood ({found.problem}); nothing is called: correct it with"
            " kubectl edit --subresource=status, or set the annotation cce.nodepools.dev/reset-requested-at to start"
            " over with an empty one",
        )
        wanted = verdict.conditions(Status(), told, meta.generation, now)
        version = yield from WriteConditions(meta, wanted)
        yield from Remember(key, replace(memory, unreadable=version))
        yield from WriteLog(LogText.UNREADABLE, key, None, found.problem)
    return Requeue(Schedule.RESYNC)


def _rebuild(found: UnreadableStatus, settings: Settings) -> Program[None]:
    """Start over with an empty status: the finalizer is the witness that one was lost (rules P2, P24)."""
    membership = Membership(found.metadata, found.spec)
    if FINALIZER not in membership.metadata.finalizers and not membership.metadata.deleting:
        membership = yield from hold(membership)
    now = yield from whole_second()
    yield from store(membership, acknowledge(membership, now, settings))
    yield from WriteLog(LogText.GIVEN_UP, key_of(membership), None, found.problem)
