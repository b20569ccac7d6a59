"""The cloud as physics has it: servers, their nodes, and what calls that it took still do to them.

Not for: what anybody believes of it. Nothing of the operator is known here. Times are seconds since the start. All
values are immutable; a change makes a new cloud. Within what docs/assumptions.md says it is as nasty as that allows.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

POOL: Final = "66666666-7777-8888-9999-000000000000"
ELSEWHERE: Final = "66666666-7777-8888-9999-111111111111"
ACTIVE: Final = "Active"
INSTALLING: Final = "Installing"
ERROR: Final = "Error"
DELETING: Final = "Deleting"

JOB_RUNS: Final = 240
"""Seconds from a call to the end of its job."""
LONG: Final = 3000
"""The same for one that takes long; its nodes show at its end."""
UNSEEN: Final = 590
"""Seconds for which what a call did may not show after its job is over, or after it was taken where none is known."""
OVER: Final = 600
"""Seconds after which it does nothing more."""
SIGNATURE: Final = 900
"""Seconds around its date for which the gateway takes a request, also one that was held up on its way."""
AWAY: Final = 540
"""Seconds for which a node that is there may be missing from listings and counts."""
MARK: Final = 60
"""Seconds after which a server that lost its mark has none for whoever calls: what was read is not older than that."""
NEVER: Final = 10**9


class Node(NamedTuple):
    uid: str
    pool: str
    phase: str
    created: int
    away_until: int = 0
    """Until then nobody is shown or told of it."""


class Wipe(NamedTuple):
    """An add that was taken, as it acts on one server: changes of its node (None: gone) that are still to come."""

    server: int
    over: int
    changes: tuple[tuple[int, str | None], ...]
    template: int = 0
    """That the pool had when the call was taken."""


class Removal(NamedTuple):
    server: int
    uid: str
    gone: int


class Job(NamedTuple):
    uid: str
    ends: int
    failed: bool
    servers: tuple[int, ...]
    """That failed in it."""


class Late(NamedTuple):
    """A request on its way."""

    arrives: int
    signed: int
    servers: tuple[int, ...]
    uids: tuple[str, ...]
    """Of the nodes that it removes; empty: it adds."""


class Sent(NamedTuple):
    """A call as it met the servers: `late` if somebody had sent it long before."""

    adds: bool
    servers: tuple[int, ...]
    had_node: tuple[bool, ...]
    acted_on: tuple[bool, ...]
    """An earlier add might still have done something to the server."""
    late: bool = False
    burns: bool = False
    """Every server that it names is lost."""
    unproven: bool = False
    """No server had become Active by a call of this template."""
    tried: bool = False
    """A server had been wiped with this template since somebody last said something."""
    unmarked: tuple[int, ...] = ()
    """Servers that had no mark for so long that whoever called could know."""


class Cloud(NamedTuple):
    nodes: tuple[Node | None, ...]
    """By server."""
    wipes: tuple[Wipe, ...] = ()
    removals: tuple[Removal, ...] = ()
    jobs: tuple[Job, ...] = ()
    late: tuple[Late, ...] = ()
    serial: int = 0
    sent: tuple["Sent", ...] = ()
    """Calls that nobody has judged yet."""
    told: tuple[int, int] | None = None
    """What the pool counts until then, whatever it has."""
    met: tuple[tuple[bool, int], ...] = ()
    """Whether it adds, and the server, of all that calls met."""
    template: int = 0
    """Of the pool: what is installed."""
    proven: frozenset[int] = frozenset()
    """Templates with which a server became Active after a call."""
    tried: bool = False
    """A server was wiped with the pool's template since somebody last said something."""
    marks: tuple[int, ...] = ()
    """By server, when its owner took the mark off it; `NEVER`: it has one. Empty: nobody knows of marks."""


ADD_FATES: Final = (
    "joins", "never", "breaks", "goes", "blinks", "burns", "slow", "long", "hangs", "outlasts", "refused",
    "refused-part", "lost", "lost-slow", "late", "vain", "unsent",
)  # fmt: skip
REMOVE_FATES: Final = ("goes", "stays", "refused", "lost", "late", "vain", "unsent")


class Answer(NamedTuple):
    """What the caller is told: "accepted" with a job, "refused", "unknown" or "unsent"."""

    kind: str
    job: str = ""
    server: int = -1
    """Whom a refusal names."""


def node_of(cloud: Cloud, server: int, node: Node | None) -> Cloud:
    nodes = list(cloud.nodes)
    nodes[server] = node
    return cloud._replace(nodes=tuple(nodes))


def is_acting(cloud: Cloud, server: int, now: int) -> bool:
    """Whether an add that was taken may still do something to the server."""
    return any(w.server == server and (w.over > now or w.changes) for w in cloud.wipes)


def add(  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
    cloud: Cloud, servers: tuple[int, ...], now: int, signed: int, fate: str, until: int = NEVER
) -> tuple[Cloud, Answer]:
    """Take a call that adds servers; `fate` of `ADD_FATES` is what becomes of it, or of its first server.

    It is signed with keys that are good `until` then: a gateway takes it no later, however long it was held up.
    """
    if fate == "unsent" or abs(now - signed) > SIGNATURE:
        return cloud, Answer("unsent")
    if fate == "vain":
        return cloud, Answer("unknown")
    if fate == "late":
        held = Late(_at_last(now, signed, until), signed, servers, ())
        return cloud._replace(late=(*cloud.late, held)), Answer("unknown")
    cloud = _met(cloud, servers, now, adds=True, burns=fate == "burns")
    if fate == "refused":
        return cloud, Answer("refused", server=servers[0])
    if fate == "refused-part":
        # One of the others shows at once; nobody could know of it otherwise.
        for server in servers[1:]:
            cloud = _wiped(cloud, server, now + OVER, ((now, INSTALLING), (now + JOB_RUNS, ACTIVE)))
        return advance(cloud, now, now), Answer("refused", server=servers[0])
    if fate in {"lost", "lost-slow"}:
        return _taken_unknown(cloud, servers, now, slow=fate == "lost-slow"), Answer("unknown")
    return _taken(cloud, servers, now, fate)


def _met(
    cloud: Cloud, servers: tuple[int, ...], now: int, *, adds: bool, late: bool = False, burns: bool = False
) -> Cloud:
    nodes = tuple(cloud.nodes[s] is not None for s in servers)
    acted_on = tuple(is_acting(cloud, s, now) for s in servers)
    unproven = cloud.template not in cloud.proven
    unmarked = tuple(s for s in servers if cloud.marks and now - cloud.marks[s] > MARK)
    sent = Sent(adds, servers, nodes, acted_on, late, burns, unproven, cloud.tried, unmarked)
    met = (*cloud.met, *((adds, server) for server in servers))
    return cloud._replace(sent=(*cloud.sent, sent), met=met)


def _taken_unknown(cloud: Cloud, servers: tuple[int, ...], now: int, *, slow: bool) -> Cloud:
    shows = now + (UNSEEN if slow else 30)
    for server in servers:
        cloud = _wiped(cloud, server, now + OVER, ((shows, INSTALLING), (shows + JOB_RUNS, ACTIVE)))
    return cloud


def _taken(cloud: Cloud, servers: tuple[int, ...], now: int, fate: str) -> tuple[Cloud, Answer]:
    runs = {"hangs": NEVER, "outlasts": NEVER, "long": LONG}.get(fate, JOB_RUNS)
    ends = now + runs
    bad = servers if fate == "burns" else servers[:1] if fate in {"never", "breaks", "goes", "blinks", "hangs"} else ()
    job = Job(f"00000000-0000-4000-8000-{cloud.serial + 1:012d}", ends, bool(bad), bad)
    cloud = cloud._replace(jobs=(*cloud.jobs, job), serial=cloud.serial + 1)
    for server in servers:
        over = now + (JOB_RUNS if runs == NEVER else runs) + OVER
        own = fate if server in bad or fate in {"slow", "long"} else "joins"
        cloud = _wiped(cloud, server, over, _changes(own, now))
    return cloud, Answer("accepted", job.uid)


def _changes(fate: str, now: int) -> tuple[tuple[int, str | None], ...]:
    ends = now + JOB_RUNS
    shows = now + 30
    return {
        "joins": ((shows, INSTALLING), (ends, ACTIVE)),
        "slow": ((ends + UNSEEN, INSTALLING), (ends + UNSEEN + 5, ACTIVE)),
        "long": ((now + LONG - 60, INSTALLING), (now + LONG, ACTIVE)),
        "never": (),
        "hangs": (),
        "breaks": ((shows, INSTALLING), (ends, ERROR)),
        "burns": ((shows, INSTALLING), (ends, ERROR)),
        "goes": ((shows, INSTALLING), (ends, None)),
        "blinks": ((shows, ERROR), (ends, None), (ends + UNSEEN, ERROR)),
    }[fate]


def _wiped(cloud: Cloud, server: int, over: int, changes: tuple[tuple[int, str | None], ...]) -> Cloud:
    return cloud._replace(wipes=(*cloud.wipes, Wipe(server, over, changes, cloud.template)), tried=True)


def _at_last(now: int, signed: int, until: int) -> int:
    """The last moment at which the gateway takes a request that is held up."""
    return min(now + SIGNATURE - 60, signed + SIGNATURE, until)


def remove(
    cloud: Cloud, servers: tuple[int, ...], uids: tuple[str, ...], now: int, signed: int, fate: str, until: int = NEVER
) -> tuple[Cloud, Answer]:
    """Take a call that removes nodes, by their uids."""
    if fate == "unsent" or abs(now - signed) > SIGNATURE:
        return cloud, Answer("unsent")
    if fate == "vain":
        return cloud, Answer("unknown")
    cloud = _met(cloud, servers, now, adds=False)
    if fate == "late":
        held = Late(_at_last(now, signed, until), signed, servers, uids)
        return cloud._replace(late=(*cloud.late, held)), Answer("unknown")
    if fate == "refused" or not set(uids) <= {n.uid for n in cloud.nodes if n is not None}:
        return cloud, Answer("refused")
    job = Job(f"00000000-0000-4000-8000-{cloud.serial + 1:012d}", now + 60, fate == "stays", ())
    cloud = cloud._replace(jobs=(*cloud.jobs, job), serial=cloud.serial + 1)
    if fate != "stays":
        cloud = _leave(cloud, uids, now)
    return cloud, Answer("unknown") if fate == "lost" else Answer("accepted", job.uid)


def _leave(cloud: Cloud, uids: Iterable[str], now: int) -> Cloud:
    for server, node in enumerate(cloud.nodes):
        if node is not None and node.uid in uids:
            cloud = node_of(cloud, server, node._replace(phase=DELETING))
            cloud = cloud._replace(removals=(*cloud.removals, Removal(server, node.uid, now + 60)))
    return cloud


def advance(cloud: Cloud, before: int, now: int) -> Cloud:
    """Let time pass: what is due happens in the order of its moments."""
    while True:
        due = [(at, 1, w.server) for w in cloud.wipes for at, _ in w.changes[:1] if at <= now]
        due += [(r.gone, 2, index) for index, r in enumerate(cloud.removals) if r.gone <= now]
        due += [(held.arrives, 0, index) for index, held in enumerate(cloud.late) if held.arrives <= now]
        if not due:
            break
        at, kind, which = min(due)
        if kind == 0:
            cloud = _arrive(cloud, which)
        elif kind == 1:
            cloud = _change(cloud, which, at)
        else:
            cloud = _remove(cloud, which)
    if now > before and cloud.wipes:
        wipes = tuple(w for w in cloud.wipes if w.changes or w.over > now)
        if len(wipes) < len(cloud.wipes):
            cloud = cloud._replace(wipes=wipes)
    return cloud


def _arrive(cloud: Cloud, which: int) -> Cloud:
    held = cloud.late[which]
    cloud = cloud._replace(late=cloud.late[:which] + cloud.late[which + 1 :])
    if held.uids:
        return _leave(cloud, held.uids, held.arrives)
    cloud = _met(cloud, held.servers, held.arrives, adds=True, late=True)
    return _taken_unknown(cloud, held.servers, held.arrives, slow=True)


def _change(cloud: Cloud, server: int, at: int) -> Cloud:
    index = next(i for i, w in enumerate(cloud.wipes) if w.server == server and w.changes and w.changes[0][0] == at)
    wipe = cloud.wipes[index]
    phase, node = wipe.changes[0][1], cloud.nodes[server]
    wipes = (*cloud.wipes[:index], wipe._replace(changes=wipe.changes[1:]), *cloud.wipes[index + 1 :])
    cloud = cloud._replace(wipes=wipes)
    if phase == ACTIVE:
        cloud = cloud._replace(proven=cloud.proven | {wipe.template})
    if phase is None:
        return node_of(cloud, server, None)
    if node is not None:
        return node_of(cloud, server, node._replace(phase=phase))
    serial = cloud.serial + 1
    made = Node(f"00000000-0000-4000-9000-{serial:012d}", POOL, phase, at)
    return node_of(cloud._replace(serial=serial), server, made)


def _remove(cloud: Cloud, which: int) -> Cloud:
    removal = cloud.removals[which]
    cloud = cloud._replace(removals=cloud.removals[:which] + cloud.removals[which + 1 :])
    node = cloud.nodes[removal.server]
    if node is None or node.uid != removal.uid:
        return cloud
    return _without(cloud, removal.server)


def _without(cloud: Cloud, server: int) -> Cloud:
    """The server has no node any more, and what was under way for it ended with it."""
    wipes = tuple(w for w in cloud.wipes if w.server != server)
    return node_of(cloud._replace(wipes=wipes), server, None)


def others(cloud: Cloud, what: str, server: int, now: int) -> Cloud | None:  # noqa: PLR0911 - a chain of questions: the first that has an answer ends it
    """Somebody else does something to a server; None where that cannot be."""
    node = cloud.nodes[server]
    if what == "foreign":
        if node is not None or is_acting(cloud, server, now) or any(server in held.servers for held in cloud.late):
            return None
        serial = cloud.serial + 1
        made = Node(f"00000000-0000-4000-9000-{serial:012d}", ELSEWHERE, ACTIVE, now)
        return node_of(cloud._replace(serial=serial), server, made)
    if node is None or node.phase == DELETING:
        return None
    if what == "vanish":
        return _without(cloud, server)
    if node.phase == INSTALLING or is_acting(cloud, server, now):
        return None
    match what:
        case "away":
            return node_of(cloud, server, node._replace(away_until=now + AWAY))
        case "break":
            return node_of(cloud, server, node._replace(phase=ERROR)) if node.phase == ACTIVE else None
        case "move":
            return node_of(cloud, server, node._replace(pool=ELSEWHERE if node.pool == POOL else POOL))
        case "remake":
            serial = cloud.serial + 1
            made = Node(f"00000000-0000-4000-9000-{serial:012d}", POOL, ACTIVE, now)
            return node_of(cloud._replace(serial=serial), server, made)
    raise ValueError(what)


def marked(cloud: Cloud, what: str, server: int, now: int) -> Cloud:
    """The owner of a server puts the mark on it, or takes it off."""
    until = NEVER if what == "mark" else min(cloud.marks[server], now)
    return cloud._replace(marks=(*cloud.marks[:server], until, *cloud.marks[server + 1 :]))


def another_template(cloud: Cloud) -> Cloud:
    """Somebody changes what the pool installs."""
    return cloud._replace(template=cloud.template + 1, tried=False)


def lagging(cloud: Cloud, now: int) -> Cloud:
    """From now on the pool's count lags: it stays for a while."""
    return cloud._replace(told=(counted(cloud, now), now + AWAY))


def lags(cloud: Cloud, now: int) -> bool:
    """Whether the count is behind: then a listing is right, for with both wrong alike nothing could be known.

    That is assumed of the cloud (docs/assumptions.md).
    """
    return cloud.told is not None and cloud.told[1] > now


def shown(cloud: Cloud, now: int) -> list[tuple[int, Node]]:
    """What a true listing shows."""
    return [(s, node) for s, node in enumerate(cloud.nodes) if node is not None and node.away_until <= now]


def counted(cloud: Cloud, now: int) -> int:
    """What the pool counts."""
    if cloud.told is not None and cloud.told[1] > now:
        return cloud.told[0]
    return sum(node.pool == POOL and node.phase != DELETING for _, node in shown(cloud, now))


def hangs(cloud: Cloud) -> bool:
    """Whether a job would never end."""
    return any(job.ends >= NEVER for job in cloud.jobs)


def end_jobs(cloud: Cloud, now: int) -> Cloud:
    """In a fair world every job ends, also one that would not."""
    return cloud._replace(jobs=tuple(job._replace(ends=now) if job.ends >= NEVER else job for job in cloud.jobs))
