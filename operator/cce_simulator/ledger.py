"""What was asked of the simulator and what it answered: every call, and the sums tests and benches need.

Not for: judging the caller. A "double add" is counted here as a fact; whether it is a fault is for the test to say.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class Entry:
    """One call. `status` 0: the connection was closed without an answer."""

    seq: int  # 1, 2, 3, ... over all calls, counted reads too
    time: float  # arrival, seconds since 1970 on the simulator's clock
    method: str
    path: str  # with the query, as sent
    route: str  # a name of routes.ROUTES, or "unknown"
    access_key: str  # unverified; "token:<8 hex>" for tokens, "" for none
    status: int
    error_code: str | None
    request_id: str
    response_bytes: int
    server_ids: tuple[str, ...] = ()  # named by an add, as sent
    accepted: tuple[str, ...] = ()  # of these, taken by the cloud (lower case); so also when the answer was lost
    doubled: tuple[str, ...] = ()  # of these, taken while an earlier add was not over, or while being a node
    removed: tuple[str, ...] = ()  # servers whose nodes a remove or delete was accepted for
    job_id: str | None = None  # of the accepted job, also when the answer was lost
    fault: str | None = None  # name of the fault rule that hit the call

    def to_json(self) -> dict[str, object]:
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Summary:
    """Sums over all calls since the start."""

    calls: int
    reads: int  # GET
    calls_per_route: dict[str, int]
    calls_per_status: dict[str, int]
    bytes_per_route: dict[str, int]  # of answers
    add_calls: int
    accepted_adds: int  # add calls that took at least one server
    largest_add: int  # servers named in one call
    servers_accepted: int  # distinct
    accepted_more_than_once: dict[str, int]  # server -> times; also after an earlier add was over
    double_adds: int  # servers taken while an earlier add was not over or while a node, each time counted
    double_added: tuple[str, ...]  # distinct
    remove_calls: int
    accepted_removes: int
    servers_removed: int  # distinct
    delete_calls: int
    peak_writes_per_minute: dict[str, int]  # per access key, most POST, PUT, DELETE in any 60 s

    def to_json(self) -> dict[str, object]:
        return asdict(self)


class Ledger:
    """All calls, oldest first. With `keep_reads` False GET calls are counted, not kept."""

    def __init__(self, *, keep_reads: bool) -> None:
        self.keep_reads = keep_reads
        self.entries: list[Entry] = []
        self.accepted_per_server: Counter[str] = Counter()
        self._calls = 0
        self._reads = 0
        self._routes: Counter[str] = Counter()
        self._statuses: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._accepted_adds = 0
        self._largest_add = 0
        self._doubled: Counter[str] = Counter()
        self._accepted_removes = 0
        self._removed: set[str] = set()
        self._write_times: dict[str, list[float]] = defaultdict(list)

    def next_seq(self) -> int:
        """Number of the call that arrives now."""
        self._calls += 1
        return self._calls

    def record(self, call: Entry) -> None:
        """Add a call once it is decided; its answer may still be under way."""
        self._routes[call.route] += 1
        self._statuses[str(call.status)] += 1
        self._bytes[call.route] += call.response_bytes
        if call.method == "GET":
            self._reads += 1
            if not self.keep_reads:
                return
        else:
            self._write_times[call.access_key].append(call.time)
        self._largest_add = max(self._largest_add, len(call.server_ids))
        self._accepted_adds += bool(call.accepted)
        self._accepted_removes += bool(call.removed)
        self.accepted_per_server.update(call.accepted)
        self._doubled.update(call.doubled)
        self._removed.update(call.removed)
        self.entries.append(call)

    def adds(self) -> list[Entry]:
        """The add calls, accepted or not."""
        return [call for call in self.entries if call.route == "addNodes"]

    def select(self, *, since: int = 0, route: str | None = None, writes: bool = False) -> list[Entry]:
        """Calls with seq > since, of one route (None: all), only writes if asked."""
        # seq is handed out at arrival, entries are appended when decided: nearly, not exactly, in order.
        return [
            call
            for call in self.entries
            if call.seq > since and (route is None or call.route == route) and not (writes and call.method == "GET")
        ]

    def summary(self) -> Summary:
        return Summary(
            calls=self._routes.total(),
            reads=self._reads,
            calls_per_route=dict(self._routes),
            calls_per_status=dict(self._statuses),
            bytes_per_route=dict(self._bytes),
            add_calls=self._routes["addNodes"],
            accepted_adds=self._accepted_adds,
            largest_add=self._largest_add,
            servers_accepted=len(self.accepted_per_server),
            accepted_more_than_once={s: n for s, n in self.accepted_per_server.items() if n > 1},
            double_adds=self._doubled.total(),
            double_added=tuple(self._doubled),
            remove_calls=self._routes["removeNodes"],
            accepted_removes=self._accepted_removes,
            servers_removed=len(self._removed),
            delete_calls=self._routes["deleteNode"],
            peak_writes_per_minute={key: _peak(times) for key, times in self._write_times.items()},
        )


def _peak(times: Sequence[float]) -> int:
    """Most of `times` within any 60 s (the older end excluded)."""
    ordered = sorted(times)
    peak = oldest = 0
    for newest, time in enumerate(ordered):
        while ordered[oldest] <= time - 60:
            oldest += 1
        peak = max(peak, newest - oldest + 1)
    return peak
