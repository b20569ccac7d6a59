"""What must never be, told from what physics did and from what the API server stores.

Not for: the operator's own words: nothing of it is imported here, and a status is read as a user reads it.
"""

from collections.abc import Callable, Set
from typing import Any, Final

from explore.objects import Object, open_jobs, parsed, server_id
from explore.physics import ACTIVE, NEVER, POOL, Cloud, Node, Sent, hangs

MANUAL: Final = "Manual"
MANY: Final = 3
"""So many servers that are lost in one call are no accident."""


def of_call(sent: Sent, objects: tuple[Object, ...], kept: Set[int]) -> list[str]:
    """What is wrong with a call that met the servers. `kept`: objects whose namespace is being deleted, too."""
    wrongs = []
    for server, had_node, acted_on in zip(sent.servers, sent.had_node, sent.acted_on, strict=True):
        name = "ABCD"[server]
        if sent.adds:
            if had_node:
                wrongs.append(f"server {name} is wiped although it has a node that nobody removed")
            if acted_on:
                wrongs.append(f"server {name} is wiped while an earlier wipe may be under way")
            wanted = [o for o in objects if _wants(o, server)]
            if not sent.late and not wanted:
                wrongs.append(f"server {name} is wiped, nobody asked for it")
            elif not sent.late and all(o.spec.approval == MANUAL and server not in o.approved.add for o in wanted):
                wrongs.append(f"server {name} is wiped, and no approval covers it")
            elif not sent.late and server in sent.unmarked and all(o.spec.mark for o in wanted):
                wrongs.append(f"server {name} is wiped, and had no mark")
        elif not _to_go(objects, server, kept):
            wrongs.append(f"server {name} is removed, nobody asked for it")
    return wrongs + _of_canary(sent, objects)


def _of_canary(sent: Sent, objects: tuple[Object, ...]) -> list[str]:
    """What is wrong with an add of a template with which no server has become Active yet."""
    careful = [o.spec.canary for o in objects if o.spec.canary and any(_wants(o, s) for s in sent.servers)]
    if not careful or not sent.adds or sent.late or not sent.unproven:
        return []
    if sent.tried:
        return ["a second batch is wiped before the canary is Active, and nobody said so"]
    return [f"a canary of {len(sent.servers)} servers"] if len(sent.servers) > max(careful) else []


def _wants(stored: Object, server: int) -> bool:
    return stored.there and stored.deleted is None and not stored.spec.suspend and server in stored.spec.servers


def _to_go(objects: tuple[Object, ...], server: int, kept: Set[int]) -> bool:
    for index, stored in enumerate(objects):
        if not stored.there:
            continue
        if stored.deleted is not None:
            asked = stored.spec.deletion == "Remove" and index not in kept
            wanted = asked and (server in stored.spec.servers or server in stored.surplus)
        else:
            wanted = server in stored.surplus and stored.spec.removal == "Remove" and not stored.spec.suspend
        others = any(o.there and o.deleted is None and server in o.spec.servers for o in objects if o is not stored)
        said_yes = stored.spec.approval != MANUAL or server in stored.approved.remove
        if wanted and said_yes and not others:
            return True
    return False


def of_status(stored: Object) -> list[str]:
    """What is wrong with a status that was stored."""
    status = parsed(stored.status)
    if not isinstance(status.get("lastBatch", 0), int):
        # Somebody spoilt it: the rest is left as it is.
        return []
    counts = [int(status.get(name, 0)) for name in ("joined", "joining", "failed", "pending")]
    wrongs = []
    if status.get("observedGeneration") == stored.generation:
        if int(status.get("desired", 0)) != len(stored.spec.servers):
            wrongs.append(f"desired {status.get('desired')} of {len(stored.spec.servers)} servers on the list")
        if sum(counts) != int(status.get("desired", 0)):
            wrongs.append(f"joined, joining, failed and pending are {counts}, desired {status.get('desired')}")
    kinds = [c["type"] for c in status.get("conditions", [])]
    if len(set(kinds)) != len(kinds) or {"Reconciling", "Stalled"} <= set(kinds):
        wrongs.append(f"conditions {kinds}")
    return wrongs


def ready(stored: Object) -> dict[str, Any]:
    """The Ready condition."""
    found = [c for c in parsed(stored.status).get("conditions", []) if c["type"] == "Ready"]
    return dict(found[0]) if found else {}


def of_rest(stored: Object, cloud: Cloud) -> list[str]:
    """What is untrue in the status of an object that had all the time it needs, in a world without faults."""
    status, said = parsed(stored.status), ready(stored)
    if not said or said["status"] == "Unknown":
        return [f"Ready is {said.get('status')} ({said.get('reason')}) with nothing in the way"]
    active = {s for s, n in enumerate(cloud.nodes) if n is not None and n.pool == POOL and n.phase == ACTIVE}
    wrongs = []
    if said["status"] == "True" and not stored.spec.servers <= active:
        wrongs.append(f"Ready is True ({said['reason']}), but only {sorted(active)} of the servers are Active")
    if said["status"] == "False" and said["reason"] in {"Pending", "Starting"}:
        wrongs.append(f"Ready is False for no reason: {said['reason']}")
    calls = open_jobs(status)
    if calls and not hangs(cloud):
        wrongs.append(f"batch {calls[0]['batch']} is open for ever")
    if said["status"] == "False" and stored.spec.servers <= active and not status.get("surplus"):
        joined = int(status.get("joined", 0))
        # A call that does not end for a server that left the list since is told.
        if not stored.spec.suspend and said["reason"] != "Conflict" and not calls:
            wrongs.append(f"every server is Active, {joined} joined, Ready is False: {said['reason']}")
    return wrongs


def of_servers(stored: Object, cloud: Cloud) -> list[str]:
    """Which of its servers is in none of four places, or in one for a reason that is not so; as it rests."""
    status, said = parsed(stored.status), ready(stored)
    failures = {i: group["reason"] for group in status.get("failures", []) for i in group["serverIDs"]}
    members = set(status.get("members", []))
    joining = {i for job in open_jobs(status) for i in job.get("serverIDs", [])} if hangs(cloud) else set()
    wrongs = []
    for server in sorted(stored.spec.servers):
        node, reason = cloud.nodes[server], failures.get(server_id(server))
        if reason is not None:
            true = _TRUE.get(reason)
            if reason in _UNFIT:
                # Nobody looks at a server again before a person lets it be wiped.
                lacks = reason == "RequiredTagMissing" and stored.spec.mark and cloud.marks[server] != NEVER
                if not (lacks and node is None) and said.get("reason") not in _WAITS:
                    wrongs.append(f"server {'ABCD'[server]} has failed with {reason}, which is not so")
            elif true is None or not true(node):
                wrongs.append(f"server {'ABCD'[server]} has failed with {reason}, its node is {node}")
        elif server_id(server) in members:
            if node is None or (node.pool, node.phase) != (POOL, ACTIVE):
                wrongs.append(f"server {'ABCD'[server]} is joined, its node is {node}")
        elif said.get("reason") not in _WAITS and server_id(server) not in joining:
            wrongs.append(f"server {'ABCD'[server]} is pending, Ready is {said.get('status')} ({said.get('reason')})")
    return wrongs


def _is_gone(node: Node | None) -> bool:
    return node is None


def _is_ill(node: Node | None) -> bool:
    return node is not None and node.pool == POOL and node.phase != ACTIVE


def _is_elsewhere(node: Node | None) -> bool:
    return node is not None and node.pool != POOL


_TRUE: Final[dict[str, Callable[[Node | None], bool]]] = {
    **dict.fromkeys(("Refused", "NeverAppeared", "NodeVanished", "MemberMissing", "ListingImplausible"), _is_gone),
    **dict.fromkeys(("NodeError", "InstallFailed", "JoinTimeout", "MemberNotActive", "Installing", "Other"), _is_ill),
    "OtherPool": _is_elsewhere,
}
"""Which reason of a server that failed is so, by its node. Others cannot come of what these worlds do."""
_UNFIT: Final = frozenset({"RequiredTagMissing", "ServerIsNode", "ServerNotFound"})
"""What is said of a server that was read, and not sent."""
_WAITS: Final = frozenset(
    {
        "AwaitingApproval",
        "CanaryFailed",
        "Conflict",
        "JobOverdue",
        "Paused",
        "PoolRefuses",
        "StatusInvalid",
        "Suspended",
        "TooManyFailures",
    }
)
"""Why a server may be pending for ever: until a person does something."""


def members(objects: tuple[Object, ...]) -> set[str]:
    """Ids of servers of which an object says that they joined."""
    return {i for o in objects if o.there for i in parsed(o.status).get("members", [])}
