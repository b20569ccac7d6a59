"""Servers as ECS shows them in the model of the cloud: which are odd since when, and whether they can be read at all.

Not for: their nodes (`cloud_model`). `check` judges a call by what was so, not by what the operator read.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from nodepool_membership.api.reasons import Reason
from nodepool_membership.api.spec import PreflightMode, Spec
from nodepool_membership.core.preflight.facts import CCE_NODE_TAG, Flavor, Inspection, Network, ReadFailure, Server

NETWORK: Final = Network("vpc")
MARK: Final = "nodepool-membership"
MAX_AGE: Final = timedelta(seconds=60)


class Odd(StrEnum):
    """What speaks against a server; all but the last for certain."""

    MISSING = "missing"
    STOPPED = "stopped"
    ELSEWHERE = "in another VPC"
    UNMARKED = "unmarked"
    TWO_PORTS = "two interfaces"


@dataclass(slots=True)
class Inventory:
    """All servers; those that are not named here are fit and marked."""

    tells_tags: bool = False
    """Documents tell tags, CCE's among them where a server has a node: then a server without is in no cluster."""
    odd: dict[str, tuple[Odd, datetime]] = field(default_factory=dict)
    documents: dict[str, Server] = field(default_factory=dict)
    """What is shown of servers in place of one that is fit and marked."""
    nodes: dict[str, bool] = field(default_factory=dict)
    """Whether the nodes exist that tags of servers name."""
    flavors: dict[str, Flavor] = field(default_factory=dict)
    blind_since: datetime | None = None
    """Since when no server can be read."""
    seen_again: datetime | None = None
    """When they last could be read again."""

    def spoil(self, server: str, how: Odd, now: datetime) -> None:
        if server not in self.odd:
            self.odd[server] = (how, now)

    def look_away(self, now: datetime, *, blind: bool) -> None:
        """Servers cannot be read any more, or can again."""
        if blind and self.blind_since is None:
            self.blind_since = now
        elif not blind and self.blind_since is not None:
            self.blind_since, self.seen_again = None, now

    def read(self, ids: frozenset[str], began: datetime, pool_id: str, nodes: Mapping[str, str]) -> Inspection:
        """What is read of servers; `nodes` has the uid of each one's node."""
        if self.blind_since is not None:
            return Inspection(began, ids, unread=ids, why=ReadFailure(Reason.FORBIDDEN, "no right to read servers"))
        found = {i: self._server(i, pool_id) for i in ids}
        shown = {i: server for i, server in found.items() if server is not None}
        if self.tells_tags:
            shown = {i: _tagged(server, nodes.get(i)) for i, server in shown.items()}
        exist = {**self.nodes, **dict.fromkeys(nodes.values(), True)}
        return Inspection(began, ids, shown, nodes=exist, flavors=self.flavors)

    def _server(self, server_id: str, pool_id: str) -> Server | None:
        fit = Server(server_id, "ACTIVE", vpc_id="vpc", ports=1, tags={MARK: pool_id})
        server = self.documents.get(server_id, fit)
        how = self.odd.get(server_id)
        match how and how[0]:
            case Odd.MISSING:
                return None
            case Odd.STOPPED:
                return replace(server, status="SHUTOFF")
            case Odd.ELSEWHERE:
                return replace(server, vpc_id="elsewhere")
            case Odd.UNMARKED:
                return replace(server, tags={})
            case Odd.TWO_PORTS:
                return replace(server, ports=2)
            case _:
                return server

    def check(self, ids: Iterable[str], spec: Spec, now: datetime, slack: timedelta) -> None:
        """No call names a server that has been unfit for longer than what was read may be old (rule P27)."""
        preflight = spec.preflight
        limit = now - MAX_AGE - slack
        blind = self.blind_since is not None or (self.seen_again is not None and self.seen_again > limit)
        long_blind = self.blind_since is not None and self.blind_since < limit
        must_read = preflight.mode is PreflightMode.ENFORCE or preflight.required_tag is not None
        assert not (long_blind and must_read), "servers are wiped that nobody could read"
        for server in ids:
            how, since = self.odd.get(server, (None, now))
            if how is None or since > limit:
                continue
            asked = how is Odd.UNMARKED and preflight.required_tag is not None
            certain = how is not Odd.UNMARKED and how is not Odd.TWO_PORTS
            reads = preflight.mode is not PreflightMode.OFF and not blind
            documented = how is Odd.TWO_PORTS and preflight.mode is PreflightMode.ENFORCE
            unfit = asked or documented or (certain and reads)
            assert not unfit, f"a server is wiped that is {how}"


def _tagged(server: Server, uid: str | None) -> Server:
    """With CCE's own mark where it has a node."""
    mark = {} if uid is None else {CCE_NODE_TAG: uid}
    return replace(server, tags={**server.tags, **mark}, tells_tags=True)
