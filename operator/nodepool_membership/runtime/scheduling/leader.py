"""Leadership: which of the replicas may call the cloud, by client-go's rules of leader election (rule P22).

Not for: the Lease on the wire (`kube.lease`), or what the leader does. A lost lease forbids calls, never records.

Times are seconds on a clock of this machine that also runs while it is suspended. Clocks of two machines are never
compared: somebody else's lease is over when it has not changed before our eyes for as long as its holder said.
"""

import asyncio
import logging
import math
import os
import random
import secrets
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from nodepool_membership.kube.errors import KubeError
from nodepool_membership.kube.lease import Holding, Lease, LeaseObject, micro_time

_logger = logging.getLogger(__name__)

MayCall = Callable[[], bool]
"""Whether this process may call the cloud at this very moment."""

_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Other systems than Linux have the latter only."""
_RETRIES: Final = 5
"""Attempts within the renew deadline."""
_RELEASE_SECONDS: Final = 3.0
_REMIND_SECONDS: Final = 60.0


def boot_time() -> float:
    """Seconds since the machine started, those in which it was suspended included."""
    return time.clock_gettime(_CLOCK)


def own_identity(environ: Mapping[str, str] = os.environ) -> str:
    """A name that no other process has or had: a restarted container keeps its pod's name."""
    return f"{environ.get('POD_NAME') or socket.gethostname()}_{secrets.token_hex(8)}"


@dataclass(frozen=True, slots=True)
class Timing:
    """In seconds; the deadline is shorter than the lease, so that a leader stops before another one can start."""

    lease: float
    deadline: float

    @classmethod
    def of(cls, lease_duration: timedelta, renew_deadline: timedelta) -> "Timing":
        return cls(lease_duration.total_seconds(), renew_deadline.total_seconds())

    @property
    def retry(self) -> float:
        """Between two attempts to take or keep the lease: 2 s by default, as in client-go."""
        return self.deadline / _RETRIES

    @property
    def whole_seconds(self) -> int:
        """As the Lease says it; rather too long for the others than too short."""
        return math.ceil(self.lease)


class Election:
    """Who holds the lease, as one process saw it. Knows neither I/O nor a clock: `now` is an argument."""

    def __init__(self, identity: str, timing: Timing) -> None:
        self.identity = identity
        self._timing = timing
        self._lease: Lease | None = None
        self._changed_at = 0.0
        self._renewed_at: float | None = None
        self._lost = False

    @property
    def lease(self) -> Lease | None:
        """As last seen."""
        return self._lease

    def leads(self, now: float) -> bool:
        """Whether this process has the lease, and renewed it less than the deadline ago."""
        if self._renewed_at is not None and now >= self._renewed_at + self._timing.deadline:
            self._lost = True
        return self._renewed_at is not None and not self._lost

    def is_lost(self, now: float) -> bool:
        """Whether it led once and does no longer: for good, a process leads only once."""
        return not self.leads(now) and self._lost

    def until_deadline(self, now: float) -> float:
        """Seconds for which a leader may go on without renewing."""
        return 0.0 if self._renewed_at is None else max(0.0, self._renewed_at + self._timing.deadline - now)

    def saw(self, lease: Lease, now: float) -> None:
        """The lease was read; `now` is after the answer, so that a slow one lets nobody's lease end too early."""
        if self._lease is None or lease.holding != self._lease.holding:
            self._changed_at = now
        self._lease = lease
        if self._renewed_at is not None and lease.holding.holder != self.identity:
            self._lost = True

    def bid(self, now: float, written_as: str) -> Holding | None:
        """What to write to take or keep the lease, with `written_as` for the time; None while another one has it."""
        if self._lease is None:
            return None
        old = self._lease.holding
        if old.holder == self.identity:
            return replace(old, duration_seconds=self._timing.whole_seconds, renew_time=written_as)
        if old.holder and now < self._changed_at + (old.duration_seconds or self._timing.lease):
            return None
        return Holding(self.identity, self._timing.whole_seconds, written_as, written_as, old.transitions + 1)

    def wrote(self, lease: Lease, begun_at: float, now: float) -> None:
        """A bid is stored; `begun_at` is before it was sent, since the others may have seen it from then on."""
        self.leads(now)
        self.saw(lease, now)
        self._renewed_at = begun_at

    def resign(self) -> None:
        """Lead no longer."""
        self._lost = True


class Leadership(Protocol):
    """What the process asks of the election."""

    def may_call(self) -> bool:
        """Whether this process may call the cloud at this very moment."""
        ...

    def ready(self) -> str | None:
        """A readiness check: this process leads, or could take over."""
        ...

    async def win(self) -> None:
        """Compete; returns when this process leads."""
        ...

    async def hold(self) -> None:
        """Keep the lease; returns when it is lost."""
        ...

    async def release(self) -> None:
        """Give the lease up, so that another process need not wait until it ends. Never fails."""
        ...


class Alone:
    """Leadership without a competitor (`--no-leader-elect`): one replica, by the word of the user."""

    def may_call(self) -> bool:
        return True

    def ready(self) -> str | None:
        return None

    async def win(self) -> None:
        return None

    async def hold(self) -> None:
        await asyncio.Event().wait()

    async def release(self) -> None:
        return None


class Candidate:
    """Leadership by a Lease."""

    def __init__(
        self,
        lease: LeaseObject,
        identity: str,
        timing: Timing,
        *,
        clock: Callable[[], float] = boot_time,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._lease = lease
        self._timing = timing
        self._clock = clock
        self._now = now
        self._sleep = sleep
        self._election = Election(identity, timing)
        self._seen_at: float | None = None
        self._read_first = True
        self._complaint = ""
        self._complained_at = 0.0

    def may_call(self) -> bool:
        return self._election.leads(self._clock())

    def ready(self) -> str | None:
        if self._seen_at is None:
            return f"lease {self._lease}: {self._complaint or 'not seen yet'}"
        age = self._clock() - self._seen_at
        return f"lease {self._lease}: not seen for {age:.0f} s" if age > self._timing.lease else None

    async def win(self) -> None:
        waits_for: str | None = None
        while True:
            await self._attempt(self._timing.deadline / 2)
            if self.may_call() or self._election.is_lost(self._clock()):
                return
            seen = self._election.lease
            if seen is not None and seen.holding.holder not in {waits_for, "", self._election.identity}:
                waits_for = seen.holding.holder
                _logger.info("another process leads", extra={"lease": str(self._lease), "holder": waits_for})
            # Several that wait must not always ask at the same moment.
            await self._sleep(self._timing.retry * random.uniform(1.0, 1.2))  # noqa: S311 - spreads load

    async def hold(self) -> None:
        while self.may_call():
            await self._sleep(min(self._timing.retry, self._election.until_deadline(self._clock())))
            if self.may_call():
                left = self._election.until_deadline(self._clock())
                await self._attempt(min(self._timing.deadline / 2, left))
        seen = self._election.lease
        extra = {"lease": str(self._lease), "holder": seen.holding.holder if seen is not None else ""}
        _logger.error("the lease is lost: no further call is made by this process", extra=extra)

    async def release(self) -> None:
        self._election.resign()
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                found = await self._lease.read(timeout_seconds=_RELEASE_SECONDS)
                if found.holding.holder == self._election.identity:
                    free = replace(found.holding, holder="", duration_seconds=1, renew_time=micro_time(self._now()))
                    await self._lease.write(found, free, timeout_seconds=_RELEASE_SECONDS)
        except (KubeError, TimeoutError) as error:
            text = "the lease %s is not given up, another process waits until it ends: %s"
            _logger.warning(text, self._lease, error)

    async def _attempt(self, timeout_seconds: float) -> None:
        """Read the lease, unless we hold it as we last wrote it, and write it if it is ours to take or keep."""
        try:
            if self._read_first or not self.may_call():
                self._election.saw(await self._lease.read(timeout_seconds=timeout_seconds), self._clock())
                self._seen_at = self._clock()
            begun_at = self._clock()
            seen, bid = self._election.lease, self._election.bid(begun_at, micro_time(self._now()))
            if seen is not None and bid is not None:
                self._read_first = True
                stored = await self._lease.write(seen, bid, timeout_seconds=timeout_seconds)
                self._election.wrote(stored, begun_at, self._clock())
                self._seen_at = self._clock()
                self._read_first = False
        except KubeError as error:
            self._complain(f"{type(error).__name__}: {error}")

    def _complain(self, problem: str) -> None:
        """Say what is wrong, and again once a minute while it lasts."""
        now = self._clock()
        if problem != self._complaint or now - self._complained_at >= _REMIND_SECONDS:
            self._complaint, self._complained_at = problem, now
            _logger.warning("lease %s: %s", self._lease, problem)
