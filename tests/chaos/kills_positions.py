"""Where the operator was killed, from facts: the stored statuses, the simulator's ledger, what went over the wire.

Not for: bringing it there (`kills_steering`). What a plan wanted plays no part here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from chaos.kills_steering import Position
from harness import Object
from harness.cluster import jobs

_SUBMITTING: Final = "Submitting"


@dataclass(frozen=True, slots=True)
class OpenCall:
    """A stored intent whose answer is not stored."""

    membership: str
    batch: int
    servers: tuple[str, ...]
    submitted: float
    """Seconds since 1970, whole."""


@dataclass(frozen=True, slots=True)
class Death:
    """What was found right after a kill."""

    time: float
    """Seconds since 1970."""
    open_calls: tuple[OpenCall, ...]
    """Those that were not open at an earlier death."""
    decided: frozenset[int]
    """Ledger numbers of the add calls that the cloud had decided."""
    records: Mapping[str, tuple[str, ...]]
    """Per membership the servers of a call whose answer the operator had, without knowing it stored."""


def open_calls(memberships: Iterable[Object]) -> list[OpenCall]:
    """The intents in these memberships that nothing is known of."""
    return [
        OpenCall(
            name(membership),
            int(str(job["batch"])),
            tuple(str(server) for server in _list(job["serverIDs"])),
            datetime.fromisoformat(str(job["submitTime"])).timestamp(),
        )
        for membership in memberships
        for job in jobs(membership)
        if job["phase"] == _SUBMITTING
    ]


def positions(death: Death, adds: Sequence[Object]) -> frozenset[Position]:
    """Where calls were cut by this death; `adds` are the add calls of the whole ledger, read when all is over."""
    found = {Position.RECORD for _ in death.records}
    for call in death.open_calls:
        if death.records.get(call.membership) == call.servers:
            continue
        arrived = [add for add in adds if _is(add, call) and float(str(add["time"])) <= death.time]
        if not arrived:
            found.add(Position.INTENT)
        elif arrived[-1]["seq"] in death.decided:
            found.add(Position.ACCEPTED)
        else:
            found.add(Position.SENT)
    return frozenset(found)


def _is(add: Object, call: OpenCall) -> bool:
    return tuple(_list(add["server_ids"])) == call.servers and float(str(add["time"])) >= call.submitted


def name(membership: Object) -> str:
    """The membership's name."""
    metadata = membership["metadata"]
    assert isinstance(metadata, dict)
    return str(metadata["name"])


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value
