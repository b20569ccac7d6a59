"""What a real API server makes of the ways to keys: exactly one of two, each with its own settings, and their exchange.

Not for: what the operator does with them (`test_identity`).
"""

import json
from collections.abc import Mapping
from typing import Final

import pytest

from cluster.objects import manifest, server_ids
from controlplane import ControlPlane
from harness.identity import FEDERATION, STS
from harness.typist import Typist

pytestmark = pytest.mark.usefixtures("crd")

SECRET: Final = {"name": "cce-credentials"}
BY_URN: Final = {"agencyURN": "iam::acct:agency:adopter", "externalID": "shared-word"}
BY_NAME: Final = {"agencyName": "adopter", "domainName": "other"}
OPERATOR: Final = {"operator": True}
ONE_OF_TWO: Final = "credentialsRef or identityRef must be set, and not both"
OWN: Final = "method needs its own settings and no others"
ALONE: Final = "operator must stand alone when it is true; else serviceAccountName, audience and method are needed"
OF_ACCOUNT: Final = "domainName or domainID is needed with agencyName"
NAMED: Final = "agencyName or agencyURN must be set, and not both"


class Client(Typist):
    """What a user types, about one membership."""

    def spec(self) -> Mapping[str, object]:
        """Of the object as it is stored, without defaults of identityRef."""
        found = json.loads(self.kubectl("get", "npmem", "here", "--output=json"))["spec"]
        identity = found.get("identityRef", {})
        identity.pop("operator", None)
        identity.get("sts", {}).pop("durationSeconds", None)
        return dict(found)

    def patch(self, change: Mapping[str, object]) -> tuple[str, ...]:
        """The arguments of a merge patch of the spec."""
        return ("patch", "npmem", "here", "--type=merge", f"--patch={json.dumps({'spec': change})}")


@pytest.fixture
def client(control_plane: ControlPlane, namespace: str) -> Client:
    return Client(control_plane, namespace)


def text(**changes: object) -> str:
    """A good membership with a Secret, changed; None: without."""
    made = manifest("here", server_ids(2))
    spec = made["spec"]
    assert isinstance(spec, dict)
    made["spec"] = {name: value for name, value in {**spec, **changes}.items() if value is not None}
    return json.dumps(made)


def without(ref: Mapping[str, object], *names: str) -> dict[str, object]:
    return {name: value for name, value in ref.items() if name not in names}


GOOD: Final[Mapping[str, Mapping[str, object]]] = {
    "a Secret": {},
    "Federation": {"credentialsRef": None, "identityRef": FEDERATION},
    "STS": {"credentialsRef": None, "identityRef": STS},
    "the operator": {"credentialsRef": None, "identityRef": OPERATOR},
    "an agency on a Secret": {"assumeAgency": BY_NAME},
    "an agency on STS": {"credentialsRef": None, "identityRef": STS, "assumeAgency": BY_URN},
}


@pytest.mark.parametrize("way", GOOD)
def test_every_way_is_taken(client: Client, way: str) -> None:
    client.kubectl("create", "--filename=-", stdin=text(**GOOD[way]))


BAD: Final[Mapping[str, tuple[Mapping[str, object], str]]] = {
    "both": ({"identityRef": FEDERATION}, ONE_OF_TWO),
    "neither": ({"credentialsRef": None}, ONE_OF_TWO),
    "a Secret and the operator": ({"identityRef": OPERATOR}, ONE_OF_TWO),
    "settings of the other method": (
        {"credentialsRef": None, "identityRef": {**FEDERATION, "method": "STS"}},
        OWN,
    ),
    "settings of both methods": ({"credentialsRef": None, "identityRef": {**FEDERATION, "sts": STS["sts"]}}, OWN),
    "a method without settings": ({"credentialsRef": None, "identityRef": without(STS, "sts")}, OWN),
    "nobody's": ({"credentialsRef": None, "identityRef": {}}, ALONE),
    "without an audience": ({"credentialsRef": None, "identityRef": without(STS, "audience")}, ALONE),
    "the operator and an account": ({"credentialsRef": None, "identityRef": {**FEDERATION, **OPERATOR}}, ALONE),
    "an agency of no account": ({"assumeAgency": {"agencyName": "adopter"}}, OF_ACCOUNT),
    "an agency of two accounts": ({"assumeAgency": {**BY_NAME, "domainID": "o"}}, OF_ACCOUNT),
    "an agency by both names": ({"assumeAgency": {**BY_URN, "agencyName": "adopter"}}, NAMED),
    "an agency without a name": ({"assumeAgency": {}}, NAMED),
}


@pytest.mark.parametrize("way", BAD)
def test_a_way_that_is_none_or_two_is_refused_with_the_remedy(client: Client, way: str) -> None:
    changes, says = BAD[way]
    assert says in client.refusal("create", "--filename=-", stdin=text(**changes))


def test_a_secret_and_an_identity_are_exchanged_on_a_living_object_in_one_step_and_not_in_two(client: Client) -> None:
    client.kubectl("create", "--filename=-", stdin=text())
    uid = client.kubectl("get", "npmem", "here", "--output=jsonpath={.metadata.uid}")
    # In two steps it would have both, or none.
    assert ONE_OF_TWO in client.refusal(*client.patch({"identityRef": FEDERATION}))
    assert ONE_OF_TWO in client.refusal(*client.patch({"credentialsRef": None}))
    client.kubectl(*client.patch({"credentialsRef": None, "identityRef": FEDERATION}))
    assert (client.spec().get("credentialsRef"), client.spec()["identityRef"]) == (None, FEDERATION)
    client.kubectl(*client.patch({"identityRef": {**STS, "federation": None}}))
    assert client.spec()["identityRef"] == STS
    client.kubectl(*client.patch({"assumeAgency": BY_URN}))
    client.kubectl(*client.patch({"assumeAgency": None, "identityRef": None, "credentialsRef": SECRET}))
    assert (client.spec()["credentialsRef"], client.spec().get("identityRef")) == (SECRET, None)
    assert client.kubectl("get", "npmem", "here", "--output=jsonpath={.metadata.uid}") == uid


@pytest.mark.parametrize("options", [(), ("--server-side",)], ids=["client-side", "server-side"])
def test_they_are_exchanged_by_apply_of_the_whole_manifest(client: Client, options: tuple[str, ...]) -> None:
    """As from Git: what the manifest does not name any more goes."""
    keyless = {"credentialsRef": None, "identityRef": STS}
    for changes in ({}, keyless, {"credentialsRef": None, "identityRef": FEDERATION}, {}):
        client.kubectl("apply", *options, "--filename=-", stdin=text(**changes))
        wanted = {"credentialsRef": SECRET, **changes}
        assert client.spec().get("credentialsRef") == wanted["credentialsRef"]
        assert client.spec().get("identityRef") == wanted.get("identityRef")
