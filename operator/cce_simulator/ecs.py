"""The routes that read servers: ECS, BMS, EVS and a subnet of VPC, on top of the world.

Not for: their documents (servers). What public pages leave open is a switch of config.Behaviour.
"""

from collections.abc import Callable, Mapping

from cce_simulator.config import SUBNET_ID, VPC_ID, generated_id
from cce_simulator.errors import ApiError
from cce_simulator.routes import Call, Reply, json_reply
from cce_simulator.servers import Servers, flavors
from cce_simulator.world import World

DEFAULT_LIMIT = 25
MAX_LIMIT = 1000
MAX_IDS = 100
MAX_VOLUMES = 60


class ServersApi:
    """Answers calls that are authenticated. Raises ApiError for refusals."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._servers = Servers(world)
        self._handlers: dict[str, Callable[[Call], Reply]] = {
            "listServers": self._list_servers,
            "showServer": self._show_server,
            "showServerTags": self._show_tags,
            "listBaremetalServers": self._list_bare_metal,
            "showBaremetalServer": self._show_bare_metal,
            "listVolumes": self._list_volumes,
            "showSubnet": self._show_subnet,
            "listFlavors": self._list_flavors,
        }

    def handle(self, call: Call) -> Reply | None:
        """The answer, None for a route of another service."""
        handler = self._handlers.get(call.route.name)
        return None if handler is None else handler(call)

    def _list_servers(self, call: Call) -> Reply:
        behaviour = self._world.config.behaviour
        limit = _number(call.query, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        asked = call.query.get("server_id", "")
        if not asked or behaviour.ecs_server_id == "ignored":
            page = _number(call.query, "offset", 1, 1_000_000)
            known = self._servers.known()[(page - 1) * limit : page * limit]
            documents = [self._servers.document(server) for server in known]
            return json_reply({"count": len(documents), "servers": documents})
        ids = asked.split(",")
        if len(ids) > MAX_IDS:
            raise ApiError(400, "Ecs.0005", f"server_id must name at most {MAX_IDS} servers")
        if behaviour.ecs_limit_cuts:
            ids = ids[:limit]
        entries = [self._entry(server.lower()) for server in ids]
        found = [entry for entry in entries if entry is not None]
        return json_reply({"count": len(found), "servers": found})

    def _entry(self, server: str) -> dict[str, object] | None:
        """A server's entry in a list by ids; of an unknown one, what the switches say."""
        document = None if self._hides(server) else self._servers.document(server)
        behaviour = self._world.config.behaviour
        if document is not None or behaviour.ecs_unknown == "leftOut":
            return document
        entry: dict[str, object] = {"id": server, "fault": {"message": f"Instance {server} could not be found."}}
        if behaviour.ecs_nulls == "null":
            entry = {"status": None, "metadata": None, "tags": None, "flavor": None, "addresses": None, **entry}
        return entry

    def _hides(self, server: str) -> bool:
        return self._servers.is_bare_metal(server) and not self._world.config.behaviour.bms_in_ecs

    def _show_server(self, call: Call) -> Reply:
        server = call.params["server_id"].lower()
        document = None if self._hides(server) else self._servers.document(server)
        if document is None:
            raise ApiError(404, "Ecs.0114", f"Instance[{server}] could not be found.")
        return json_reply({"server": document})

    def _show_tags(self, call: Call) -> Reply:
        server = call.params["server_id"].lower()
        document = self._servers.document(server)
        if document is None:
            raise ApiError(404, "Ecs.0114", f"Instance[{server}] could not be found.")
        tags = document.get("tags")
        pairs = [tag.partition("=") for tag in tags if isinstance(tag, str)] if isinstance(tags, list) else []
        return json_reply({"tags": [{"key": key, "value": value} for key, _, value in pairs]})

    def _list_bare_metal(self, call: Call) -> Reply:
        limit = _number(call.query, "limit", DEFAULT_LIMIT, MAX_LIMIT)
        page = _number(call.query, "offset", 1, 1_000_000)
        bare = [server for server in self._servers.known() if self._servers.is_bare_metal(server)]
        documents = [self._servers.document(server) for server in bare[(page - 1) * limit : page * limit]]
        return json_reply({"count": len(bare), "servers": documents})

    def _show_bare_metal(self, call: Call) -> Reply:
        server = call.params["server_id"].lower()
        document = self._servers.document(server) if self._servers.is_bare_metal(server) else None
        if document is None:
            raise ApiError(404, "BMS.0114", f"Instance[{server}] could not be found.")
        return json_reply({"server": document})

    def _list_volumes(self, call: Call) -> Reply:
        text = call.query.get("ids", "")
        ids = [part.strip(" '\"") for part in text.strip("[]").split(",") if part.strip(" '\"")]
        if len(ids) > MAX_VOLUMES:
            raise ApiError(400, "EVS.0001", f"ids must name at most {MAX_VOLUMES} volumes")
        volumes = [
            {"id": volume, "size": disk.size, "volume_type": disk.volume_type, "status": "in-use", "multiattach": False}
            for volume in ids
            if (disk := self._servers.volume(volume)) is not None
        ]
        return json_reply({"count": len(volumes), "volumes": volumes})

    def _list_flavors(self, call: Call) -> Reply:
        limit = _number(call.query, "limit", MAX_LIMIT, MAX_LIMIT)
        marker = call.query.get("marker", "")
        found = [flavor for flavor in flavors() if str(flavor["id"]) > marker]
        return json_reply({"flavors": found[:limit]})

    def _show_subnet(self, call: Call) -> Reply:
        subnet = call.params["subnet_id"]
        if subnet != SUBNET_ID:
            raise ApiError(404, "VPC.0202", f"Subnet {subnet} could not be found.")
        document = {
            "id": subnet,
            "name": "subnet",
            "cidr": "192.168.0.0/16",
            "vpc_id": VPC_ID,
            "neutron_network_id": subnet,
            "neutron_subnet_id": generated_id("vpc", "subnet", 0),
            "ipv6_enable": False,
            "status": "ACTIVE",
        }
        return json_reply({"subnet": document})


def _number(query: Mapping[str, str], name: str, default: int, highest: int) -> int:
    text = query.get(name, str(default))
    if not text.isdecimal() or not 1 <= int(text) <= highest:
        raise ApiError(400, "Ecs.0005", f"{name} must be 1 to {highest}, not {text}")
    return int(text)
