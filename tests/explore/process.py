"""One operator process in the small world: runs the program of a reconcile, with a choice wherever the world has one.

Not for: which choices are made (`moves`), or whether what follows is right (`judge`). The only room that knows the
operator. What a process remembers between two programs are its claims and its memories; a program on its way is kept as
the answers it was given.
"""

import json
from collections.abc import Callable, Generator, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any, Final

from explore import calls, reads
from explore.answers import job_said
from explore.objects import Object, body, moment, server_of, with_status
from explore.points import Point, Ran
from explore.remembered import packed, unpacked
from explore.snapshots import AWAY, at_hand, ticked
from explore.world import Paused, World
from nodepool_membership.api.membership import Membership, Metadata, UnreadableStatus, parse_membership, status_json
from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.status import Operation
from nodepool_membership.core.decision.record import Answer
from nodepool_membership.core.observed.observation import JobReport, NamespaceState, Trouble
from nodepool_membership.core.observed.rivals import Rivals
from nodepool_membership.core.preflight.facts import Inspection
from nodepool_membership.core.program import effects as fx
from nodepool_membership.core.program.memory import Memory
from nodepool_membership.core.program.reconcile import reconcile
from nodepool_membership.core.program.requeue import Intervals, Requeue
from nodepool_membership.core.state.ledger import Ledger
from nodepool_membership.core.state.settings import Settings
from nodepool_membership.runtime.claims.claims import Claims

SETTINGS: Final = Settings()
INTERVALS: Final = Intervals(SETTINGS.poll_interval, SETTINGS.resync_interval)


class _StandsStill(Exception):  # noqa: N818 - no error
    """The program is not performed any further."""


@lru_cache(maxsize=100_000)
def _parsed(stored: Object) -> Membership | UnreadableStatus:
    return parse_membership(body(stored))


class Run:
    """One program, over a world of its own."""

    def __init__(self, world: World, who: int, key: int, choices: dict[int, str], stop: int | None) -> None:
        self.world = world
        self.objects = list(world.objects)
        self.cloud = world.cloud
        self.process = world.processes[who]
        self._who = who
        self._key = key
        self._choices = choices
        self._stop = stop
        self._from = -1
        """The point before which the program stood, in a run that goes on with it."""
        self._claims: Claims | None = None
        self._answers: list[tuple[bool, Any]] = []
        self.points: list[Point] = []
        self.wrongs: list[str] = []

    @property
    def now(self) -> int:
        """By the clock of the process."""
        return self.world.now + self.process.skew

    def instant(self) -> datetime:
        """The same, in a moment of its own."""
        self.process, at = ticked(self.process, self.world.now)
        return at

    def run(self) -> Ran:
        """Perform effects until the program ends, or has to stand still."""
        key = (self.world.objects[self._key].namespace, self.world.objects[self._key].name)
        steps: calls.Steps = {fx.Call: calls.in_two} if self.world.temporary else {}
        if self.cloud.marks:
            steps = {**steps, fx.InspectServers: reads.in_two}
        program = calls.in_steps(reconcile(key, SETTINGS), steps)
        seconds: float | None = None
        try:
            requeue = self._to_the_end(program)
            seconds = self._seconds(requeue)
            paused = None
        except _StandsStill as still:
            (kind, before) = still.args
            index = self.points[-1].at
            paused = Paused(self._who, self._key, tuple(self._answers), index, kind, before)
        except fx.StoreError:
            # The queue tries again.
            seconds, paused = 1.0, None
        except Exception as error:  # noqa: BLE001 - whatever the operator raises is a finding
            self.wrongs.append(f"the operator raised {type(error).__name__}: {error}")
            paused = None
        processes = list(self.world.processes)
        if self._claims is not None:
            self.process = self.process._replace(claims=packed(self._claims))
        entitled = self.process.entitled if paused is not None else self.process.entitled - {self._key}
        processes[self._who] = self.process._replace(entitled=entitled)
        world = self.world._replace(
            objects=tuple(self.objects),
            cloud=self.cloud,
            processes=tuple(processes),
            paused=paused or self._other_paused(),
        )
        return Ran(world, tuple(self.points), tuple(self.wrongs), seconds)

    def _other_paused(self) -> Paused | None:
        paused = self.world.paused
        return None if paused is None or (paused.who, paused.key) == (self._who, self._key) else paused

    def _seconds(self, requeue: Requeue | None) -> float | None:
        if requeue is None:
            return None
        stored = self.objects[self._key]
        pool = _parsed(self.world.objects[self._key]).spec.node_pool
        return INTERVALS.seconds(requeue, pool, str(stored.uid), moment(self.now))

    def _to_the_end(self, program: Generator[Any, Any, Requeue | None]) -> Requeue | None:
        replay: Iterator[tuple[bool, Any]] = iter(())
        if (paused := self.world.paused) is not None and (paused.who, paused.key) == (self._who, self._key):
            replay = iter(paused.answers)
            self._from = paused.point
        answer: Any = None
        error: Exception | None = None
        while True:
            try:
                effect = program.send(answer) if error is None else program.throw(error)
            except StopIteration as end:
                ended: Requeue | None = end.value
                return ended
            recorded = next(replay, None)
            if recorded is None:
                recorded = self._recorded(effect)
            self._answers.append(recorded)
            answer, error = (recorded[1], None) if recorded[0] else (None, recorded[1])

    def _recorded(self, effect: fx.Effect[object]) -> tuple[bool, Any]:
        try:
            return True, _PERFORM[type(effect)](self, effect)
        except fx.StoreError as error:
            return False, error

    def _choice(
        self, kind: str, effect: fx.Effect[object], servers: tuple[int, ...] = (), more: tuple[str, ...] = ()
    ) -> str:
        """What the world chooses here; "": what is usual."""
        index = len(self._answers)
        self.points.append(Point(index, kind, servers, more))
        if index == self._stop and index != self._from:
            raise _StandsStill(kind, repr(effect))
        return self._choices.get(index, "")

    # The process

    def _claims_of(self) -> Claims:
        if self._claims is None:
            self._claims = unpacked(self.process.claims, self.instant)
        return self._claims

    def _note(self, effect: fx.TakeOver) -> Memory:
        uid = effect.found.metadata.uid
        ledger = self.process.ledgers[self._key]
        self._claims_of().note(effect.found, None if ledger is None or ledger[0] != uid else ledger[1])
        known = self.process.memories[self._key]
        if known is None or known[0] != uid:
            known = (uid, Memory())
        kept: Memory = known[1]
        kept = kept.known_from(self._claims_of().freed(effect.found))
        self._memorise((uid, kept))
        self.process = self.process._replace(unread=self.process.unread - {self._key})
        return kept

    def _memorise(self, known: tuple[str, Memory] | None) -> None:
        memories = list(self.process.memories)
        memories[self._key] = known
        self.process = self.process._replace(memories=tuple(memories))

    def _recall(self, _effect: fx.RecallLedger) -> Ledger | None:
        known = self.process.ledgers[self._key]
        return None if known is None or known[0] != self._uid() else known[1]

    def _keep(self, effect: fx.KeepLedger) -> None:
        ledgers = list(self.process.ledgers)
        ledgers[self._key] = (self._uid(), effect.ledger)
        self.process = self.process._replace(ledgers=tuple(ledgers))

    def _uid(self) -> str:
        known = self.process.memories[self._key]
        return "" if known is None else known[0]

    def _remember(self, effect: fx.Remember) -> None:
        known = self.process.memories[self._key]
        if known is not None:
            self._memorise((known[0], effect.memory))

    def _forget(self, effect: fx.Forget) -> None:
        self._claims_of().drop(effect.key)
        self._memorise(None)
        self.process = self.process._replace(unread=self.process.unread - {self._key})

    def _rivals(self, effect: fx.FindRivals) -> Rivals | None:
        return None if self.process.unread else self._claims_of().rivals(effect.membership)

    def _looked(self, effect: fx.CredentialsTried) -> None:
        self._claims_of().looked(effect.membership, saw=effect.saw)

    def _reserve(self, effect: fx.Reserve) -> bool:
        self._choice("reserve", effect)
        return self._claims_of().reserve(effect.membership, effect.intent, effect.listed)

    def _naming(self, effect: fx.FindNaming) -> fx.Key | None:
        """The watch is prompt: whatever another names by now, it told of."""
        wanted = {server_of(i) for i in effect.server_ids}
        for index, stored in enumerate(self.objects):
            if index != self._key and stored.there and wanted & stored.spec.servers:
                return stored.namespace, stored.name
        return None

    def _doubt(self, _effect: fx.Doubt) -> None:
        self.process = self.process._replace(doubted=True)

    # The API server

    def _read(self, effect: fx.ReadObject) -> Membership | UnreadableStatus | None:
        stored = self.objects[self._key]
        others = len(self.objects) > 1
        if others and self._key in self.process.unread and self._choice("first read", effect) == "away":
            raise fx.StoreError("no answer")
        self._note_version()
        return _parsed(stored) if stored.there else None

    def _note_version(self) -> None:
        """Since when the process knows of the object as it is."""
        version, noted = self.objects[self._key].version, list(self.process.noted)
        known, latest = noted[self._key], ticked(self.process, self.world.now)[1]
        # One from the future was noted before the clock was set back.
        if known is None or known[0] != version or known[1] > latest:
            noted[self._key] = (version, self.instant())
            self.process = self.process._replace(noted=tuple(noted))

    def _decided(self, effect: fx.TellDecided) -> None:
        listing, noted = effect.seen.listing, self.process.noted[self._key]
        unchanged = effect.membership.metadata.resource_version == str(noted[0])
        if effect.decision.intent is not None and unchanged and (listing is None or listing.begun < noted[1]):
            self.wrongs.append("a call is decided by a snapshot that began before the object was read")

    def _guarded(self, meta: Metadata) -> Object:
        stored = self.objects[self._key]
        if not stored.there:
            raise fx.StoreError("not found")
        if meta.resource_version != str(stored.version) or not meta.uid.endswith(f"{stored.uid:012d}"):
            raise fx.ConflictError("changed")
        return stored

    def _write_status(self, effect: fx.WriteStatus) -> str:
        how = self._choice("status", effect)
        stored = self._guarded(effect.membership.metadata)
        if how == "unanswered-lost":
            raise fx.NoAnswerError("no answer")
        text = json.dumps(status_json(effect.status), separators=(",", ":"))
        after = with_status(stored, text)
        self.objects[self._key] = after
        if how == "unanswered-stored":
            raise fx.NoAnswerError("no answer")
        read = _parsed(after)
        if not isinstance(read, Membership) or read.status != effect.status:
            self.wrongs.append("a status does not read back as it was written")
        else:
            self._claims_of().stored(effect.membership, read)
        self._note_version()
        return str(after.version)

    def _write_conditions(self, effect: fx.WriteConditions) -> str:
        stored = self._guarded(effect.metadata)
        status = json.loads(stored.status)
        kinds = [{"type": c.type, "status": c.status, "reason": str(c.reason)} for c in effect.conditions]
        status |= {"conditions": kinds, "observedGeneration": stored.generation}
        self.objects[self._key] = with_status(stored, json.dumps(status, separators=(",", ":")))
        return str(self.objects[self._key].version)

    def _finalizer(self, effect: fx.AddFinalizer | fx.RemoveFinalizer) -> str:
        self._choice("finalizer", effect)
        holds = isinstance(effect, fx.AddFinalizer)
        if (FINALIZER in effect.metadata.finalizers) == holds:
            return effect.metadata.resource_version
        stored = self._guarded(effect.metadata)
        if holds and stored.deleted is not None:
            raise fx.StoreError("no finalizer can be added once deletion began")
        after = stored._replace(held=holds, version=stored.version + 1)
        if stored.deleted is not None and not holds:
            after = after._replace(uid=0)
        self.objects[self._key] = after
        return str(after.version)

    def _home(self, _effect: fx.ReadNamespaceState) -> NamespaceState:
        keeps = "the namespace is being deleted, too" if self.world.goes(self._key) else None
        return NamespaceState(keeps, "wait" if self.objects[self._key].paused == "namespace" else None)

    # The cloud

    def _look(self, effect: fx.ReadCluster) -> fx.ClusterView | Trouble | fx.Awaited:
        found = at_hand(self.process, self.now, self._key, effect)
        self._choice("look", effect)
        process, key = self.process, self._key
        if found is None:
            self.process = process._replace(parked=process.parked | {key}, entitled=process.entitled - {key})
            return fx.Awaited()
        if isinstance(found, Trouble):
            self.process = process._replace(entitled=process.entitled - {key})
        return found

    def _inspect(self, effect: fx.InspectServers) -> Inspection:
        how = self._choice("servers", effect) if self.cloud.marks else ""
        return reads.seen(self.cloud, effect, how, self.now)

    def _heard(self, effect: reads.Heard) -> None:
        self._choice("heard", effect)

    def _jobs(self, effect: fx.AskJobs) -> dict[str, JobReport] | Trouble:
        how = self._choice("jobs", effect)
        if how == "trouble":
            return AWAY
        return {job: job_said(self.cloud, job, how, self.world.now) for job in effect.job_ids}

    def _at(self) -> calls.Moment:
        return calls.Moment(self.world.now, self.process.skew, self.world.leader == self._who)

    def _begin(self, effect: calls.Begin) -> calls.Moment:
        self._choice("begin", effect)
        return self._at()

    def _call(self, effect: fx.Call | calls.Leave) -> Answer:
        intent, in_two = effect.intent, isinstance(effect, calls.Leave)
        kind = "add" if intent.operation is Operation.ADD else "remove"
        servers = tuple(server_of(i) for i in intent.server_ids)
        fate = self._choice(kind, effect, servers, calls.KEY_FATES if in_two else ())
        came = calls.made(self.cloud, effect, fate, self._at(), self.process.keys_until)
        self.process = self.process._replace(keys_until=came.keys_until)
        self.cloud = came.cloud
        self.wrongs += came.wrongs
        return came.answer


_PERFORM: Final[dict[type, Callable[[Run, Any], Any]]] = {
    fx.Now: lambda run, _: run.instant(),
    fx.Sleep: lambda _run, _: None,
    fx.Forget: Run._forget,
    fx.TakeOver: Run._note,
    # The patience of whoever waits for the others is over, and it goes on without them.
    fx.WaitForOthers: lambda _run, _: None,
    fx.RecallLedger: Run._recall,
    fx.KeepLedger: Run._keep,
    fx.Remember: Run._remember,
    fx.FindRivals: Run._rivals,
    fx.CredentialsTried: Run._looked,
    fx.Reserve: Run._reserve,
    fx.FindNaming: Run._naming,
    fx.AskLease: lambda run, _: run.world.leader == run._who,
    fx.Doubt: Run._doubt,
    fx.IsDoubted: lambda run, _: run.process.doubted,
    fx.Shield: lambda _run, _: None,
    fx.ReadObject: Run._read,
    fx.ReadNamespaceState: Run._home,
    fx.WriteStatus: Run._write_status,
    fx.WriteConditions: Run._write_conditions,
    fx.AddFinalizer: Run._finalizer,
    fx.RemoveFinalizer: Run._finalizer,
    fx.Connect: lambda _run, _: None,
    fx.AskJobs: Run._jobs,
    fx.ReadCluster: Run._look,
    fx.InspectServers: Run._inspect,
    reads.Heard: Run._heard,
    fx.IsAtHand: lambda run, effect: at_hand(run.process, run.now, run._key, effect.look) is not None,
    **dict.fromkeys((fx.AskTurn, fx.TakeWriteSlot), lambda _run, _: fx.WriteSlot(0.0)),
    fx.Call: Run._call,
    calls.Begin: Run._begin,
    calls.Leave: Run._call,
    fx.WriteLog: lambda _run, _: None,
    fx.TellDecided: Run._decided,
    fx.TellStored: lambda _run, _: None,
    fx.TellReleased: lambda _run, _: None,
    fx.TellWithheld: lambda _run, _: None,
}
