"""The right to edit memberships is not the right to use every Secret of the namespace. On a real API server.

Not for: what stands in a Secret (`test_bad_input`), or the memory for Secrets (`tests/unit/kube/test_kube_secrets.py`).
"""

import base64
from collections.abc import Callable

import pytest

from cce_simulator.config import Behaviour, SimulatorConfig, server_id
from harness import Cluster, MembershipSpec, Operator, SimulatorProcess
from harness.cluster import condition, is_ready

QUICK = SimulatorConfig(behaviour=Behaviour(job_seconds=0.2), writes_per_minute=0)
LABEL = "cce.nodepools.dev/credentials"
IDS = [server_id("secrets", index) for index in range(2)]


def is_invalid(words: str) -> Callable[[dict[str, object]], bool]:
    def holds(membership: dict[str, object]) -> bool:
        ready = condition(membership)
        return ready.get("reason") == "CredentialsInvalid" and words in str(ready["message"])

    return holds


@pytest.mark.parametrize("kind", ["Opaque", "helm.sh/release.v1", "kubernetes.io/basic-auth"])
def test_a_secret_is_used_once_its_owner_marked_it(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    kind: str,
) -> None:
    simulator = simulate(QUICK)
    operate(simulator)
    key = QUICK.access_keys[0]
    data = {"accessKey": key.access_key, "secretKey": key.secret_key, "username": "u", "password": "p"}
    cluster.put_secret(namespace, "cce-credentials", data, type=kind)
    cluster.create(MembershipSpec("m", IDS, simulator.url, namespace))
    told = cluster.wait(namespace, "m", "not marked", is_invalid("is not marked for this use"))
    message = str(condition(told)["message"])
    assert kind not in message
    assert simulator.entries() == []
    cluster.control_plane.kubectl("label", "secret", "cce-credentials", f"{LABEL}=true", f"--namespace={namespace}")
    if kind.startswith("kubernetes.io/"):
        cluster.wait(namespace, "m", "Kubernetes' own", is_invalid("of a type of Kubernetes' own"))
        assert simulator.entries() == []
    else:
        cluster.wait(namespace, "m", "Ready", is_ready)


def test_the_token_of_a_service_account_is_never_sent(
    cluster: Cluster, namespace: str, simulate: Callable[..., SimulatorProcess], operate: Callable[..., Operator]
) -> None:
    """An attack: whoever edits memberships points one at such a Secret, and at an endpoint of their own."""
    simulator = simulate(QUICK)
    operator = operate(simulator)
    kubectl = cluster.control_plane.kubectl
    kubectl("create", "serviceaccount", "victim", f"--namespace={namespace}")
    token = cluster.control_plane.service_account_token(namespace, "victim")
    cluster.put_secret(namespace, "victims", {"token": token}, type="Opaque", labels={"of": "victim"})
    cluster.create(MembershipSpec("m", IDS, simulator.url, namespace, secret="victims"))
    told = cluster.wait(namespace, "m", "refused", is_invalid("is not marked for this use"))
    assert simulator.entries() == []
    for text in (str(told), operator.output()):
        assert token[:12] not in text
        assert base64.b64encode(token.encode()).decode()[:16] not in text
