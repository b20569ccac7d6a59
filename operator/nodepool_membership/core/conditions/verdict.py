"""The one chain that turns what is known into conditions: what a person is told, and nothing else.

Not for: deciding anything. Nobody reads conditions or messages back. The links are asked in order, the first that
has an answer is the verdict. Follows kstatus and Flux: Ready is always there, Reconciling and Stalled only while
True and never both.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Literal

from nodepool_membership.api.codec import one_line, plain_text, rfc3339
from nodepool_membership.api.membership import Membership
from nodepool_membership.api.reasons import DRIFT, FailureReason, Reason
from nodepool_membership.api.status import Condition, Failure, Operation, Status, Wait
from nodepool_membership.core.conditions import texts, upcoming
from nodepool_membership.core.observed.observation import Trouble
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.observed.waiting import Blocker
from nodepool_membership.core.planning import approval
from nodepool_membership.core.planning.gates import STATUS_LOST, paused_object
from nodepool_membership.core.state.requests import reset_problem
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.core.wording import counted

READS_BEFORE_UNKNOWN: Final = 3
PASSING: Final = frozenset({Reason.CLOUD_UNREACHABLE, Reason.THROTTLED, Reason.CLOCK_SKEW, Reason.LISTING_IMPLAUSIBLE})
"""Troubles of a look that the next look may not have: one alone changes nothing that is known."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the conditions say: Ready with its reason, and at most one of the abnormal-true types."""

    ready: Literal["True", "False", "Unknown"]
    reason: Reason | FailureReason
    message: str
    abnormal: Literal["Reconciling", "Stalled"] | None = None
    abnormal_reason: Reason | FailureReason | None = None

    def __post_init__(self) -> None:
        if self.ready == "True" and self.abnormal is not None:
            raise ValueError("Ready=True goes with neither Reconciling nor Stalled")


@dataclass(frozen=True, slots=True)
class Facts:
    """All that a verdict is made of. `status` is the one that is about to be stored, but for its conditions."""

    membership: Membership
    status: Status
    now: datetime
    settings: Settings
    trouble: Trouble | None = None
    failed_reads: int = 0
    looked: bool = False
    """The nodes were read in this reconcile."""
    add_blocker: Blocker | None = None
    remove_blocker: Blocker | None = None
    watch_blocker: Blocker | None = None
    """Why open batches cannot be judged."""
    more: bool = False
    turn: datetime | None = None
    """When the write budget has a place, where that is what the next call waits for."""
    overdue: tuple[int, ...] = ()
    """Batches whose job should long have ended."""
    theirs: Rivals = field(default_factory=dict)
    """Listed servers that wait for another membership to let go of them."""
    vanished: int = 0

    def wait(self, operation: Operation) -> Wait | None:
        return next((w for w in self.status.waits if w.operation is operation and w.until > self.now), None)

    def next_call(self, operation: Operation) -> datetime | None:
        """When the next call of this kind is made, if that is known."""
        if operation is Operation.REMOVE:
            return upcoming.removal(self.membership, self.status, self.settings)
        return upcoming.add(self.membership, self.status, self.theirs.keys(), self.now)

    @property
    def why(self) -> str:
        """What keeps us from looking; without ids, which differ from one answer of the cloud to the next."""
        return "" if self.trouble is None else plain_text(self.trouble.message)

    @property
    def conflict(self) -> str:
        meta = self.membership.metadata
        return texts.conflict(self.theirs, f"{meta.namespace}/{meta.name}")

    @property
    def reads_fail(self) -> bool:
        return self.trouble is not None and self.failed_reads >= READS_BEFORE_UNKNOWN

    @property
    def all_joined(self) -> bool:
        return self.status.joined == self.status.desired

    @property
    def was_ready(self) -> bool:
        """Whether all had joined by a look at this generation, as far as was told: until another look says more."""
        generation, told = self.membership.metadata.generation, self.membership.status.conditions
        ready = [c for c in told if c.type == "Ready" and c.observed_generation == generation]
        return self.all_joined and any(c.status != "False" and c.reason is not Reason.PENDING for c in ready)

    @property
    def all_wait(self) -> bool:
        """Whether all that is left to do is another attempt at a known time: its cause is told, not that we work."""
        listed = self.membership.spec.server_ids
        later = [g for g in self.status.failures if g.retry_time is not None and g.retry_time > self.now]
        return 0 < self.status.pending == sum(len(listed.intersection(g.server_ids)) for g in later)

    @property
    def followed(self) -> bool:
        """Whether a call is under way whose job is not overdue."""
        return any(batch.batch not in self.overdue for batch in self.status.open_batches)

    @property
    def is_current(self) -> bool:
        """Whether the status is about the spec as it is: an older one is never told as Ready."""
        return self.status.observed_generation == self.membership.metadata.generation

    @property
    def blocker(self) -> Blocker | None:
        return self.add_blocker or self.remove_blocker

    @property
    def next_time(self) -> datetime | None:
        """When something next happens by itself."""
        return self._first if self.told_turn is None else self.told_turn

    @property
    def told_turn(self) -> datetime | None:
        """When the write budget has a place, if that is what happens next."""
        if self.turn is None or self._stopped or not upcoming.is_first(self.turn, self._first, self.now):
            return None
        return self.turn

    @property
    def _first(self) -> datetime | None:
        theirs, stopped = self.theirs.keys(), self._stopped
        return upcoming.next_time(self.membership, self.status, self.now, self.settings, theirs=theirs, stopped=stopped)

    @property
    def _stopped(self) -> bool:
        ends = self.blocker is not None and (self.blocker.stalls or self.blocker.reason is Reason.PAUSED)
        return ends or (self.trouble is not None and self.trouble.reason in STALLING)


def verdict_of(facts: Facts) -> Verdict:
    """Ask the links of the chain in their order."""
    for link in _CHAIN:
        found = link(facts)
        if found is not None:
            problem = reset_problem(facts.membership.metadata)
            return found if problem is None else replace(found, message=f"{problem}; {found.message}")
    raise AssertionError("the last link answers always")


def waiting(reason: Reason | FailureReason, message: str) -> Verdict:
    """Something is in the way and is tried again."""
    return Verdict("False", reason, message, "Reconciling", Reason.PROGRESSING_WITH_RETRY)


def stalled(reason: Reason | FailureReason, message: str) -> Verdict:
    """Nothing more happens until the cause is gone, the spec changes, or somebody asks."""
    return Verdict("False", reason, message, "Stalled", reason)


def _deleting(facts: Facts) -> Verdict | None:
    """A deletion is told as one, whatever else is so; why it waits is in its message."""
    if not facts.membership.metadata.deleting:
        return None
    why = [facts.why] if facts.trouble is not None else []
    wait = facts.wait(Operation.REMOVE)
    blocker = facts.remove_blocker or (paused_object(facts.membership) if facts.status.surplus else None)
    if wait is not None:
        why.append(f"{wait.message}; next attempt at {rfc3339(wait.until)}")
    elif blocker is not None:
        why.append(blocker.message)
    reason = Reason.DELETING if facts.trouble is None else facts.trouble.reason
    stopped = blocker is not None and blocker.reason is Reason.PAUSED
    message = texts.deleting(facts.membership, facts.status, facts.settings, why, stopped=stopped)
    return Verdict("False", reason, message, "Reconciling", Reason.DELETING)


def _suspended(facts: Facts) -> Verdict | None:
    """While suspended nothing is called: neither work under way nor a cloud that is away makes it reconcile."""
    if not facts.membership.spec.suspend:
        return None
    status, plan = facts.status, facts.status.plan
    parts = ["suspended"]
    if facts.trouble is not None:
        parts.append(f"the cloud could not be looked at: {facts.why}")
    nothing = plan is not None and not (plan.add or plan.adopt or plan.remove)
    done = facts.all_joined and facts.is_current and nothing
    if done and not (facts.followed or facts.reads_fail or facts.vanished):
        return Verdict("True", Reason.SUSPENDED, f"{'; '.join(parts)}; {texts.members(status)}")
    if plan is None:
        parts += [texts.counts(status), "the cloud was not looked at yet"]
    else:
        parts += texts.preview(plan, status)
    if facts.vanished:
        parts.append(f"{counted(facts.vanished, 'member')} not Active in the pool")
    if facts.theirs:
        parts.append(facts.conflict)
    return Verdict("False", Reason.SUSPENDED, "; ".join(parts))


def _reads_failed(facts: Facts) -> Verdict | None:
    """What is certain to stay so without a person, or has failed three times; or there is nothing else to tell."""
    trouble = facts.trouble
    if trouble is None:
        return None
    status = facts.status
    told = (status.open_batches, status.halt, status.waits, status.recovery, status.failures, status.plan, facts.theirs)
    may_pass = trouble.reason in PASSING and (any(told) or paused_object(facts.membership) is not None)
    if (facts.was_ready or may_pass) and not facts.reads_fail:
        return None
    if trouble.reason in STALLING:
        return stalled(trouble.reason, facts.why)
    if facts.was_ready and not facts.status.halt:
        text = f"{READS_BEFORE_UNKNOWN} consecutive reads of the cloud API failed: {facts.why}"
        reason = Reason.CLOUD_UNREACHABLE if trouble.reason in PASSING else trouble.reason
        return Verdict("Unknown", reason, text, "Reconciling", Reason.PROGRESSING_WITH_RETRY)
    return waiting(trouble.reason, facts.why)


STALLING: Final = frozenset({Reason.REGION_UNKNOWN, Reason.ENDPOINT_NOT_ALLOWED, Reason.NOT_GRANTED})
"""Nothing passes by itself here: a person has to change the spec or the operator's options."""


def _recovering(facts: Facts) -> Verdict | None:
    recovery = facts.status.recovery
    idle = facts.all_joined and facts.looked and not facts.status.surplus
    if recovery is None or recovery.until <= facts.now or idle:
        return None
    return waiting(Reason.STATUS_LOST, f"{STATUS_LOST.message}; it ends at {rfc3339(recovery.until)}")


def _halted(facts: Facts) -> Verdict | None:
    """No further add is made, before another batch of servers is wiped for nothing."""
    halt = facts.status.halt
    if halt is None or facts.all_joined:
        return None
    return stalled(halt.reason, f"{texts.counts(facts.status)}; {halt.message}; {texts.HALTED}")


def _blocked(facts: Facts) -> Verdict | None:
    """Why the next call is not made now."""
    status = facts.status
    blocker, adds = facts.blocker, status.pending > len(facts.theirs)
    kind = Operation.ADD if (adds if blocker is None else facts.add_blocker is not None) else Operation.REMOVE
    wait = facts.wait(kind)
    if blocker is None and (adds or status.surplus):
        blocker = paused_object(facts.membership)
        if blocker is None and wait is not None and wait.until == facts.next_call(kind):
            # Nobody asked whether a call could be made, or it waits for another attempt, which comes before.
            blocker = Blocker(wait.reason, wait.message)
        if blocker is None and status.plan is not None and facts.trouble is not None and not facts.followed:
            blocker = approval.awaited(facts.membership, status.plan)
    blocker = blocker or facts.watch_blocker
    if blocker is None:
        return None
    if blocker.stalls:
        return stalled(blocker.reason, f"{texts.counts(status)}; {blocker.message}")
    when = f"; next attempt at {rfc3339(wait.until)}" if wait is not None and wait.reason is blocker.reason else ""
    return waiting(blocker.reason, f"{blocker.message}{when}")


def _overdue(facts: Facts) -> Verdict | None:
    """A job that does not end, where nothing else goes on."""
    if facts.more or facts.followed:
        return None
    members = frozenset(facts.status.members)
    if upcoming.kept_by_jobs(facts.membership, facts.status):
        members &= facts.membership.spec.server_ids
    late = [b for b in facts.status.open_batches if b.batch in facts.overdue and not members.issuperset(b.server_ids)]
    if not late:
        return None
    return stalled(Reason.JOB_OVERDUE, texts.overdue([b.batch for b in late], facts.membership.spec))


def _progressing(facts: Facts) -> Verdict | None:
    """Calls are under way, or the next one waits for its turn."""
    status = facts.status
    if facts.all_joined and not facts.followed and not status.surplus:
        return None
    if not facts.followed and not facts.more and (facts.looked or facts.trouble is not None or facts.all_wait):
        return None
    return _progress(facts)


def _progress(facts: Facts) -> Verdict:
    theirs = len(facts.theirs)
    message = texts.progress(facts.membership, facts.status, facts.settings, facts.told_turn, theirs)
    return Verdict("False", Reason.PROGRESSING, message, "Reconciling", Reason.PROGRESSING)


def _removing(facts: Facts) -> Verdict | None:
    """Nothing is open, and members are still owed removal."""
    status, spec = facts.status, facts.membership.spec
    if not status.surplus:
        return None
    stuck = [g for g in status.failures if g.reason is FailureReason.REMOVAL_FAILED and g.attempts >= spec.max_attempts]
    if sum(g.count for g in stuck) < status.surplus:
        return _progress(facts)
    return stalled(
        FailureReason.REMOVAL_FAILED, f"{texts.counts(status)}; {texts.causes(stuck, spec.max_attempts, facts.now)}"
    )


def _settled(facts: Facts) -> Verdict:
    """Nothing is open and nothing can be sent now: done, waiting for a retry or a node, or stalled."""
    status, spec = facts.status, facts.membership.spec
    if facts.all_joined and not facts.vanished:
        if not (facts.is_current and (facts.looked or facts.was_ready)):
            return _progress(facts)
        return Verdict("True", Reason.SUCCEEDED, texts.members(status))
    ours = spec.server_ids - facts.theirs.keys()
    groups = [g for g in status.failures if not ours.isdisjoint(g.server_ids)]
    others_wait = status.pending > len(facts.theirs)
    if not groups and (others_wait or not facts.theirs):
        return _progress(facts)
    reason = Reason.CONFLICT if facts.theirs else _shared_reason(groups)
    parts = [texts.counts(status)]
    if facts.theirs:
        parts.append(facts.conflict)
    if groups:
        parts.append(texts.causes(groups, spec.max_attempts, facts.now))
    if others_wait or any(rival.until is not None for rival in facts.theirs.values()):
        return waiting(reason, "; ".join(parts))
    return stalled(reason, "; ".join(parts))


def _shared_reason(groups: list[Failure]) -> Reason | FailureReason:
    reasons = {g.reason for g in groups}
    if len(reasons) == 1:
        return groups[0].reason
    return FailureReason.MEMBER_MISSING if reasons <= DRIFT else Reason.SERVERS_FAILED


_CHAIN: Final[tuple[Callable[[Facts], Verdict | None], ...]] = (
    # What a person asked for outranks what the cloud says.
    _deleting,
    _suspended,
    # Then why nothing is known,
    _reads_failed,
    _recovering,
    # why nothing more is done,
    _halted,
    _blocked,
    _overdue,
    # what is being done,
    _progressing,
    _removing,
    # and what has come of it.
    _settled,
)


def conditions(status: Status, verdict: Verdict, generation: int, now: datetime) -> tuple[Condition, ...]:
    """Write the verdict as conditions; a transition time changes only with its condition's status."""
    wanted = [_condition("Ready", verdict.ready, verdict.reason, verdict.message, generation)]
    if verdict.abnormal is not None:
        reason = verdict.abnormal_reason or verdict.reason
        wanted.append(_condition(verdict.abnormal, "True", reason, verdict.message, generation))
    before = {c.type: c for c in status.conditions}
    return tuple(_since(before.get(c.type), c, now) for c in wanted)


def _condition(
    kind: Literal["Ready", "Reconciling", "Stalled"],
    value: Literal["True", "False", "Unknown"],
    reason: Reason | FailureReason,
    message: str,
    generation: int,
) -> Condition:
    return Condition(kind, value, reason, one_line(message), generation)


def _since(old: Condition | None, new: Condition, now: datetime) -> Condition:
    unchanged = old is not None and old.status == new.status and old.last_transition_time is not None
    return replace(new, last_transition_time=old.last_transition_time if old is not None and unchanged else now)
