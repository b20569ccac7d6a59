"""Servers that another membership claims too: which of them are ours (rule P16).

Not for: finding out who claims what (`runtime.claims.claims`), or what is said of the others (`texts`).
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from nodepool_membership.api.spec import Spec
from nodepool_membership.core.state.state import State

_NAMED_OWNERS: Final = 3
ELSEWHERE: Final = "another namespace"


@dataclass(frozen=True, slots=True)
class Rival:
    """The strongest other claim to one of our servers; `owner` is its namespace/name."""

    owner: str
    better: bool
    """It has the right to the server; otherwise we have."""
    recorded: bool = False
    """It, or another with a better right, has the server as a recorded member; of two records the older one's."""
    holds: bool = False
    """It lets nobody add the server, since an earlier call may still act on it: who finds it Active may record it."""
    foreign: bool = False
    """It is of another namespace, whose names are not for everybody who reads our messages."""
    until: datetime | None = None
    """Nobody makes this claim any more: until then an earlier call may still act on the server."""


Rivals = Mapping[str, Rival]
"""Every server of a membership that another one claims."""


def ours(spec: Spec, rivals: Rivals) -> Spec:
    """The spec without the servers that others have the right to."""
    theirs = {server_id for server_id, rival in rivals.items() if rival.better}
    return replace(spec, server_ids=spec.server_ids - theirs) if theirs else spec


def adoptable(spec: Spec, state: State, rivals: Rivals | None) -> Spec:
    """The spec without the servers that may not even be recorded where they are Active: `ours`, and those held.

    Who is recorded stays so, and is told of, until it is conceded. As long as claims are not known, nobody else is.
    """
    if rivals is None:
        return replace(spec, server_ids=spec.server_ids & state.members)
    theirs = {server_id for server_id, rival in rivals.items() if rival.better and not rival.holds} - state.members
    return replace(spec, server_ids=spec.server_ids - theirs) if theirs else spec


def concede(state: State, rivals: Rivals) -> State:
    """Forget what we knew of servers that are another's, but for attempts (rule P12).

    A record of ours yields to another record only: an open batch of a rival, or a status that nobody can read, says
    in the end whether the server has changed hands.
    """
    theirs = {server_id for server_id, rival in rivals.items() if rival.better and not rival.holds}
    if not theirs:
        return state
    members = state.members - {server_id for server_id in theirs if rivals[server_id].recorded}
    known = theirs & state.failures.keys() - members
    return replace(state, members=members).without_causes(i for i in known if not state.failures[i].attempts)


def withheld(spec: Spec, state: State, rivals: Rivals) -> Rivals:
    """The listed servers that are pending because another membership has the right to them."""
    settled = state.members | state.called
    final = {i for i, cause in state.failures.items() if cause.is_final(spec.max_attempts)}
    return {i: r for i, r in rivals.items() if r.better and i in spec.server_ids and i not in settled | final}


def told_withheld(theirs: Rivals) -> str:
    """Whose lists keep how many servers from being removed, and how they are removed all the same."""
    return (
        f"not removed, since another membership names the servers: {_owners(theirs)}; their nodes stay, and are not"
        " this membership's any more: to have them removed, remove them in the cloud's console, or take them off the"
        " other list, list them here again and then take them off here"
    )


def _owners(theirs: Rivals) -> str:
    owners = Counter(ELSEWHERE if rival.foreign else rival.owner for rival in theirs.values())
    named = [f"{count} by {owner}" for owner, count in sorted(owners.items(), key=lambda o: (-o[1], o[0]))]
    more = len(named) - _NAMED_OWNERS
    return ", ".join(named[:_NAMED_OWNERS]) + (f" and others by {more} more" if more > 0 else "")
