"""The future of a state in a world without faults: does it end well, and is what is said then true?

Not for: what may go wrong on the way (`moves`). Objects are worked when the operator asked for it, and when they
change.
"""

from explore import judge, physics
from explore.moves import judged, work
from explore.objects import Object, edited, parsed
from explore.physics import ACTIVE, POOL
from explore.scenarios import Scenario
from explore.snapshots import snapshot
from explore.world import World

HOUR = 3600
HOURS = 5 * HOUR
_MOST = 600


class Fair:
    """A world in which nothing goes wrong any more."""

    def __init__(self, world: World, fate: str = "") -> None:
        idle = tuple(p._replace(parked=frozenset()) for p in world.processes)
        self.world = world._replace(todo=(), spins=0, processes=idle)
        self.wrongs: list[str] = []
        self._fate = fate
        """What becomes of adds, if it is not the usual."""
        self._due = dict.fromkeys(range(len(world.objects)), float(world.now))
        self._versions: dict[int, tuple[bool, int, int, int]] = {}

    def run(self, seconds: int) -> None:
        """Let so much time pass."""
        end = self.world.now + seconds
        for _ in range(_MOST):
            if self.wrongs:
                return
            self._wake()
            at = int(min(self._due.values(), default=end + 1) + 0.999)
            if at > end:
                self._pass(end)
                return
            self._pass(max(at, self.world.now))
            key = min(self._due, key=lambda k: self._due[k])
            self._work(key)
        self.wrongs.append("it does not come to rest")

    def _wake(self) -> None:
        for key, stored in enumerate(self.world.objects):
            version = (stored.there, stored.generation, stored.reset, stored.uid)
            if self._versions.get(key) != version:
                # That it is gone is a change, too.
                self._versions[key] = version
                self._due[key] = self.world.now

    def _pass(self, now: int) -> None:
        cloud = physics.advance(self.world.cloud, self.world.now, now)
        self.world, wrongs = judged(self.world, self.world._replace(now=now, cloud=cloud), ())
        self.wrongs += wrongs

    def _work(self, key: int) -> None:
        world = self.world._replace(todo=(), spins=0)
        ran = work(world, key, {})
        adds = [point.at for point in ran.points if point.kind == "add"]
        if self._fate and adds:
            ran = work(world, key, {adds[0]: self._fate})
        self.world = ran.world._replace(todo=(), spins=0)
        self.wrongs += ran.wrongs
        if ran.seconds is None:
            del self._due[key]
        else:
            self._due[key] = self.world.now + max(ran.seconds, 1.0)
        parked = self.world.processes[self.world.leader].parked
        if parked:
            self.world = snapshot(self.world, "")._replace(todo=())
            self._due |= dict.fromkeys(parked, float(self.world.now))

    def edit(self, key: int, stored: Object) -> None:
        # Who edits or resets has read what was said of a call that was lost.
        self.world = self.world.with_object(key, stored)._replace(burnt=physics.NEVER)


def of_future(scenario: Scenario, world: World) -> list[str]:
    """What is wrong with how it ends: first by itself, then after all that a user can do."""
    world = world._replace(processes=tuple(p._replace(skew=0) for p in world.processes))
    if physics.hangs(world.cloud) and (wrongs := _at_rest(Fair(world))):
        return wrongs
    # In a fair world every job ends.
    fair = Fair(world._replace(cloud=physics.end_jobs(world.cloud, world.now)))
    return _at_rest(fair) or _previewed(fair.world) or _marked(fair) or _way_out(scenario, fair)


def _at_rest(fair: Fair) -> list[str]:
    """What is wrong after some hours; a job that does not end is asked for at every poll, so for an hour only."""
    hangs = physics.hangs(fair.world.cloud)
    fair.run(HOUR if hangs else HOURS)
    if fair.wrongs:
        return fair.wrongs
    for stored in fair.world.objects:
        if stored.there and stored.deleted is not None and not hangs:
            return ["a deleted object is held for ever"]
        if stored.there and stored.deleted is None and not _spoilt(stored):
            wrongs = judge.of_rest(stored, fair.world.cloud)
            wrongs += [] if stored.spec.suspend else judge.of_servers(stored, fair.world.cloud)
            if wrongs:
                return [f"{wrong} (as it rests)" for wrong in wrongs]
    return []


def _previewed(world: World) -> list[str]:
    """Whether more is wiped or removed than a suspended object told, when it is resumed in a world at rest."""
    for key, stored in enumerate(world.objects):
        if not stored.there or not stored.spec.suspend or stored.paused or _spoilt(stored):
            continue
        plan = parsed(stored.status).get("plan", {})
        fair = Fair(world._replace(cloud=world.cloud._replace(met=())))
        fair.edit(key, edited(stored, stored.spec._replace(suspend=False)) or stored)
        fair.run(HOURS)
        if fair.wrongs:
            return fair.wrongs
        for adds, name in ((True, "add"), (False, "remove")):
            done = {server for kind, server in fair.world.cloud.met if kind is adds}
            if len(done) > plan.get(name, -1):
                return [f"the preview says {name} {plan.get(name)}, resuming did so to {len(done)} servers"]
    return []


def _marked(fair: Fair) -> list[str]:
    """Who gets its mark is taken up by itself."""
    if all(mark == physics.NEVER for mark in fair.world.cloud.marks):
        return []
    marks = (physics.NEVER,) * len(fair.world.cloud.marks)
    fair.world = fair.world._replace(cloud=fair.world.cloud._replace(marks=marks))
    return _at_rest(fair)


def _spoilt(stored: Object) -> bool:
    return '"lastBatch":"many"' in stored.status


def _way_out(scenario: Scenario, fair: Fair) -> list[str]:
    for server, node in enumerate(fair.world.cloud.nodes):
        if node is not None and (node.pool, node.phase) != (POOL, ACTIVE):
            fair.world = fair.world._replace(cloud=physics.node_of(fair.world.cloud, server, None))
    for key, stored in enumerate(fair.world.objects):
        if stored.there:
            wanted = stored.spec._replace(
                suspend=False, batch=200, parallel=3, attempts=3, canary=0, approval="Automatic"
            )
            after = edited(stored, wanted) or stored
            fair.edit(key, after._replace(paused="", version=after.version + 1))
    # What went meanwhile is first found to be gone; then a user asks for a new beginning.
    fair.run(HOURS)
    left: list[str] = []
    for _ in range(2):
        for key, stored in enumerate(fair.world.objects):
            if stored.there:
                fair.edit(key, stored._replace(reset=stored.reset + 1, only=None, asked=0, version=stored.version + 1))
        fair.run(HOURS)
        left = fair.wrongs or _left_undone(scenario, fair.world)
        if not left:
            break
        # A reset that gives up a status which cannot be read answers for nothing else.
    return left


def _left_undone(scenario: Scenario, world: World) -> list[str]:
    wrongs: list[str] = []
    owned = {s for o in world.objects if o.there for s in o.spec.servers}
    for server in range(scenario.servers):
        node = world.cloud.nodes[server]
        if server in owned and (node is None or (node.pool, node.phase) != (POOL, ACTIVE)):
            wrongs.append(f"server {'ABCD'[server]} never joins, whatever a user does")
    for stored in world.objects:
        if stored.there:
            said = judge.ready(stored)
            if said.get("status") != "True" and said.get("reason") != "Conflict":
                wrongs.append(f"Ready is {said.get('status')} ({said.get('reason')}), whatever a user does")
    return wrongs
