"""The texts by which an add is refused on account of single servers: who is named, and how.

Not for: deciding who is refused; world does. No public sample of such a refusal exists, hence
the choice of ways.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from cce_simulator.config import BadServer, Naming, generated_id
from cce_simulator.errors import ApiError


@dataclass(frozen=True, slots=True)
class Refused:
    """One server (lower case) that an add is refused for."""

    server: str
    status: int
    code: str
    reason: str
    naming: Naming
    atomic: bool = True


def by_rule(server: str, rule: BadServer) -> Refused:
    return Refused(server, rule.status, rule.error_code, rule.reason, rule.naming, rule.atomic)


def unknown_server(server: str, naming: Naming) -> Refused:
    return Refused(server, 400, "CCE.01400001", "the server does not exist", naming)


def unfit_server(server: str, naming: Naming) -> Refused:
    return Refused(server, 400, "CCE.01400001", "the server does not meet the node pool's conditions", naming)


def repeated(server: str, state: str, naming: Naming) -> Refused:
    """`state`: `is being added` or `is already in a cluster`."""
    return Refused(server, 400, "CCE.01400001", f"the server {state}", naming)


def refusal(bad: Sequence[Refused], named: Sequence[str]) -> ApiError:
    """One answer for all bad servers; the first one's status, code, reason and way of naming are used."""
    first = bad[0]
    as_sent = {server.lower(): server for server in named}
    culprits = [as_sent[refused.server] for refused in bad]
    ids = {
        "first": culprits[:1],
        "all": culprits,
        "none": [],
        "upper": [culprits[0].upper()],
        "foreign": [generated_id("foreign", "server", 0)],
    }[first.naming]
    where = f"nodeList: server {', '.join(ids)}: " if ids else "nodeList: "
    return ApiError(first.status, first.code, where + first.reason)
