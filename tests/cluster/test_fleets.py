"""Ten memberships on one cluster: one node listing a tick for all of them, one write budget, also across a restart.

Not for: the budget and its turns themselves (`test_cce_budget`); here the cloud's ledger is what counts.
"""

import re
from collections.abc import Callable, Sequence

from cce_simulator.config import Behaviour, SimulatorConfig
from harness import Operator, Scene, wait_for
from harness.cluster import MembershipSpec, is_ready
from harness.operator_process import FAST
from harness.scene import server_ids

COUNT = 10
QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0)
WANTED = {f"m{number}": server_ids(1, f"fleet-{number}") for number in range(COUNT)}

Stage = Callable[..., Scene]
Operate = Callable[..., Operator]


def options(**changed: str) -> Sequence[str]:
    """Those of the fast operator, some of them changed."""
    names = [f"--{name.replace('_', '-')}" for name in changed]
    kept = [option for option in FAST if option.split("=")[0] not in names]
    return [*kept, *(f"{name}={value}" for name, value in zip(names, changed.values(), strict=True))]


def create_all(scene: Scene) -> None:
    for name, servers in WANTED.items():
        scene.cluster.create(MembershipSpec(name, servers, scene.simulator.url, scene.namespace))


def until_all_are_ready(scene: Scene, *, seconds: float) -> None:
    def ready() -> bool | None:
        scene.operator.check()
        return all(is_ready(scene.cluster.get(scene.namespace, name)) for name in WANTED) or None

    wait_for("all are Ready", ready, seconds=seconds, every=0.5)


def looks(operator: Operator) -> float:
    """How often a membership was looked at."""
    told = operator.get("/metrics").text
    counts = re.findall(r"^nodepool_membership_reconcile_duration_seconds_count\S* (\S+)$", told, re.MULTILINE)
    return sum(map(float, counts))


def test_ten_memberships_cause_one_listing_a_tick(stage: Stage) -> None:
    scene = stage(QUICK, options=options(resync_interval="10s"))
    create_all(scene)
    until_all_are_ready(scene, seconds=60)
    # A tick for the last one to become settled.
    scene.until_called("listNodes", times=len(scene.calls("listNodes")) + 1)
    looked, listed = looks(scene.operator), len(scene.calls("listNodes"))
    wait_for("all have looked three times", lambda: looks(scene.operator) >= looked + 3 * COUNT or None)
    listings = len(scene.calls("listNodes")) - listed
    # Two, not one: a listing is shared for 1 s, and a busy machine may take longer to look at all ten.
    assert listings <= 2 * (looks(scene.operator) - looked) / COUNT


def test_ten_memberships_share_one_write_budget_also_across_a_crash(stage: Stage, operate: Operate) -> None:
    limited = options(writes_per_minute="8")
    scene = stage(QUICK, options=limited)
    create_all(scene)
    scene.until_called("addNodes", times=6)
    scene.operator.kill()
    scene.operator = operate(scene.simulator, limited, name="operator-after-the-crash")
    until_all_are_ready(scene, seconds=120)
    summary = scene.simulator.get("summary")
    peaks = summary["peak_writes_per_minute"]
    assert isinstance(peaks, dict)
    # Fewer where the process was killed between an intent and its call: that counts, too.
    assert 6 <= peaks.pop(scene.corner.access_key) <= 8
    assert peaks == {}
    assert summary["double_adds"] == 0
    assert scene.simulator.accepted() == {server: 1 for servers in WANTED.values() for server in servers}
