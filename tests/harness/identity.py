"""A cluster and a cloud that know each other: service accounts on one side, who takes their tokens on the other.

Not for: starting either.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Final

import yaml

from cce_simulator.config import (
    AgencyConfig,
    IdentityProviderConfig,
    MappingConfig,
    SimulatorConfig,
    TrustConfig,
)
from harness.cluster import Cluster
from harness.sources import ROOT
from nodepool_membership.api.membership import Json

ACCOUNT: Final = "cce-adopter"
AUDIENCE: Final = "cce-memberships"
PROVIDER: Final = IdentityProviderConfig(
    name="my-cluster",
    urn="iam::d78cbac186b744899480f25bd022f468:oidcProvider:my-cluster",
    issuer="https://kubernetes.default.svc",
    client_ids=(AUDIENCE,),
)
AGENCY: Final = AgencyConfig(name="adopter")
FEDERATION: Final[Mapping[str, Json]] = {
    "serviceAccountName": ACCOUNT,
    "audience": AUDIENCE,
    "method": "Federation",
    "federation": {"identityProvider": PROVIDER.name},
}
STS: Final[Mapping[str, Json]] = {
    "serviceAccountName": ACCOUNT,
    "audience": AUDIENCE,
    "method": "STS",
    "sts": {"providerURN": PROVIDER.urn, "agencyURN": AGENCY.urn},
}


def subject(namespace: str, account: str = ACCOUNT) -> str:
    """What a token of a service account claims to be."""
    return f"system:serviceaccount:{namespace}:{account}"


def trusting(cluster: Cluster, namespace: str, config: SimulatorConfig, *, account: str = ACCOUNT) -> SimulatorConfig:
    """A cloud without any access key, that takes the tokens of one service account for a user and for an agency."""
    answer = cluster.http.get("/openid/v1/jwks")
    answer.raise_for_status()
    return trusting_keys(answer.json()["keys"], namespace, config, account=account)


def trusting_keys(
    jwks: Iterable[Mapping[str, object]], namespace: str, config: SimulatorConfig, *, account: str = ACCOUNT
) -> SimulatorConfig:
    """The same for the cluster whose tokens these keys sign."""
    keys = tuple(dict(key) for key in jwks)
    mapping = MappingConfig(subject=subject(namespace, account))
    trust = TrustConfig(provider_urn=PROVIDER.urn, subject=subject(namespace, account), audience=AUDIENCE)
    return config.model_copy(
        update={
            "access_keys": (),
            "identity_providers": (PROVIDER.model_copy(update={"keys": keys, "mappings": (mapping,)}),),
            "agencies": (AGENCY.model_copy(update={"trusts": (trust,)}),),
        }
    )


def grant(cluster: Cluster, namespace: str) -> None:
    """What deploy/samples/identity has the owner of a namespace apply."""
    documents = list(yaml.safe_load_all((ROOT / "deploy/samples/identity/grant.yaml").read_text()))
    for document in documents:
        document["metadata"]["namespace"] = namespace
    cluster.control_plane.kubectl("apply", "--filename=-", input=yaml.safe_dump_all(documents))


def endpoints(url: str) -> str:
    """The file of `--endpoints` for a simulator, which is every service of its cloud."""
    return json.dumps([{"cce": url, "iam": url, "sts": url}])
