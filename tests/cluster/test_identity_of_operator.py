"""An identity of the operator's own, and agencies of other accounts, over the wire: who may use them, and what is told.

Not for: a namespace's own service account (`test_identity`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest

from cce_simulator.config import (
    CLUSTER_ID,
    PROJECT_ID,
    AgencyConfig,
    AgentConfig,
    Behaviour,
    ServerConfig,
    SimulatorConfig,
)
from cce_simulator.faults import FaultRule
from harness import Cluster, Operator, Scene, SimulatorProcess, wait_for
from harness.cluster import condition, is_ready
from harness.identity import AGENCY, FEDERATION, PROVIDER, STS, grant, trusting
from harness.operator_process import FAST
from harness.scene import server_ids
from nodepool_membership.cce.sources.pod_identity import FILE_VARIABLE, URI_VARIABLE

TWO: Final = server_ids(2)
OPERATOR: Final = {"operator": True}
OTHER_PROJECT: Final = "f" * 32
SHORT: Final = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5, session_seconds=4), writes_per_minute=0)
ELSEWHERE: Final = AgencyConfig(
    name="elsewhere", domain_name="other", project_id=OTHER_PROJECT, callers=(AGENCY.urn,), external_id="shared-word"
)
ON_TOP: Final = {"agencyURN": ELSEWHERE.urn, "externalID": "shared-word"}


@pytest.fixture
def listed(namespace: str) -> Sequence[str]:
    """The option that lets this namespace use the operator's identity, for the simulator's cluster."""
    return (f"--operator-identity-for={namespace}/{PROJECT_ID}/{CLUSTER_ID}",)


def test_keys_of_the_agent_are_renewed_with_the_token_that_is_in_its_file_now(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    listed: Sequence[str],
    tmp_path: Path,
) -> None:
    file = tmp_path / "pod-token"
    file.write_text("the-first-token-of-the-pod")
    hangs = FaultRule(name="hangs", route="agentCredentials", delay_seconds=30)
    agent = AgentConfig(token_file=str(file), agency=AGENCY.name)
    simulator = simulate(
        SHORT.model_copy(update={"access_keys": (), "agencies": (AGENCY,), "agent": agent, "faults": (hangs,)})
    )
    environment = {URI_VARIABLE: f"{simulator.url}/v1/credentials", FILE_VARIABLE: str(file)}
    options = (*FAST, "--operator-identity=pod-identity", *listed)
    scene = Scene(cluster, namespace, simulator, operate(simulator, options, environment=environment))
    scene.create(TWO[:1], identityRef=OPERATOR)
    scene.until_waits("CloudUnreachable", "the pod identity agent: no answer within 5 s")
    simulator.delete("faults")
    scene.until_joined(TWO[:1])
    # The kubelet replaces it: the agent takes the new one only.
    file.write_text("the-second-token-of-the-pod")
    asked = len(simulator.entries("agentCredentials"))
    wait_for("two renewals", lambda: len(simulator.entries("agentCredentials")) > asked + 1 or None)
    file.write_text("")
    empty = f"the token file '{file}' is empty or holds no token: check {FILE_VARIABLE}"
    scene.until("told", lambda m: empty in str(condition(m)["message"]))
    file.write_text("the-third-token-of-the-pod")
    scene.until("Ready again", is_ready)
    assert {call["status"] for call in simulator.entries("agentCredentials") if not call["fault"]} == {200}
    said = scene.operator.log.read_text() + str(scene.get()) + str(cluster.events(namespace))
    assert "token-of-the-pod" not in said


def test_who_is_not_listed_is_told_which_option_lets_it(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    listed: Sequence[str],
    tmp_path: Path,
) -> None:
    """A projected token, as the kubelet keeps it in a file."""
    account = ("serviceaccount", "the-operator", f"--namespace={namespace}")
    cluster.control_plane.kubectl("create", *account)
    simulator = simulate(trusting(cluster, namespace, SHORT, account="the-operator"))
    token = cluster.control_plane.kubectl(
        "create", "token", "the-operator", f"--namespace={namespace}", f"--audience={PROVIDER.client_ids[0]}"
    ).stdout
    file = tmp_path / "token"
    file.write_text(token)
    own = (f"--operator-identity=oidc-file:{file}", f"--operator-identity-provider={PROVIDER.name}")
    scene = Scene(cluster, namespace, simulator, operate(simulator, (*FAST, *own)))
    scene.create(TWO, identityRef=OPERATOR)
    scene.until_waits("IdentityRefused", "--operator-identity-for=NAMESPACE/PROJECT/CLUSTER", f"{namespace!r}")
    assert simulator.entries() == []
    scene.operator.kill()
    scene.operator = operate(simulator, (*FAST, *own, *listed), name="listed")
    scene.until_joined(TWO)


@pytest.fixture
def agencies(
    cluster: Cluster, namespace: str, simulate: Callable[..., SimulatorProcess], operate: Callable[..., Operator]
) -> Scene:
    """A cloud with a cluster in another account, whose agency the identity of a namespace may assume."""
    config = trusting(cluster, namespace, SHORT)
    theirs = config.clusters[0].model_copy(update={"project_id": OTHER_PROJECT})
    servers = ServerConfig(servers=tuple(TWO), patch={"tenant_id": OTHER_PROJECT})
    changes = {"clusters": (theirs,), "agencies": (*config.agencies, ELSEWHERE), "servers": (servers,)}
    simulator = simulate(config.model_copy(update=changes))
    grant(cluster, namespace)
    return Scene(cluster, namespace, simulator, operate(simulator))


def test_servers_of_another_account_join_by_its_agency(agencies: Scene) -> None:
    agencies.create(TWO, pool={"projectID": OTHER_PROJECT}, identityRef=STS, assumeAgency=ON_TOP)
    agencies.until_joined(TWO)
    assert len({call["access_key"] for call in agencies.simulator.entries("assumeAgency")}) >= 1


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        (
            {"identityRef": STS, "assumeAgency": ON_TOP, "nodePool": PROJECT_ID},
            "Forbidden",
            ["403", "the credentials are not for project", "check spec.nodePool.projectID"],
        ),
        (
            {"identityRef": STS},
            "Forbidden",
            ["403", "the credentials are not for project", "check spec.nodePool.projectID"],
        ),
        (
            {"identityRef": STS, "assumeAgency": {**ON_TOP, "externalID": "another-word"}},
            "IdentityRefused",
            ["assuming the agency", "403 STS5.1001", "(and external id)", "correct spec.assumeAgency"],
        ),
        (
            {"identityRef": FEDERATION, "assumeAgency": {"agencyName": "nobody", "domainName": "other"}},
            "IdentityRefused",
            ["assuming the agency 'nobody'", "404 IAM.0004", "correct spec.assumeAgency"],
        ),
    ],
    ids=["own-project", "no-agency", "external-id", "no-such-agency"],
)
def test_a_project_of_another_account_without_its_agency_is_told(
    agencies: Scene, spec: Mapping[str, object], reason: str, words: Sequence[str]
) -> None:
    project = str(spec.get("nodePool", OTHER_PROJECT))
    scene = replace(agencies, name="wrong")
    scene.create(TWO, pool={"projectID": project}, **{k: v for k, v in spec.items() if k != "nodePool"})
    scene.until_waits(reason, *words)
    assert scene.adds() == []


def test_a_clock_that_is_off_by_ten_minutes_is_told_and_costs_no_keys(
    cluster: Cluster, namespace: str, simulate: Callable[..., SimulatorProcess], operate: Callable[..., Operator]
) -> None:
    """Every answer of the cloud, IAM's too, is dated so: keys are good by the clock that set their end."""
    skewed = FaultRule(name="skewed", date_skew_seconds=600)
    behaviour = Behaviour(job_seconds=0.5, session_seconds=900)
    config = SHORT.model_copy(update={"behaviour": behaviour, "faults": (skewed,)})
    simulator = simulate(trusting(cluster, namespace, config))
    grant(cluster, namespace)
    scene = Scene(cluster, namespace, simulator, operate(simulator))
    scene.create(TWO, identityRef=FEDERATION)
    scene.until_waits("ClockSkew", "about 10 minutes behind", "NTP")
    reads = len(scene.calls("listNodes"))
    scene.until_called("listNodes", times=reads + 2)
    assert scene.adds() == []
    simulator.delete("faults?name=skewed")
    scene.until_joined(TWO)
    assert len(simulator.entries("createTokenByIdToken")) == 1
