"""A refused call that was carried out in part: what is remembered of it before anything else is called (rule P15)."""

from dataclasses import replace

from nodepool_membership.api.spec import RemovalPolicy
from nodepool_membership.api.status import Operation, Phase, Status
from unit.core_builders import NOW, WINDOW, a_batch, a_node, a_spec, servers
from unit.process_builders import Api, Process

X, Y, Z = servers(3)
KEY = ("cce-system", "old")


async def test_the_pool_is_doubted_also_if_the_same_decision_calls_for_a_removal() -> None:
    api = Api()
    api.make(KEY, X, Z)
    spec = replace(a_spec(X, Z, parallel=3), removal_policy=RemovalPolicy.REMOVE)
    part = replace(a_batch(Phase.QUEUED, X, number=2), submit_time=None)
    before = a_batch(Phase.SUCCEEDED, finished=NOW)
    status = Status(1, last_batch=2, jobs=(before, part), members=(Y, Z), surplus=1, surplus_since=NOW - WINDOW)
    status = replace(status, observed_removal_policy=RemovalPolicy.REMOVE)
    api.objects[KEY] = replace(api.objects[KEY], spec=spec, status=status)
    process = Process(api)
    process.cloud.nodes = [a_node(X, "Installing"), a_node(Y), a_node(Z)]
    await process.started()
    await process.reconciler.reconcile(KEY)
    assert process.calls.sent == [("old", (Y,))]
    assert [b.operation for b in api.objects[KEY].status.open_batches] == [Operation.ADD, Operation.REMOVE]
    assert process.calls.doubted == ["old"]
