"""What the services' routes are, and the shapes of a parsed call and of an answer.

Not for: answering (api, ecs, iam), or what is added around it (server).
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from cce_simulator.errors import ApiError, invalid
from cce_simulator.world import AddEffects

JSON = "application/json"
_BARE_METAL = "/v1/{project_id}/baremetalservers"
_CLUSTER = "/api/v3/projects/{project_id}/clusters/{cluster_id}"


@dataclass(frozen=True, slots=True)
class Route:
    """`action`: the IAM action it needs; None: a route of IAM, open to all."""

    name: str
    method: str
    template: str
    action: str | None

    def match(self, path: str) -> dict[str, str] | None:
        """Path parameters, or None."""
        found = re.fullmatch(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", self.template), path)
        return None if found is None else found.groupdict()


ROUTES = (
    Route("addNodes", "POST", f"{_CLUSTER}/nodepools/{{nodepool_id}}/nodes/add", "cce:node:add"),
    Route("getJob", "GET", "/api/v3/projects/{project_id}/jobs/{job_id}", "cce:job:get"),
    Route("listNodes", "GET", f"{_CLUSTER}/nodes", "cce:node:list"),
    Route("getNode", "GET", f"{_CLUSTER}/nodes/{{node_id}}", "cce:node:get"),
    Route("listNodePools", "GET", f"{_CLUSTER}/nodepools", "cce:nodepool:list"),
    Route("getNodePool", "GET", f"{_CLUSTER}/nodepools/{{nodepool_id}}", "cce:nodepool:get"),
    Route("getCluster", "GET", _CLUSTER, "cce:cluster:get"),
    Route("removeNodes", "PUT", f"{_CLUSTER}/nodes/operation/remove", "cce:node:remove"),
    Route("deleteNode", "DELETE", f"{_CLUSTER}/nodes/{{node_id}}", "cce:node:delete"),
    Route("listServers", "GET", "/v1/{project_id}/cloudservers/detail", "ecs:cloudServers:listServersDetails"),
    Route("listFlavors", "GET", "/v1/{project_id}/cloudservers/flavors", "ecs:cloudServerFlavors:get"),
    Route("showServerTags", "GET", "/v1/{project_id}/cloudservers/{server_id}/tags", "ecs:cloudServers:showServerTags"),
    Route("showServer", "GET", "/v1/{project_id}/cloudservers/{server_id}", "ecs:cloudServers:showServer"),
    Route("listBaremetalServers", "GET", "/v1/{project_id}/baremetalservers/detail", "bms:servers:list"),
    Route("showBaremetalServer", "GET", f"{_BARE_METAL}/{{server_id}}", "bms:servers:showBaremetalServer"),
    Route("listVolumes", "GET", "/v2/{project_id}/cloudvolumes/detail", "evs:volumes:list"),
    Route("showSubnet", "GET", "/v1/{project_id}/subnets/{subnet_id}", "vpc:subnets:get"),
    Route("createToken", "POST", "/v3/auth/tokens", None),
    Route("createSecurityToken", "POST", "/v3.0/OS-CREDENTIAL/securitytokens", None),
    Route("createTokenByIdToken", "POST", "/v3.0/OS-AUTH/id-token/tokens", None),
    Route("assumeAgencyWithOidc", "POST", "/v5/agencies/assume-with-oidc", None),
    Route("assumeAgency", "POST", "/v5/agencies/assume", None),
    Route("callerIdentity", "GET", "/v5/caller-identity", None),
    Route("agentCredentials", "POST", "/v1/credentials", None),
)


def find_route(method: str, path: str) -> tuple[Route, dict[str, str]] | None:
    """The route of a request; a trailing slash makes it another path, hence none."""
    for route in ROUTES:
        if route.method == method and (params := route.match(path)) is not None:
            return route, params
    return None


@dataclass(frozen=True, slots=True)
class Call:
    """A request whose route is known."""

    route: Route
    params: Mapping[str, str]
    query: Mapping[str, str]
    headers: Mapping[str, str]  # names in lower case
    body: bytes
    effects: AddEffects
    hide_servers: frozenset[str] = frozenset()  # lower case; "*" = all
    omit_next_marker: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and what the ledger should know about it."""

    status: int
    body: bytes
    content_type: str = JSON
    headers: Mapping[str, str] = field(default_factory=dict)
    error_code: str | None = None
    refusal: ApiError | None = None  # to be told instead, although `accepted` servers were taken
    job_id: str | None = None
    accepted: tuple[str, ...] = ()
    doubled: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def json_reply(document: object, status: int = 200) -> Reply:
    return Reply(status, json.dumps(document).encode())


def json_object(body: bytes) -> dict[str, object]:
    """The body as a JSON object. Raises ApiError 400."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise invalid(f"the body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise invalid("the body is not a JSON object")
    return document


def named_servers(body: bytes) -> tuple[str, ...]:
    """Server ids of an add's body as far as they can be read; nothing is refused here."""
    try:
        document = json_object(body)
    except ApiError:
        return ()
    entries = document.get("nodeList")
    ids = [e.get("serverID") for e in entries if isinstance(e, dict)] if isinstance(entries, list) else []
    return tuple(server for server in ids if isinstance(server, str))
