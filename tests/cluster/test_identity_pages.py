"""docs/identity is followed from zero to a Ready membership: its commands, its samples, and what it has typed into IAM.

Not for: what goes wrong on the way (`test_identity`).
"""

import json
import re
import shlex
from collections.abc import Callable
from typing import Final

import pytest
import yaml

from cce_simulator.config import (
    CLUSTER_ID,
    NODE_POOL_ID,
    PROJECT_ID,
    AgencyConfig,
    Behaviour,
    IdentityProviderConfig,
    MappingConfig,
    SimulatorConfig,
    TrustConfig,
)
from harness import Cluster, Operator, SimulatorProcess, wait_for
from harness.scene import server_ids
from harness.sources import ROOT

SAMPLES: Final = ROOT / "deploy" / "samples" / "identity"
ACCOUNT: Final = "d78cbac186b744899480f25bd022f468"
BARE: Final = SimulatorConfig(behaviour=Behaviour(job_seconds=0.5), writes_per_minute=0, access_keys=())


class Reader:
    """Somebody who reads one page, and types what it says."""

    def __init__(self, name: str, cluster: Cluster, namespace: str) -> None:
        self.page = (ROOT / "docs" / "identity" / name).read_text()
        self.namespace = namespace
        self.cluster = cluster
        self.commands = re.findall(r"^\$ kubectl (.*)$", self.page, re.MULTILINE)

    def type(self, number: int) -> str:
        """The command of this number on the page."""
        command = self.commands[number].replace("$NS", self.namespace).replace("$NAME", "keyless-workers")
        return self.cluster.control_plane.kubectl(*shlex.split(command)).stdout

    def apply(self, *documents: object) -> None:
        self.cluster.control_plane.kubectl("apply", "--filename=-", input=yaml.safe_dump_all(documents))


def samples(name: str, namespace: str) -> list[dict[str, dict[str, object]]]:
    """The documents of a sample, with another namespace; those of the operator are left as they are."""
    documents = list(yaml.safe_load_all((SAMPLES / name).read_text()))
    for document in documents:
        document["metadata"]["namespace"] = namespace
    return documents


@pytest.mark.parametrize("name", ["federation.md", "sts.md"])
def test_a_page_leads_from_zero_to_ready(
    cluster: Cluster,
    namespace: str,
    simulate: Callable[..., SimulatorProcess],
    operate: Callable[..., Operator],
    name: str,
) -> None:
    reader = Reader(name, cluster, namespace)
    is_sts = name == "sts.md"
    simulator = simulate(BARE)
    operate(simulator)
    issuer = json.loads(reader.type(0))["issuer"]
    # STS fetches the keys from the issuer by itself, so that page does not ask for them.
    jwks = cluster.control_plane.kubectl("get", "--raw", "/openid/v1/jwks").stdout if is_sts else reader.type(1)
    grant = samples("grant.yaml", namespace)
    (membership,) = samples("membership.yaml", namespace)
    spec = membership["spec"]
    identity = spec["identityRef"]
    assert isinstance(identity, dict)
    if is_sts:
        del identity["federation"]
        (own,) = re.findall(r"```yaml\n(    method: STS\n.*?)```", reader.page, re.DOTALL)
        identity |= yaml.safe_load(own.replace("<account id>", ACCOUNT).replace("<name>", "my-cluster"))
    subject = f"system:serviceaccount:{namespace}:{grant[0]['metadata']['name']}"
    provider = IdentityProviderConfig(
        name="my-cluster",
        urn=identity["sts"]["providerURN"] if is_sts else "",
        issuer=issuer,
        client_ids=(identity["audience"],),
        keys=tuple(json.loads(jwks)["keys"]),
        mappings=(MappingConfig(subject=subject),),
    )
    trust = TrustConfig(provider_urn=provider.urn, subject=subject, audience=identity["audience"])
    agency = AgencyConfig(name="my-cluster", domain_id=ACCOUNT, trusts=(trust,))
    console = {"identityProviders": [provider.to_json()], "agencies": [agency.to_json()] if is_sts else []}
    simulator.post("config", console)
    spec["nodePool"] = {
        "endpoint": simulator.url,
        "projectID": PROJECT_ID,
        "clusterID": CLUSTER_ID,
        "nodePoolID": NODE_POOL_ID,
    }
    spec["serverIDs"] = server_ids(1)
    reader.apply(*grant, membership)
    told = wait_for("the look", lambda: told if "would add" in (told := reader.type(-2)) else None)
    assert told.startswith("suspended; would add 1 ")
    assert simulator.entries("addNodes") == []
    cluster.patch(namespace, "keyless-workers", {"spec": {"suspend": False}})
    assert "condition met" in reader.type(-1)
    assert simulator.accepted() == dict.fromkeys(server_ids(1), 1)
