"""What is known of the watch's streams, one for each namespace that is watched, and what the probes make of it.

Not for: opening them (`watch`). Nothing here asks anybody; times are seconds on the monotonic clock.

Readiness tells the truth: not ready while a stream is not open, whoever is at fault.

Liveness asks whether a restart would help, so it fails in two cases only:

- the API server answers other requests of this process, while kopf has heard no answer at all for longer than it ever
  waits: its thread is dead or blocked, its connections are dead, or it forgot a stream;
- every answer of the last 10 minutes was 401: a new process logs in anew.

It holds while the API server is away, however long: kopf tries for ever, and a restart would lose what waits in memory
for its record. It holds on 403, too: rights come back without us.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

SERVER_TIMEOUT_SECONDS: Final = 240
"""A watch ends by itself after so long and is opened again: the sign of life of a quiet cluster."""
INACTIVITY_SECONDS: Final = 70.0
"""A watch on which nothing arrives for so long is opened again; the API server sends a bookmark every minute."""
SILENT_SECONDS: Final = SERVER_TIMEOUT_SECONDS + INACTIVITY_SECONDS + 20
"""kopf is never without an answer for longer, if it works and the API server answers."""
AT_FAULT_SECONDS: Final = 300.0
"""For so long the API server has to answer others, so that kopf has found back to it if it can."""
REFUSED_SECONDS: Final = 600.0
"""Ten times as long as it takes until a rotated token is read."""
REOPENING_SECONDS: Final = 15.0
"""A stream may be closed for so long without a word: one is opened again every few minutes."""

_MEANS: Final = {
    401: "the login is refused; renew the token",
    403: "list and watch on the resource are not allowed; check the operator's role",
    404: "the resource type is not served; apply the CRD",
    410: "it was too far behind and lists again",
}


@dataclass(slots=True)
class _Stream:
    heard: float
    """When the last answer of any kind came."""
    closed: float | None = None
    """Since when it is not open; None while it is, and before it was open for the first time."""
    listed: bool = False
    """Whether it was open since kopf started."""
    status: int | None = None
    """HTTP status of the last answer, None before the first and while one is waited for."""
    refused: float | None = None
    """When the first of the answers came that were all 401."""


class Streams:
    """Told by kopf's thread of each request and answer, asked by the probes from the main thread."""

    def __init__(self, names: Iterable[str], *, clock: Callable[[], float]) -> None:
        self._clock = clock
        now = clock()
        # No key is added later: two threads use it.
        self._streams = {name: _Stream(heard=now) for name in names}
        self._at_fault: float | None = None

    def asked(self, name: str) -> None:
        """A list or watch request is sent: the stream is not open."""
        stream = self._streams[name]
        stream.status = None
        if stream.listed and stream.closed is None:
            stream.closed = self._clock()

    def answered(self, name: str, status: int, *, watch: bool) -> None:
        """The headers of the answer to the last request are here; with 200 for a watch, the stream is open."""
        stream, now = self._streams[name], self._clock()
        stream.heard, stream.status = now, status
        stream.refused = None if status != 401 else now if stream.refused is None else stream.refused
        if watch and status == 200:
            stream.listed, stream.closed = True, None

    def ended(self) -> None:
        """kopf has ended: no stream is open."""
        for stream in self._streams.values():
            stream.listed, stream.closed = False, None

    def silent(self) -> bool:
        """Whether a stream has no answer for longer than kopf ever waits: `api_answers` is to be told."""
        return any(self._clock() - stream.heard > SILENT_SECONDS for stream in self._streams.values())

    def api_answers(self, *, does: bool) -> None:
        """Whether the API server answers another request of this process, and kopf could hear it, too."""
        if not does or not self.silent():
            self._at_fault = None
        elif self._at_fault is None:
            self._at_fault = self._clock()

    def ready(self) -> str | None:
        """A readiness check: every stream is open, and was opened again when it should have been."""
        now = self._clock()
        for name, stream in self._streams.items():
            if not stream.listed:
                return f"watch: {name}: the first list is not finished: {_why(stream.status)}"
            if stream.closed is not None and now - stream.closed > REOPENING_SECONDS:
                return f"watch: {name}: not open for {now - stream.closed:.0f} s: {_why(stream.status)}"
            if now - stream.heard > SILENT_SECONDS:
                return f"watch: {name}: not opened again for {now - stream.heard:.0f} s"
        return None

    def alive(self) -> str | None:
        """A liveness check: nothing that a restart would cure."""
        now = self._clock()
        for name, stream in self._streams.items():
            if stream.refused is not None and stream.heard - stream.refused > REFUSED_SECONDS:
                return (
                    f"watch: {name}: the API server refuses the login (401) for {stream.heard - stream.refused:.0f} s"
                )
            if self._at_fault is None or now - self._at_fault <= AT_FAULT_SECONDS:
                continue
            if now - stream.heard > SILENT_SECONDS:
                return f"watch: {name}: no answer for {now - stream.heard:.0f} s, though the API server answers others"
        return None


def _why(status: int | None) -> str:
    if status is None:
        return "no answer from the API server"
    return f"the API server answers {status}" + (f": {_MEANS[status]}" if status in _MEANS else "")
