"""Every phase and every reason is reached by an operator in the model; `pytest tests/property -s` prints how often.

Not for: what each of them asks of a user (`docs`), or whether it is right (`tests/unit`).
"""

from dataclasses import replace
from typing import Final

from nodepool_membership.api.membership import Json
from nodepool_membership.api.names import PAUSED_ANNOTATION
from nodepool_membership.api.reasons import Reason
from nodepool_membership.core.observed.observation import ACTIVE, JobPhase, Trouble
from nodepool_membership.core.observed.rivals import Rival
from nodepool_membership.core.preflight.facts import Template
from nodepool_membership.runtime.claims.claimed import NoRoomError
from property.answers import Reply
from property.cloud_model import OTHER_POOL, POOL, CallPlan, Fate, server_id
from property.driver import Boundary
from property.machine import IDS, Machine, a_machine
from property.reached import name, table, unreached
from property.stored_object import spec_json
from unit.preflight_examples import BROKEN

NOT_DECIDED: Final = frozenset(
    {
        # Before anything is decided: what is needed to call the cloud at all cannot be had.
        Reason.SECRET_NOT_FOUND,
        Reason.CREDENTIALS_INVALID,
        Reason.ENDPOINT_NOT_ALLOWED,
        Reason.REGION_UNKNOWN,
        Reason.NOT_GRANTED,
        # Such a status is never decided on: its conditions alone are written.
        Reason.STATUS_INVALID,
        # The schema's default, until the operator's first look.
        Reason.PENDING,
        # It comes from the exchange of an identity for keys, before anything is decided.
        Reason.IDENTITY_REFUSED,
    }
)
"""What `core` never decides; `tests/cluster` reaches them."""


def refused(status: int, code: str, *, size: int = 1, text: str = "", servers: int = 1) -> None:
    for attempts in (1, 2):
        machine = a_machine(servers, batchSize=size, maxAttempts=attempts)
        machine.cloud.weather = CallPlan(reply=Reply.REFUSED, refusal=(status, code), text=text)
        machine.run(30)


def turned_away(reply: Reply) -> None:
    machine = a_machine(1)
    machine.cloud.weather = CallPlan(reply=reply)
    machine.run(5)


def failed(fate: Fate, explains: str = "", servers: int = 1) -> None:
    machine = a_machine(servers, maxAttempts=1)
    machine.cloud.weather = CallPlan(
        fates=(fate,), job_ends=JobPhase.FAILED if explains else JobPhase.SUCCEEDED, explains=explains
    )
    machine.run(90)


def joined(servers: int = 1, **fields: str) -> Machine:
    machine = a_machine(servers, **fields)
    machine.run(35)
    return machine


def every_refusal() -> None:
    for status, code in (
        (400, "CCE.01400001"),
        (400, "CCE.01400007"),
        (429, "CCE.01429004"),
        (403, "CCE.01403001"),
        (401, "CCE.01401001"),
        (404, "CCE.01404001"),
        (400, "CCE.01400002"),
        (403, "CCE.01403003"),
        (403, "CCE.01403009"),
        (400, "CCE.01400034"),
    ):
        refused(status, code)
    machine = a_machine(2)
    machine.cloud.weather = CallPlan(reply=Reply.REFUSED, text="is already in another cluster", held=1)
    machine.run(1)
    refused(400, "CCE.01400001", text="is already in another cluster")
    refused(400, "CCE.01400001", size=4, servers=4)
    refused(400, "CCE.01400001", servers=4)


def more_causes_than_are_kept_apart() -> None:
    machine = a_machine(0)
    machine.stored.spec = spec_json([server_id(n) for n in range(52)], batchSize=1, maxAttempts=1)
    # Texts that differ in figures alone are one cause (rule P15).
    texts = [f"has trouble {'x' * n}y" for n in range(52)]
    machine.cloud.next_calls = [CallPlan(reply=Reply.REFUSED, text=text, held=1) for text in texts]
    machine.run(90)


def every_failed_job() -> None:
    for text in (
        "no available data disk",
        "key pair not found",
        "quota exceeded",
        "pulling the image: no such host",
        "something else",
    ):
        failed(Fate.BREAKS, text)


def every_fate() -> None:
    for fate in Fate:
        failed(fate)
    failed(Fate.BREAKS, servers=4)
    machine = a_machine(2)
    machine.cloud.weather = CallPlan(fates=(Fate.JOINS, Fate.BREAKS))
    machine.run(5)
    machine.cloud.others_remove(IDS[1])
    machine.run(16)
    machine = a_machine(1, joinTimeoutSeconds=600)
    machine.cloud.weather = CallPlan(job=60, installs=100_000)
    machine.run(35)
    machine.stored.edit(joinTimeoutSeconds=80_000)
    machine.run(5)


def what_is_in_the_way() -> None:
    for reply in (Reply.LOCKED, Reply.THROTTLED, Reply.NOT_SENT, Reply.LOST, Reply.REFUSED_IN_PART):
        turned_away(reply)
    for phases in (("Error", "Available"), ("", "Upgrading")):
        machine = a_machine(1)
        machine.cloud.pool_phase, machine.cloud.cluster_phase = phases
        machine.run(1)
    machine = a_machine(1)
    machine.driver.skew = 3600.0
    machine.run(1)
    machine = a_machine(1)
    machine.driver.rivals = None
    machine.run(1)
    machine.driver.rivals = {IDS[0]: Rival("default/other", better=True)}
    machine.run(1)
    machine = a_machine(1)
    machine.driver.rivals = Trouble(Reason.TOO_MANY_MEMBERSHIPS, str(NoRoomError(needed=False)))
    machine.run(1)
    machine = a_machine(1)
    machine.stored.annotate(large="x" * 1_200_000)
    machine.run(1)


def drift() -> None:
    machine = joined()
    machine.cloud.others_break(IDS[0])
    machine.run(5)
    machine.cloud.others_remove(IDS[0])
    machine.run(90)
    machine = joined(4)
    for server in IDS[:4]:
        machine.cloud.others_remove(server)
    machine.run(90)
    machine = a_machine(2)
    machine.cloud.others_add(IDS[0], OTHER_POOL, ACTIVE)
    machine.cloud.others_add(IDS[1], POOL, "Installing")
    machine.run(90)
    machine = joined(2)
    machine.cloud.hidden = {IDS[0]}
    machine.stored.edit(serverIDs=[*IDS[:3]])
    machine.run(1)


def removal_and_deletion() -> None:
    machine = joined(2, removalPolicy="Remove", deletionPolicy="Remove")
    machine.cloud.weather = CallPlan(fates=(Fate.BREAKS,), job_ends=JobPhase.FAILED)
    machine.stored.edit(serverIDs=[IDS[1]])
    machine.run(35)
    machine.delete(namespace=False)
    machine.run(5)


def what_servers_are_like() -> None:
    for _, server, asked in BROKEN:
        required: dict[str, Json] = {"key": "owner", "value": "team-a=b"}
        machine = a_machine(1, preflight={"mode": "Enforce", "requiredTag": required})
        project = "" if server.project_id == asked.project_id else server.project_id
        machine.cloud.inventory.documents[IDS[0]] = replace(server, server_id=IDS[0], project_id=project)
        machine.cloud.inventory.nodes = dict(asked.inspection.nodes)
        machine.cloud.inventory.flavors = dict(asked.inspection.flavors)
        machine.cloud.template, machine.cloud.network = asked.template, asked.network
        machine.run(1)
    machine = a_machine(1)
    machine.see_no_servers(blind=True)
    machine.run(1)
    machine = joined(2)
    machine.cloud.hidden, machine.cloud.inventory.tells_tags = {IDS[0]}, True
    machine.stored.edit(serverIDs=[*IDS[:3]])
    machine.run(1)


def dangers_of_the_pool() -> None:
    machine = a_machine(1)
    machine.cloud.template = Template("one", autoscaling=True, desired_nodes=0)
    machine.run(35)
    machine.cloud.template = Template("another")
    machine.cloud.pool_conditions, machine.cloud.most_nodes = ("Scalable=False",), 1
    machine.stored.edit(serverIDs=[*IDS[:2]])
    machine.run(1)


def what_waits_for_a_word() -> None:
    machine = a_machine(1, approval="Manual")
    machine.run(1)
    machine = a_machine(3, rollout={"canary": 1})
    machine.cloud.weather = CallPlan(fates=(Fate.BREAKS,))
    machine.run(90)


def what_stops() -> None:
    machine = a_machine(1)
    machine.run(1)
    machine.stored.edit(suspend=True)
    machine.run(5)
    machine = a_machine(1, joinTimeoutSeconds=600)
    machine.cloud.weather = CallPlan(job=100_000, installs=100_000)
    machine.run(90)
    machine = a_machine(2)
    machine.run(1)
    machine.lose_status()
    machine.run(5)
    machine.driver.unreachable = True
    machine.run(5)
    machine = a_machine(1)
    machine.at(Boundary.INTENDED, lambda: machine.cloud.advance(70))
    machine.run(5)
    machine = a_machine(1)
    machine.stored.annotate(**{PAUSED_ANNOTATION: "incident 42"})
    machine.run(5)


def test_every_phase_and_reason_is_reached() -> None:
    every_refusal()
    more_causes_than_are_kept_apart()
    every_failed_job()
    every_fate()
    what_is_in_the_way()
    drift()
    removal_and_deletion()
    what_servers_are_like()
    dangers_of_the_pool()
    what_waits_for_a_word()
    what_stops()
    print("\n" + table())
    assert unreached() == {name(reason) for reason in NOT_DECIDED}
