"""What becomes of servers that were looked at: who may be named in a call, who fails, what is only told.

Not for: the rules themselves (`rules`), or keeping what was found (`findings`).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from nodepool_membership.api.reasons import FailureReason, FindingReason
from nodepool_membership.api.spec import PreflightMode
from nodepool_membership.core.preflight.facts import ReadFailure, Server
from nodepool_membership.core.preflight.rules import RULES, Asked, Certainty, Rule

_STOPS: Final = {
    PreflightMode.OFF: frozenset[Certainty](),
    PreflightMode.REPORT: frozenset({Certainty.CERTAIN}),
    PreflightMode.ENFORCE: frozenset({Certainty.CERTAIN, Certainty.DOCUMENTED}),
}
_ABSENT: Final = (
    "neither ECS nor BMS shows such a server in this project to these credentials: correct the id, or let them read it"
)


@dataclass(frozen=True, slots=True)
class Found:
    """One thing that is told of one server."""

    reason: FailureReason | FindingReason
    message: str


@dataclass(frozen=True, slots=True)
class Judged:
    """The verdict over the servers of an inspection. Every one is in exactly one of the first three."""

    passed: frozenset[str]
    failed: Mapping[str, Found]
    waiting: frozenset[str]
    """Those that could not be read and must be."""
    why: ReadFailure | None = None
    """Why they could not."""
    told: Mapping[str, tuple[Found, ...]] = field(default_factory=dict)
    """What does not stop a server, by server."""


def judge(asked: Asked, mode: PreflightMode) -> Judged:
    """Hold every server of the inspection against the rules that count in this mode."""
    passed: set[str] = set()
    failed: dict[str, Found] = {}
    waiting: set[str] = set()
    told: dict[str, tuple[Found, ...]] = {}
    seen = asked.inspection
    for server_id in seen.asked:
        server = seen.servers.get(server_id)
        if server_id in seen.unread:
            if mode is PreflightMode.ENFORCE or asked.tag is not None:
                waiting.add(server_id)
                continue
            told[server_id] = (_unread(seen.why),)
        elif server is None:
            failed[server_id] = Found(FailureReason.SERVER_NOT_FOUND, _ABSENT)
            continue
        else:
            stopping, rest = _sorted(server, asked, mode)
            if stopping:
                failed[server_id] = stopping[0]
                continue
            if rest:
                told[server_id] = tuple(rest)
        passed.add(server_id)
    return Judged(frozenset(passed), failed, frozenset(waiting), seen.why if waiting else None, told)


def rules_of(mode: PreflightMode) -> tuple[Rule, ...]:
    """The rules that are looked at in a mode; with a required tag, its rule is among them in every mode."""
    if mode is PreflightMode.OFF:
        return tuple(rule for rule in RULES if rule.reason is FailureReason.REQUIRED_TAG_MISSING)
    return RULES


def _sorted(server: Server, asked: Asked, mode: PreflightMode) -> tuple[list[Found], list[Found]]:
    """What stops the server, and what is only told of it."""
    stopping: list[Found] = []
    rest: list[Found] = []
    for rule, found in _found(server, asked, rules_of(mode)):
        stops = rule.certainty in _STOPS[mode] or rule.reason is FailureReason.REQUIRED_TAG_MISSING
        (stopping if stops else rest).append(found)
    return stopping, rest


def _found(server: Server, asked: Asked, rules: Iterable[Rule]) -> Iterable[tuple[Rule, Found]]:
    for rule in rules:
        mismatch = rule.check(server, asked)
        if mismatch is not None:
            yield rule, Found(rule.reason, str(mismatch))


def _unread(why: ReadFailure | None) -> Found:
    return Found(FindingReason.SERVERS_UNREAD, "not looked at" if why is None else why.message)
