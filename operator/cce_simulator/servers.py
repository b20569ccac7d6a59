"""Servers as ECS and BMS describe them: one document by id, made from what the world knows of the server.

Not for: routes (ecs). Any UUID is a server unless the configuration says otherwise; `ServerConfig.patch` makes one odd.
"""

from collections import Counter
from datetime import UTC, datetime

from cce_simulator.config import (
    PROJECT_ID,
    SUBNET_ID,
    VPC_ID,
    DiskConfig,
    ServerConfig,
    generated_id,
    merged,
)
from cce_simulator.documents import node_spec
from cce_simulator.world import World

_OWN_IMAGE = "c0ffee00-6a1d-4b5e-9c53-8f9d2c1a7b64"
_OWN_GROUP = {"id": "11111111-aaaa-4b5e-9c53-8f9d2c1a7b64", "name": "default"}
_NODE_GROUP = {"id": "22222222-bbbb-4b5e-9c53-8f9d2c1a7b64", "name": "cluster-cce-node"}
_DATA_DISKS = (DiskConfig(size=100), DiskConfig(size=500))  # what documents.node_spec asks for
USER_DATA = "IyEvYmluL2Jhc2gKZWNobyAncm9vdDokNiRSQU5ET00nIHwgY2hwYXNzd2QgLWU="


_FLAVORS = {"c3.large.2": ("12", "0"), "c7.2xlarge.4": ("8", "64"), "s2.large.2": (None, None)}
"""Network interfaces and supplementary ones; what an old flavor does not tell is not there."""


def flavors() -> list[dict[str, object]]:
    """The region's, by id."""
    names = ("quota:vif_max_num", "quota:sub_network_interface_max_num")
    return [
        {
            "id": flavor,
            "name": flavor,
            "vcpus": "8",
            "ram": 32768,
            "disk": "0",
            "os-flavor-access:is_public": True,
            "os_extra_specs": {
                "ecs:performancetype": "computingv3",
                "cond:operation:status": "normal",
                **{name: value for name, value in zip(names, numbers, strict=True) if value is not None},
            },
        }
        for flavor, numbers in _FLAVORS.items()
    ]


class Servers:
    """Every server, by id in lower case."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._reads: Counter[str] = Counter()
        self._volumes: dict[str, DiskConfig] = {}

    def rule(self, server: str) -> ServerConfig | None:
        """What the configuration says of a server."""
        return self._world.server_rules.get(server)

    def is_bare_metal(self, server: str) -> bool:
        rule = self.rule(server)
        return rule is not None and rule.kind == "bms"

    def known(self) -> list[str]:
        """Servers that a list without ids shows: those that the configuration or a node names."""
        named = {*self._world.server_rules, *self._world.inventory.tags}
        named |= {node.server_id for c in self._world.inventory.clusters.values() for node in c.nodes.values()}
        return sorted(server for server in named if self._world.exists(server))

    def volume(self, volume: str) -> DiskConfig | None:
        """A disk of a server that has been read."""
        return self._volumes.get(volume)

    def document(self, server: str) -> dict[str, object] | None:
        """The server's document, counted as a read of it; None if there is no such server."""
        if not self._world.exists(server):
            return None
        self._reads[server] += 1
        document = self._document(server)
        rule = self.rule(server)
        if rule is not None and self._reads[server] >= rule.from_read:
            document = merged(document, rule.patch)
        if self._world.config.behaviour.ecs_nulls == "missing":
            document = {name: value for name, value in document.items() if value is not None}
        return document

    def _document(self, server: str) -> dict[str, object]:
        world = self._world
        template = node_spec()
        busy = world.is_joining(server)
        marks = world.inventory.tags.get(server)
        tags = ["owner=nobody=else"]
        if marks is not None:
            tags += [f"CCE-Dynamic-Provisioning-Node={marks[0]}", f"CCE-Cluster-ID={marks[1]}"]
        if self.is_bare_metal(server):
            tags.append("__type_baremetal=true")
        adopted = busy or marks is not None
        port = generated_id(server, "port", 0)
        address = f"192.168.{int(server[:2], 16)}.{int(server[2:4], 16)}"
        created = datetime.fromtimestamp(world.started, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "id": server,
            "name": f"server-{server[:8]}",
            "status": "ACTIVE",
            "OS-EXT-STS:task_state": "rebuilding" if busy else None,
            "OS-EXT-STS:vm_state": "active",
            "OS-EXT-STS:power_state": 1,
            "created": created,
            "updated": created,
            "tenant_id": PROJECT_ID,
            "user_id": "0a1b2c3d4e5f60718293a4b5c6d7e8f9",
            "key_name": "cluster-keypair",
            "description": None,
            "fault": None,
            "locked": False,
            "flavor": {"id": template["flavor"], "name": template["flavor"], "vcpus": "8", "ram": "32768", "disk": "0"},
            "image": {"id": "5a0f3c9c-6a1d-4b5e-9c53-8f9d2c1a7b64" if adopted else _OWN_IMAGE},
            "security_groups": [_NODE_GROUP if adopted else _OWN_GROUP],
            "metadata": {
                "charging_mode": "0",
                "vpc_id": VPC_ID,
                "image_name": "Ubuntu 22.04 server 64bit",
                "os_type": "Linux",
                "os_bit": "64",
                "metering.imagetype": "gold",
                "EcmResStatus": "",
            },
            "addresses": {
                VPC_ID: [
                    {
                        "version": "4",
                        "addr": address,
                        "OS-EXT-IPS:type": "fixed",
                        "OS-EXT-IPS-MAC:mac_addr": "fa:16:3e:00:00:01",
                        "OS-EXT-IPS:port_id": port,
                        "primary": True,
                    }
                ]
            },
            "network_interfaces": [
                {
                    "port_id": port,
                    "primary": True,
                    "ip_addresses": [address],
                    "ipv6_addresses": [],
                    "subnet_id": SUBNET_ID,
                }
            ],
            "OS-EXT-AZ:availability_zone": template["az"],
            "os-extended-volumes:volumes_attached": self._attached(server),
            "tags": tags,
            "sys_tags": [{"key": "_sys_enterprise_project_id", "value": "0"}],
            "enterprise_project_id": "0",
            "os:scheduler_hints": {},
            "capacity_reservation_id": None,
            "capacity_reservation_specification": None,
            "auto_terminate_time": "",
            "OS-EXT-SRV-ATTR:user_data": USER_DATA,
            "OS-EXT-SRV-ATTR:hostname": f"server-{server[:8]}",
            "hostId": "e0689708ff0c7f3b4d2e2b9c6b35d8a7b2dbe6a3f6a38b3c6e8f0f6c",
            "host_status": "UP",
            "config_drive": "",
            "progress": 0,
        }

    def _attached(self, server: str) -> list[dict[str, object]]:
        """The system disk and the data disks; from now on EVS knows them."""
        rule = self.rule(server)
        given = ServerConfig(servers=(server,)) if rule is None else rule
        disks = [given.system_disk, *(_DATA_DISKS if given.data_disks is None else given.data_disks)]
        volumes = [generated_id(server, "volume", number) for number in range(len(disks))]
        self._volumes.update(zip(volumes, disks, strict=True))
        return [
            {
                "id": volume,
                "bootIndex": "0" if number == 0 else None,
                "device": f"/dev/vd{'abcdefghijklmnopqrstuvwxyz'[number % 26]}",
                "delete_on_termination": "true" if number == 0 else "false",
            }
            for number, volume in enumerate(volumes)
        ]
