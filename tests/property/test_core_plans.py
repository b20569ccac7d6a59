"""Plans over generated lists of servers: how many calls, for whom, and what in the spec means nothing.

Not for: what goes wrong on the way (`test_core_machine`).
"""

import json
from collections.abc import Sequence
from typing import Final

from hypothesis import given, settings
from hypothesis import strategies as st

from nodepool_membership.api.names import FINALIZER
from nodepool_membership.api.reasons import FailureReason, Reason
from nodepool_membership.core.observed.observation import ACTIVE
from nodepool_membership.core.state.failures import MAX_GROUPS, Cause, fold, unfold
from property.answers import Reply
from property.cloud_model import OTHER_POOL, POOL, CallPlan, Cloud, server_id
from property.driver import Driver
from property.stored_object import StoredObject, spec_json
from told import condition_of

HOUR: Final = 3600.0
COUNTS_AND_SIZES: Final = st.one_of(
    st.tuples(st.integers(0, 25), st.integers(1, 30)),
    st.tuples(st.sampled_from((199, 200, 201, 400, 450)), st.sampled_from((99, 199, 200))),
)


def ids(count: int) -> list[str]:
    return [server_id(n) for n in range(count)]


def settle(servers: Sequence[str], cloud: Cloud, *, size: int = 200, parallel: int = 1) -> Driver:
    """Reconcile until the membership is Ready and the operator let go of it."""
    stored = StoredObject(spec_json(servers, batchSize=size, maxParallelJobs=parallel))
    driver = Driver(stored, cloud)
    for _ in range(400):
        driver.run(HOUR / 4, 100)
        ready = condition_of(stored.read().status, "Ready")
        if ready is not None and ready.status == "True" and FINALIZER not in stored.finalizers:
            return driver
    raise AssertionError(f"not Ready: {stored.status}")


@given(count_and_size=COUNTS_AND_SIZES, parallel=st.integers(1, 10))
@settings(max_examples=40)
def test_as_few_calls_as_the_batch_size_allows(count_and_size: tuple[int, int], parallel: int) -> None:
    count, size = count_and_size
    cloud = Cloud()
    driver = settle(ids(count), cloud, size=size, parallel=parallel)
    assert cloud.sends == -(-count // size)
    assert sorted(i for batch in driver.intents for i in batch.server_ids) == ids(count)
    assert all(cloud.accepted[i] == 1 for i in ids(count))
    assert driver.stored.read().status.joined == count


@given(st.data())
@settings(max_examples=40)
def test_order_duplicates_and_case_mean_nothing(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 20))
    size, parallel = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 3))
    plain = ids(count)
    again = data.draw(st.lists(st.sampled_from(plain), max_size=10))
    mixed = data.draw(st.permutations(plain + again))
    loud = [i.upper() if data.draw(st.booleans()) else i for i in mixed]
    tidy, untidy = Cloud(), Cloud()
    first = settle(plain, tidy, size=size, parallel=parallel)
    second = settle(loud, untidy, size=size, parallel=parallel)
    assert first.intents == second.intents
    assert json.dumps(first.stored.status) == json.dumps(second.stored.status)
    assert (tidy.accepted, tidy.nodes) == (untidy.accepted, untidy.nodes)


@given(st.data())
@settings(max_examples=40)
def test_servers_that_others_made_members_are_adopted_and_never_sent(data: st.DataObject) -> None:
    count, size = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 7))
    there = data.draw(st.sets(st.sampled_from(ids(count))))
    cloud = Cloud()
    for server in sorted(there):
        cloud.others_add(server, POOL, ACTIVE)
    driver = settle(ids(count), cloud, size=size)
    assert cloud.sends == -(-(count - len(there)) // size)
    assert cloud.accepted.keys() == set(ids(count)) - there
    assert driver.stored.read().status.members == tuple(ids(count))


@given(st.data())
@settings(max_examples=40)
def test_servers_that_have_a_node_elsewhere_are_never_sent(data: st.DataObject) -> None:
    count = data.draw(st.integers(2, 12))
    elsewhere = data.draw(st.sets(st.sampled_from(ids(count)), min_size=1))
    cloud = Cloud()
    for server in sorted(elsewhere):
        cloud.others_add(server, OTHER_POOL, ACTIVE)
    stored = StoredObject(spec_json(ids(count)))
    Driver(stored, cloud).run(HOUR, 100)
    status = stored.read().status
    assert cloud.accepted.keys() == set(ids(count)) - elsewhere
    assert (status.joined, status.failed) == (count - len(elsewhere), len(elsewhere))
    assert [(f.reason, set(f.server_ids)) for f in status.failures] == [(FailureReason.OTHER_POOL, elsewhere)]


@given(first=st.integers(1, 12), more=st.integers(1, 12), size=st.integers(1, 7))
@settings(max_examples=40)
def test_new_ids_cost_calls_for_the_new_ids_only(first: int, more: int, size: int) -> None:
    cloud = Cloud()
    driver = settle(ids(first), cloud, size=size)
    before = cloud.sends
    driver.stored.edit(serverIDs=list(ids(first + more)))
    driver.run(4 * HOUR, 1000)
    assert cloud.sends - before == -(-more // size)
    assert all(cloud.accepted[i] == 1 for i in ids(first + more))


@given(count=st.integers(1, 12), size=st.integers(1, 5))
@settings(max_examples=20)
def test_a_suspended_membership_says_what_it_would_do_and_then_does_that(count: int, size: int) -> None:
    cloud = Cloud()
    cloud.others_add(server_id(0), POOL, ACTIVE)
    stored = StoredObject(spec_json(ids(count), batchSize=size, suspend=True))
    driver = Driver(stored, cloud)
    driver.run(HOUR, 10)
    ready = condition_of(stored.read().status, "Ready")
    assert ready is not None
    calls = -(-(count - 1) // size)
    assert (ready.status, ready.reason, cloud.sends) == ("False", Reason.SUSPENDED, 0)
    assert (f"would add {count - 1} in {calls} call" if calls else "would add 0, adopt 1") in ready.message
    stored.edit(suspend=False)
    driver.run(4 * HOUR, 1000)
    assert cloud.sends == calls


CAUSES: Final = st.builds(
    Cause, reason=st.sampled_from(FailureReason), message=st.sampled_from("abcdefgh"), attempts=st.integers(0, 10)
)


@given(st.lists(CAUSES, max_size=150))
@settings(max_examples=100)
def test_groups_of_failures_lose_no_server_and_give_no_attempt_back(causes: list[Cause]) -> None:
    book = dict(zip(ids(len(causes)), causes, strict=True))
    groups = fold(book)
    stored = unfold(groups)
    assert len(groups) <= MAX_GROUPS
    assert stored.keys() == book.keys()
    assert all(stored[i].attempts >= cause.attempts for i, cause in book.items())
    assert fold(stored) == groups
    if len(set(causes)) <= MAX_GROUPS:
        assert stored == book


@given(count=st.integers(1, 9), size=st.integers(1, 4), refused=st.integers(1, 2))
@settings(max_examples=20)
def test_a_passing_refusal_costs_time_and_no_attempt(count: int, size: int, refused: int) -> None:
    cloud = Cloud(next_calls=[CallPlan(reply=Reply.LOCKED)] * refused)
    driver = settle(ids(count), cloud, size=size)
    assert cloud.sends == -(-count // size) + refused
    assert all(batch.attempt == 1 for batch in driver.intents)
