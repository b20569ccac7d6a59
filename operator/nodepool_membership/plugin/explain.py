"""What a membership is doing, since when, what it waits for, whether anything was wiped, and what to type next.

Not for: reading it (`cluster`). Pure. It reads fields of state, so it says the same when somebody has cleared
conditions and messages; what the operator last told is repeated beside it. All that follows from that: who has all
servers and is told not to be Ready is not called done.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.codec import rfc3339
from nodepool_membership.api.membership import Membership, UnreadableStatus
from nodepool_membership.api.names import COMPONENT
from nodepool_membership.api.reasons import HOLDS_NODE, FailureReason
from nodepool_membership.api.spec import Approval
from nodepool_membership.api.status import Batch, Condition, Failure, Operation, Phase, Status, Wait
from nodepool_membership.core.conditions import texts, upcoming
from nodepool_membership.core.state import requests
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.state.state import State
from nodepool_membership.core.wording import counted, them
from nodepool_membership.plugin.output import ago

_WINDOW: Final = Settings().settle_window
_SHOWN_WAITS: Final = 3
_UNLESS: Final = "unless something in the way is told above"
_REFUSED: Final = frozenset({Phase.REFUSED, Phase.WITHDRAWN, Phase.QUEUED})

Command = Callable[..., str]
"""What to type for a verb and its words."""


class Doing(StrEnum):
    """What a membership is doing; of several, what a person would want to know first."""

    DELETING = "Deleting"
    UNREADABLE = "Unreadable"
    UNSEEN = "Unseen"
    SUSPENDED = "Suspended"
    PAUSED = "Paused"
    RECOVERING = "Recovering"
    HALTED = "Halted"
    WORKING = "Working"
    ASKING = "Asking"
    """It waits for a person's word."""
    WAITING = "Waiting"
    SEARCHING = "Searching"
    RETRYING = "Retrying"
    REMOVING = "Removing"
    PENDING = "Pending"
    FAILED = "Failed"
    READY = "Ready"


@dataclass(frozen=True, slots=True)
class WaitedFor:
    """Something that is waited for; `until` is None where nobody can say."""

    what: str
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Wiped:
    """Servers whose operating system was reinstalled by calls that the status still lists."""

    certainly: int
    perhaps: int
    """In calls of which it is not known whether they were accepted."""
    removed: int
    forgotten: bool
    """There were older batches, or may have been, which the status does not list any more."""


@dataclass(frozen=True, slots=True)
class Next:
    """A command that helps, and what it does. Where the command is empty there is nothing to type."""

    command: str
    why: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """All that is said; `told` is what the operator last told."""

    name: str
    doing: Doing
    summary: str
    since: datetime | None
    waits: tuple[WaitedFor, ...]
    wiped: Wiped | None
    next: Next
    told: Condition | None = None


def explain(found: Membership | UnreadableStatus, now: datetime, command: Command, paused: str | None) -> Explanation:
    """Explain a membership; `paused` is the reason in its namespace's annotation that pauses it."""
    meta = found.metadata
    name = f"{meta.namespace}/{meta.name}"
    if isinstance(found, UnreadableStatus):
        summary = f"its status cannot be understood, so nothing is called: {found.problem}"
        step = Next(
            f"kubectl edit npmem {meta.name} -n {meta.namespace} --subresource=status",
            f"correct it; or start over with an empty one: {command('reset', meta.name)}",
        )
        return Explanation(name, Doing.UNREADABLE, summary, None, (), None, step)
    return _Explainer(found, now, command, paused).explanation(name)


class _Explainer:
    def __init__(self, membership: Membership, now: datetime, command: Command, paused: str | None) -> None:
        self._membership = membership
        self._status = membership.status
        self._spec = membership.spec
        self._state = State.of(membership.status)
        self._now = now
        self._command = command
        mine = requests.paused(membership.metadata)
        self._paused = mine if mine is not None else paused
        self._paused_here = mine is not None

    def explanation(self, name: str) -> Explanation:
        doing = self._doing()
        waits = tuple(self._waits())
        told = next((c for c in self._status.conditions if c.type == "Ready"), None)
        summary, since, step = self._summary(doing), self._since(doing), self._next(doing)
        if doing is Doing.READY and told is not None and told.status != "True":
            summary, step = f"by the last complete look, {summary}", self._next(Doing.PENDING)
        return Explanation(name, doing, summary, since, waits, wiped(self._status), step, told)

    def _doing(self) -> Doing:
        """The first that holds."""
        meta, status, state = self._membership.metadata, self._status, self._state
        joined = status.joined == status.desired
        causes = [cause for i, cause in state.failures.items() if i in self._spec.server_ids]
        chain = (
            (Doing.DELETING, meta.deleting),
            (Doing.UNSEEN, status.last_batch is None or status.observed_generation != meta.generation),
            (Doing.SUSPENDED, self._spec.suspend),
            (Doing.PAUSED, self._paused is not None),
            (Doing.RECOVERING, state.recovers(self._now)),
            (Doing.HALTED, status.halt is not None and not joined),
            (Doing.WORKING, bool(status.open_batches)),
            (Doing.ASKING, status.plan is not None),
            (Doing.WAITING, any(self._call_waits())),
            (Doing.SEARCHING, bool(state.queued)),
            (Doing.REMOVING, bool(status.surplus)),
            (Doing.RETRYING, any(not cause.is_final(self._spec.max_attempts) for cause in causes)),
            (Doing.PENDING, bool(status.pending)),
            (Doing.FAILED, bool(status.failed)),
        )
        return next((doing for doing, holds in chain if holds), Doing.READY)

    def _summary(self, doing: Doing) -> str:  # noqa: C901, PLR0911 - a chain of questions: the first that has an answer ends it
        status, meta = self._status, self._membership.metadata
        # What is stopped comes at no time.
        progress = texts.counts(status)
        if doing not in {Doing.SUSPENDED, Doing.PAUSED}:
            progress = texts.progress(self._membership, status, Settings())
        match doing:
            case Doing.UNSEEN if status.last_batch is None:
                return "the operator has not looked at it yet"
            case Doing.UNSEEN:
                return (
                    f"the operator has not seen its last edit (generation {meta.generation},"
                    f" it knows {status.observed_generation}); before that: {progress}"
                )
            case Doing.HALTED if status.halt is not None:
                return f"{status.halt.reason}: {status.halt.message}; {progress}"
            case Doing.PAUSED:
                where = "this object" if self._paused_here else "the namespace"
                why = f" ({self._paused})" if self._paused else ""
                return f"paused by an annotation of {where}{why}: no call is started; {progress}"
            case Doing.SUSPENDED if status.plan is not None:
                return "; ".join(("spec.suspend is true: no call is made", *texts.preview(status.plan, status)))
            case Doing.SUSPENDED:
                return f"spec.suspend is true: no call is made; {progress}"
            case Doing.ASKING if status.plan is not None:
                what = "; ".join(texts.preview(status.plan, status))
                return f"plan {status.plan.id} waits for an approval: {what}"
            case Doing.RECOVERING:
                return f"its status was lost, so a call may be under way that nobody knows of; {progress}"
            case Doing.SEARCHING:
                return f"a call was refused; it is sent again in parts to find the servers that it is about; {progress}"
            case Doing.READY:
                return texts.members(status)
        return progress

    def _since(self, doing: Doing) -> datetime | None:  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
        status, meta = self._status, self._membership.metadata
        match doing:
            case Doing.DELETING:
                return meta.deletion_timestamp
            case Doing.RECOVERING if status.recovery is not None:
                return status.recovery.since
            case Doing.HALTED if status.halt is not None:
                return status.halt.time
            case Doing.WORKING:
                return min((b.submit_time for b in status.open_batches if b.submit_time is not None), default=None)
            case Doing.REMOVING:
                return status.surplus_since
            case Doing.UNSEEN if status.last_batch is None:
                return meta.creation_timestamp
            case Doing.READY | Doing.FAILED | Doing.SEARCHING | Doing.WAITING | Doing.RETRYING | Doing.PENDING:
                over = [b.finish_time for b in status.jobs] + [hold.since for hold in status.holds]
                return max((moment for moment in over if moment is not None), default=None)
        return None

    def _waits(self) -> Iterator[WaitedFor]:
        status = self._status
        if status.recovery is not None and status.recovery.until > self._now:
            yield WaitedFor("the end of the settle window after the status was lost", status.recovery.until)
        for batch in status.open_batches:
            yield self._wait_of(batch)
        for wait in self._call_waits():
            what = "add" if wait.operation is Operation.ADD else "removal"
            yield WaitedFor(f"the next {what}: {wait.reason}: {wait.message}", wait.until)
        removal = upcoming.removal(self._membership, status, Settings())
        if removal is not None and removal > self._now and self._goes_on(Operation.REMOVE):
            yield WaitedFor(f"{counted(status.surplus, 'member')} to be removed and REINSTALLED", removal)
        # Members are added again by a person's word, or not at all.
        told = set(self._state.members)
        for group in status.failures:
            moment = upcoming.again(group, self._spec.max_attempts, self._now)
            ids = frozenset(group.server_ids) if moment is None else self._going_on(group)
            if moment is not None and ids:
                yield WaitedFor(f"{counted(len(ids), 'server')}: {group.reason}: {group.message}", moment)
            told |= ids if group.reason is FailureReason.NODE_VANISHED else set()
        if gone := [held.since for i, held in self._state.holds.items() if held.since is not None and i not in told]:
            count, since = len(gone), max(gone)
            whose = "whose node is gone" if count == 1 else "whose nodes are gone"
            text = f"{counted(count, 'server')} {whose}, to be sure that no earlier call acts on {them(count)}"
            yield WaitedFor(text, since + _WINDOW)

    def _call_waits(self) -> Iterator[Wait]:
        """Why calls wait that would be made otherwise."""
        return (w for w in self._status.waits if w.until > self._now and self._goes_on(w.operation))

    def _goes_on(self, operation: Operation) -> bool:
        """Whether calls of a kind are left to be made, and nobody has stopped them."""
        if self._spec.suspend or self._paused is not None:
            return False
        if operation is Operation.REMOVE:
            return bool(self._status.surplus)
        return bool(self._status.pending) and self._status.halt is None and not self._membership.metadata.deleting

    def _going_on(self, group: Failure) -> frozenset[str]:
        """Those who failed so and are judged again, or named in a call, when the time has come."""
        if group.reason is FailureReason.REMOVAL_FAILED:
            return frozenset(group.server_ids) if self._goes_on(Operation.REMOVE) else frozenset()
        listed = self._spec.server_ids.intersection(group.server_ids)
        if group.reason in HOLDS_NODE:
            return frozenset() if self._spec.suspend or self._membership.metadata.deleting else listed
        if self._spec.approval is Approval.MANUAL:
            listed &= frozenset() if self._state.approved is None else frozenset(self._state.approved.server_ids)
        return listed if self._goes_on(Operation.ADD) else frozenset()

    def _wait_of(self, batch: Batch) -> WaitedFor:
        what = "removal of " if batch.operation is Operation.REMOVE else ""
        subject = f"batch {batch.batch} ({what}{counted(batch.servers, 'server')})"
        start = batch.submit_time or self._now
        if batch.settling_since is not None:
            text = f"{subject}: its job is over, servers that do not show are looked for"
            return WaitedFor(text, batch.settling_since + _WINDOW)
        if batch.job_id is None and batch.phase is not Phase.RUNNING:
            return WaitedFor(f"{subject}: the answer to its call, or its servers in the node list", start + _WINDOW)
        until = start + timedelta(seconds=self._spec.join_timeout_seconds)
        late = ", which should long be over: look at it in the CCE console" if until < self._now else ""
        job = f"job {batch.job_id}" if batch.job_id else "that its nodes become Active"
        return WaitedFor(f"{subject}: {job}{late}", until)

    def _next(self, doing: Doing) -> Next:  # noqa: C901, PLR0911 - a chain of questions: the first that has an answer ends it
        name, namespace = self._membership.metadata.name, self._membership.metadata.namespace
        servers = self._command("servers", name)
        if doing is Doing.UNSEEN:
            pods = f"kubectl -n {COMPONENT.removesuffix('-operator')} get pods"
            return Next(pods, "if it stays so: is the operator running, and does it watch this namespace?")
        if doing is Doing.SUSPENDED:
            why = f"makes the calls, which WIPE the servers that are added; which ones: {self._plan()}"
            return Next(self._command("resume", name), why)
        if doing is Doing.PAUSED:
            what = f"npmem {name} -n {namespace}" if self._paused_here else f"namespace {namespace}"
            return Next(f"kubectl annotate {what} cce.nodepools.dev/paused-", "lets calls be made again")
        if doing is Doing.RECOVERING:
            sure = f"who is sure that no call is under way ends the wait: {self._command('reset', name)}"
            return Next("", f"nothing: it goes on by itself when the wait is over; {sure}")
        if doing is Doing.HALTED:
            why = f"adds go on, which WIPES servers; first look at: {servers}; {self._previewed()}"
            return Next(self._command("reset", name), why)
        if doing is Doing.ASKING:
            return Next(self._command("approve", name), f"the plan is carried out; first look at: {self._plan()}")
        if doing is Doing.WAITING:
            return Next(self._command("reconcile", name), "ends the wait, once its cause is gone")
        if doing is Doing.FAILED:
            why = f"names them with causes; once these are gone: {self._reset_of_most()}; {self._previewed()}"
            return Next(servers, why)
        if doing in {Doing.REMOVING, Doing.DELETING} and self._status.surplus:
            return self._next_of_removal("removalPolicy" if doing is Doing.REMOVING else "deletionPolicy")
        if doing is Doing.RETRYING and all(g.reason is FailureReason.NODE_VANISHED for g in self._status.failures):
            return Next("", "nothing: it goes on by itself, and nobody can shorten a settle window")
        if doing in {Doing.PENDING, Doing.RETRYING}:
            return Next(self._command("reconcile", name), "looks at once; first mend what is in the way, as told above")
        return Next("", "nothing: it is done" if doing is Doing.READY else f"nothing: it goes on by itself, {_UNLESS}")

    def _next_of_removal(self, field: str) -> Next:
        meta = self._membership.metadata
        patch = f'--type=merge -p \'{{"spec": {{"{field}": "Retain"}}}}\''
        why = "keeps all that are in no call yet; change it in Git, too"
        return Next(f"kubectl patch npmem {meta.name} -n {meta.namespace} {patch}", why)

    def _plan(self) -> str:
        return self._command("plan", self._membership.metadata.name)

    def _previewed(self) -> str:
        suspend = self._command("suspend", self._membership.metadata.name)
        return f"since it WIPES what it adds, preview it first ({suspend})"

    def _reset_of_most(self) -> str:
        groups = [g for g in self._status.failures if not self._spec.server_ids.isdisjoint(g.server_ids)]
        return self._command("reset", self._membership.metadata.name, *(f"--only={g.reason}" for g in groups[:1]))


def wiped(status: Status) -> Wiped:
    """What calls have reinstalled, as far as the status still lists them."""
    certainly = perhaps = removed = 0
    for batch in status.jobs:
        if batch.phase in _REFUSED:
            continue
        if batch.operation is Operation.REMOVE and (batch.job_id is not None or batch.phase is Phase.SUCCEEDED):
            removed += batch.servers
        elif batch.job_id is not None or (batch.phase is Phase.SUCCEEDED and not batch.foreign):
            # Without a job id their nodes tell, unless somebody else's call may have made them.
            certainly += batch.servers - (batch.adopted or 0)
        else:
            perhaps += batch.servers - (batch.adopted or 0)
    first = min((batch.batch for batch in status.jobs), default=(status.last_batch or 0) + 1)
    return Wiped(certainly, perhaps, removed, forgotten=first > 1 or status.recovery is not None)


def lines(told: Explanation, now: datetime) -> Iterator[tuple[str, str]]:
    """At most ten lines for people, each with its title."""
    yield "Name", told.name
    yield "Doing", f"{told.doing}: {told.summary}"
    yield "Since", "not stored" if told.since is None else f"{rfc3339(told.since)} ({ago(now - told.since)} ago)"
    for wait in told.waits[:_SHOWN_WAITS]:
        yield "Waits for", f"{wait.what}{_until(wait, now)}"
    if len(told.waits) > _SHOWN_WAITS:
        yield "Waits for", f"{len(told.waits) - _SHOWN_WAITS} more: -o yaml"
    if not told.waits:
        yield "Waits for", "nothing that has a time"
    if told.wiped is not None:
        yield "Wiped", _of_wiped(told.wiped)
    if told.told is not None:
        yield "Told", f"Ready is {told.told.status}, {told.told.reason}: {told.told.message}"
    yield "Next", f"{told.next.command}  # {told.next.why}" if told.next.command else told.next.why


def document(told: Explanation) -> dict[str, object]:
    """The same for programs."""
    return {
        "name": told.name,
        "doing": str(told.doing),
        "summary": told.summary,
        "since": _stamp(told.since),
        "waits": [{"what": wait.what, "until": _stamp(wait.until)} for wait in told.waits],
        "wiped": None if told.wiped is None else asdict(told.wiped),
        "told": None
        if told.told is None
        else {"status": told.told.status, "reason": str(told.told.reason), "message": told.told.message},
        "next": {"command": told.next.command or None, "why": told.next.why},
    }


def _of_wiped(found: Wiped) -> str:
    parts = []
    if found.certainly:
        parts.append(f"yes, {counted(found.certainly, 'server')} by calls that were accepted")
    if found.perhaps:
        parts.append(f"perhaps {found.perhaps}: whether their call was accepted is not known")
    if found.removed:
        parts.append(f"{found.removed} by removal, which reinstalls them")
    if found.forgotten:
        parts.append("what older batches did is not listed any more")
    return "; ".join(parts) or "nothing"


def _until(wait: WaitedFor, now: datetime) -> str:
    if wait.until is None:
        return ""
    if wait.until <= now:
        return f"; due since {rfc3339(wait.until)}"
    return f"; until {rfc3339(wait.until)}, in {ago(wait.until - now)}"


def _stamp(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
