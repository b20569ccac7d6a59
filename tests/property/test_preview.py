"""What is foreseen is what is done then: id by id, over generated histories, lists, servers and policies.

Not for: what is told of it (`unit.core.decision.test_core_preview`), or what a person has said yes to.
"""

from dataclasses import dataclass
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from nodepool_membership.api.spec import PreflightMode
from nodepool_membership.core.observed.observation import ACTIVE
from property.cloud_model import FAIR, OTHER_POOL, POOL, Cloud
from property.driver import Driver
from property.inventory import MARK, Odd
from property.machine import ANY_ID, IDS, PLANS, POLICIES
from property.stored_object import StoredObject, spec_json

HOUR: Final = 3600.0
LONG: Final = 8 * HOUR
PACE: Final = 60.0
"""Seconds between two looks at least: nothing depends on them."""
ANY_DRIFT: Final = st.sampled_from(("Report", "Rejoin"))


@dataclass(frozen=True)
class Done:
    """What an operator did with whom."""

    add: tuple[str, ...]
    adopt: tuple[str, ...]
    remove: tuple[str, ...]


def left_to_itself(driver: Driver) -> Done:
    """Let the operator work for a while in a world in which nothing else happens."""
    cloud, members = driver.cloud, set(driver.stored.read().status.members)
    accepted, removed = dict(cloud.accepted), set(cloud.removed)
    cloud.weather = FAIR
    driver.run(LONG, 400, PACE)
    added = {i for i, times in cloud.accepted.items() if times > accepted.get(i, 0)}
    adopted = set(driver.stored.read().status.members) - members - added
    return Done(tuple(sorted(added)), tuple(sorted(adopted)), tuple(sorted(cloud.removed - removed)))


def with_a_past(data: st.DataObject) -> Driver:
    """A membership that has worked, was suspended, and whose calls are over."""
    spec = spec_json(
        IDS[: data.draw(st.integers(1, 5))],
        batchSize=3,
        maxAttempts=data.draw(st.integers(1, 2)),
        removalPolicy=data.draw(POLICIES),
        driftPolicy=data.draw(ANY_DRIFT),
    )
    driver = Driver(StoredObject(spec), Cloud(next_calls=data.draw(st.lists(PLANS, max_size=2))))
    driver.run(2 * HOUR, 40, PACE)
    driver.cloud.next_calls.clear()
    driver.stored.edit(suspend=True)
    driver.cloud.end_jobs()
    driver.run(2 * HOUR, 60, PACE)
    return driver


def changed(driver: Driver, data: st.DataObject) -> None:
    """Users and others do what they like."""
    mode, tag = data.draw(st.sampled_from(PreflightMode)), data.draw(st.booleans())
    driver.stored.edit(
        serverIDs=[*data.draw(st.sets(ANY_ID, min_size=1).map(sorted))],
        preflight={"mode": mode.value, **({"requiredTag": {"key": MARK}} if tag else {})},
    )
    driver.reconcile()
    for server in data.draw(st.lists(ANY_ID, max_size=4)):
        pool = data.draw(st.sampled_from((POOL, OTHER_POOL)))
        driver.cloud.others_add(server, pool, data.draw(st.sampled_from((ACTIVE, "Installing"))))
    for act in (driver.cloud.others_remove, driver.cloud.others_move, driver.cloud.others_break):
        for server in data.draw(st.lists(ANY_ID, max_size=2)):
            act(server)
    for server in data.draw(st.lists(ANY_ID, max_size=3)):
        driver.cloud.inventory.spoil(server, data.draw(st.sampled_from(Odd)), driver.cloud.now)


@given(st.data())
@settings(max_examples=max(60, settings().max_examples))
def test_what_is_foreseen_is_done_id_by_id(data: st.DataObject) -> None:
    driver = with_a_past(data)
    changed(driver, data)
    writes, sends = driver.stored.writes, driver.cloud.sends
    told = driver.foresee()
    assert (driver.stored.writes, driver.cloud.sends) == (writes, sends), "a preview writes or calls"
    assert told.called == 0
    driver.stored.edit(suspend=False)
    done = left_to_itself(driver)
    assert Done(told.add, told.adopt, told.remove) == done
    named = [i for left in told.left for i in left.server_ids]
    assert len(named) == len(set(named)) == len(set(named) - set(told.add))


@given(count=st.integers(1, 8), size=st.integers(1, 4), canary=st.integers(0, 3))
def test_as_many_calls_as_foreseen(count: int, size: int, canary: int) -> None:
    cloud = Cloud()
    driver = Driver(StoredObject(spec_json(IDS[:count], batchSize=size, rollout={"canary": canary})), cloud)
    told = driver.foresee()
    left_to_itself(driver)
    assert (told.plan.add, told.plan.calls) == (count, cloud.sends)
