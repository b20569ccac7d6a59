"""Runs the program of a reconcile: performs its effects one after another, with what they need of the process.

Not for: their order (`core.program`), what is decided (`core.decision.decide`), or when keys are worked (`queue`,
`process`).
"""

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self, TypeVar

from nodepool_membership import redaction
from nodepool_membership.api.membership import InvalidObjectError, Membership, UnreadableStatus
from nodepool_membership.core.decision.record import Accepted, Answer
from nodepool_membership.core.program.effects import (
    AskLease,
    Call,
    CloudEffect,
    CredentialsTried,
    Doubt,
    Effect,
    FindNaming,
    FindRivals,
    Forget,
    IsDoubted,
    KeepLedger,
    Key,
    LogText,
    Now,
    ObjectEffect,
    OutputEffect,
    ProcessEffect,
    Program,
    ReadObject,
    RecallLedger,
    Remember,
    Reserve,
    Shield,
    Sleep,
    StoreError,
    TakeOver,
    TellDecided,
    TellReleased,
    TellStored,
    TellWithheld,
    WaitForOthers,
    WriteLog,
)
from nodepool_membership.core.program.reconcile import reconcile
from nodepool_membership.core.program.requeue import Intervals, Requeue
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.kube.memberships import Memberships
from nodepool_membership.runtime.claims.claims import Claims
from nodepool_membership.runtime.claims.initial_sync import InitialSync
from nodepool_membership.runtime.claims.unread import Unread
from nodepool_membership.runtime.cloud.clouds import Clouds
from nodepool_membership.runtime.cloud.session import CloudSession
from nodepool_membership.runtime.reconcile import audit, orphans
from nodepool_membership.runtime.reconcile.memory import Memories
from nodepool_membership.runtime.reconcile.send import Sender
from nodepool_membership.runtime.reconcile.store import Store, about, about_key
from nodepool_membership.runtime.scheduling.leader import MayCall

_log = logging.getLogger(__name__)

T = TypeVar("T")

_LEVELS: Final = {
    LogText.CHANGED_MEANWHILE: logging.DEBUG,
    LogText.TAKEN_MEANWHILE: logging.INFO,
    LogText.NAMED_MEANWHILE: logging.INFO,
    LogText.NOT_STORED_YET: logging.ERROR,
    LogText.NOT_READ_YET: logging.ERROR,
    LogText.KEPT_NOWHERE: logging.ERROR,
}
"""Of the remarks that are no warnings."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What all programs of a process share."""

    memberships: Memberships
    store: Store
    sender: Sender
    clouds: Clouds
    memories: Memories
    claims: Claims
    initial_sync: InitialSync
    now: Callable[[], datetime]
    may_call: MayCall
    unread: Unread
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep


class Reconciler:
    """Works keys; the queue sees to it that a key is never worked twice at once."""

    def __init__(self, parts: Parts, settings: Settings) -> None:
        self._parts = parts
        self._settings = settings
        self._intervals = Intervals(settings.poll_interval, settings.resync_interval)
        self._taking: asyncio.Task[None] | None = None

    async def reconcile(self, key: Key) -> float | None:
        """Work one key; returns the seconds until the next look, None when the object is gone.

        Raises:
            KubeError: the API server refused or did not answer; the key is to be tried again.
            InvalidObjectError: the object does not read.
        """
        with redaction.done_for(key[0]):
            async with Run(self._parts) as run:
                requeue = await run.to_the_end(reconcile(key, self._settings))
                return None if requeue is None else self._seconds(requeue, run.found)

    def _seconds(self, requeue: Requeue, found: Membership | UnreadableStatus | None) -> float:
        if found is None:
            # It was not its turn to be read yet.
            return requeue.at_least
        jitter = random.uniform(-1, 1)  # noqa: S311 - spreads load, protects nothing
        now = self._parts.now()
        return self._intervals.seconds(requeue, found.spec.node_pool, found.metadata.uid, now, jitter)

    def start(self) -> None:
        """Keys are about to be worked: find out which there are, for nothing is added before all were read once."""
        self._taking = asyncio.create_task(
            self._parts.initial_sync.take(self._parts.memories.note_listed), name="census"
        )

    async def close(self) -> None:
        """Start no further call and wait for the records of those under way (SIGTERM)."""
        if self._taking is not None:
            self._taking.cancel()
            await asyncio.wait((self._taking,))
        await self._parts.sender.close()


class Run:
    """One program on its way: performs its effects, and holds what it was given for them until it is over."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._session = CloudSession(parts.clouds)
        self._held = AsyncExitStack()
        self._shielded = False
        self._answer: Answer | None = None
        self._template = ""
        self.found: Membership | UnreadableStatus | None = None
        """The object as it was read first."""
        self._change: int | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        if not self._shielded:
            self._session.over()
        await self._held.aclose()

    async def to_the_end(self, program: Program[T]) -> T:
        """Perform one effect after another.

        Raises:
            whatever an effect raises; a `StoreError` only if the program does not know what to do about it.
        """
        answer: object = None
        error: StoreError | None = None
        while True:
            try:
                effect = program.send(answer) if error is None else program.throw(error)
            except StopIteration as end:
                ended: T = end.value
                return ended
            answer = error = None
            if isinstance(effect, Shield):
                self._shielded = True
                return await self._parts.sender.shielded(self._see_through(program, effect), effect.intent)
            try:
                answer = await self._perform(effect)
            except StoreError as caught:
                error = caught

    async def _see_through(self, program: Program[T], shield: Shield) -> T:
        """The rest of a program from its call on, in a task of its own."""
        self._answer = shield.answer
        if shield.answer is not None:
            audit.answered(shield.membership, shield.intent, "notSent")
        try:
            return await self.to_the_end(program)
        except asyncio.CancelledError:
            _say_given_up(shield, self._answer)
            raise
        finally:
            self._session.over()

    async def _perform(self, effect: Effect[object]) -> object:  # noqa: PLR0911 - one match over all effects
        match effect:
            case ReadObject(key):
                return await self._read(key)
            case FindNaming(key, server_ids):
                return await self._naming(key, frozenset(server_ids))
            case ObjectEffect():
                return await self._parts.store.perform(effect)
            case Call(membership, intent):
                self._session.called()
                answer = self._answer = await self._parts.sender.call(membership, intent, self._session.access)
                self._session.answered(membership, answer)
                return answer
            case CloudEffect():
                return await self._session.perform(effect)
            case TakeOver(found):
                memory = await self._parts.memories.note(found)
                self._parts.unread.read((found.metadata.namespace, found.metadata.name), self._change)
                return memory
            case Sleep(seconds):
                await self._parts.sleep(seconds)
                return None
            case ProcessEffect():
                return self._at_once(effect)
            case OutputEffect():
                self._tell(effect)
                return None
            case _:
                raise TypeError(f"not known: {effect}")

    async def _read(self, key: Key) -> Membership | UnreadableStatus | None:
        if self.found is not None:
            return await self._parts.memberships.read(*key)
        self._change = self._parts.unread.change(key)
        try:
            # Its size is held against the bytes in flight until the program is over.
            self.found = await self._held.enter_async_context(self._parts.memberships.open(*key))
        except InvalidObjectError:
            # What it claims nobody will ever know: the others must not wait for it.
            self._parts.initial_sync.read(key)
            self._parts.unread.read(key, self._change)
            raise
        return self.found

    async def _naming(self, key: Key, server_ids: frozenset[str]) -> Key | None:
        unread, claims = self._parts.unread, self._parts.claims
        for other in unread.others(key):
            # Reading takes a while: meanwhile some are read in their own turn, and are in the claims.
            if unread.change(other) is None or not claims.may_count_in(key[0], other):
                continue
            try:
                found = await self._parts.memberships.read(*other)
            except InvalidObjectError:
                continue
            if found is None or server_ids.isdisjoint(found.spec.server_ids):
                continue
            if claims.counts_in(key[0], found):
                return other
        return None

    def _at_once(self, effect: ProcessEffect[object]) -> object:  # noqa: C901, PLR0911 - one match over all effects
        """What is one step without a wait: between checking and reserving servers nothing may happen (rule P16)."""
        parts = self._parts
        match effect:
            case Now():
                return parts.now()
            case WaitForOthers(key):
                return parts.initial_sync.wait_for_others(key)
            case CredentialsTried(membership, saw):
                parts.claims.looked(membership, saw=saw)
            case FindRivals(membership):
                return parts.memories.rivals(membership)
            case RecallLedger(key):
                return parts.memories.recall(key)
            case KeepLedger() | Remember() | Forget():
                self._remember(effect)
            case AskLease():
                return parts.may_call()
            case Reserve(membership, intent, listed):
                return parts.claims.reserve(membership, intent, listed)
            case Doubt(membership):
                parts.sender.doubt(membership)
            case IsDoubted(pool):
                return parts.sender.is_doubted(pool)
            case _:
                raise TypeError(f"not known: {effect}")
        return None

    def _remember(self, effect: KeepLedger | Remember | Forget) -> None:
        memories = self._parts.memories
        match effect:
            case KeepLedger(key, ledger):
                memories.keep(key, ledger)
            case Remember(key, memory):
                memories.remember(key, memory)
            case Forget(key):
                _log.info("the object is gone", extra=about_key(key))
                memories.forget(key)
                self._parts.unread.read(key, self._change)

    def _tell(self, effect: OutputEffect) -> None:
        match effect:
            case WriteLog(remark, key, batch, detail):
                text = remark.value if detail is None else f"{remark.value}: {detail}"
                _log.log(_LEVELS.get(remark, logging.WARNING), text, extra=about_key(key, batch))
            case TellStored(before, after):
                audit.intended(before, after, self._template)
                self._parts.store.tell(before, after)
            case TellDecided(membership, decision, seen):
                self._template = seen.pool.template.digest if seen.pool is not None else ""
                audit.decided(membership, decision.status)
                orphans.tell_of_failed(membership, decision.status, seen)
            case TellReleased(membership, status, seen):
                audit.abandoned(membership, status)
                orphans.tell_on_release(membership, status, seen)
            case TellWithheld(membership, withheld):
                self._parts.store.tell_withheld(membership, withheld)
            case _:
                raise TypeError(f"not known: {effect}")


def _say_given_up(shield: Shield, answer: Answer | None) -> None:
    extra = about(shield.membership, shield.intent)
    if answer is None:
        text = "the process ends with a call under way; its intent is stored, the next one looks for the servers"
        _log.error(text, extra=extra)
        return
    text = "the process ends before the answer to a call is stored: %s; the next one looks for its servers"
    job = {"jobID": answer.job_id} if isinstance(answer, Accepted) else {}
    _log.error(text, answer, extra={**extra, **job})
