"""Documents of ECS, BMS, EVS and VPC, parsed into the few fields that rules read, and let go.

Not for: HTTP (`servers`), or rules (`core.preflight`). A server document may hold user data and with it passwords'
hashes: no field of it but those below becomes a Python object. What is null, missing or of an odd type was not told.
Sources: https://support.huaweicloud.com/intl/en-us/api-ecs/ecs_02_0104.html and the official SDK's models.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import BaseModel, BeforeValidator, Field, TypeAdapter

from nodepool_membership.cce.lenient import (
    MAX_PARTS,
    Number,
    Reservation,
    Text,
    Texts,
    a_list,
    number,
    table,
    tables,
    texts,
)
from nodepool_membership.core.preflight.facts import Disk, Flavor, Server

_BARE_METAL_TAG: Final = "__type_baremetal"
_BOOT: Final = "0"
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
MAX_SERVERS: Final = 2000
"""Of a list; twice the largest page that is asked for."""
MAX_VOLUMES: Final = 120
"""Of a list; twice what is asked for."""
MAX_FLAVORS: Final = 2000
"""Of a page; twice what is asked for."""


def _port_ids(value: object) -> list[str]:
    """Those in a list, or in a text like one; that of BMS's page has brackets, and no quotes."""
    return _UUID.findall(str(value).lower()) if isinstance(value, str | list) else []


class _Metadata(BaseModel):
    charging_mode: Text = ""
    charging_mode_bms: Text = Field(default="", alias="chargingMode")
    vpc_id: Text = ""
    ecm_res_status: Text = Field(default="", alias="EcmResStatus")
    lock_source: Text = Field(default="", alias="lockSource")
    os_type: Text = ""
    ports: Annotated[list[str], BeforeValidator(_port_ids)] = Field(default_factory=list, alias="baremetalPortIDList")


def _texts_if_told(value: object) -> list[str] | None:
    return texts(value) if isinstance(value, list) else None


class _Address(BaseModel):
    version: Text = ""
    kind: Text = Field(default="", alias="OS-EXT-IPS:type")
    port_id: Text = Field(default="", alias="OS-EXT-IPS:port_id")
    mac: Text = Field(default="", alias="OS-EXT-IPS-MAC:mac_addr")


_Parts = Field(max_length=MAX_PARTS)
_Addresses = Annotated[list[_Address], _Parts, BeforeValidator(tables)]


class _Interface(BaseModel):
    port_id: Text = ""
    subnet_id: Text = ""
    ipv6_addresses: Annotated[list[object], BeforeValidator(a_list)] = Field(default_factory=list)


class _Flavor(BaseModel):
    id: Text = ""
    vcpus: Number = 0
    ram: Number = 0


class _Volume(BaseModel):
    id: Text = ""
    boot_index: Text = Field(default="", alias="bootIndex")
    size: Number = 0


class _Hints(BaseModel):
    group: Texts = Field(default_factory=list)


class ServerDocument(BaseModel):
    """A server of ECS or BMS. Of an unknown id a list may hold an entry with nothing but `id` and `fault`."""

    id: Text = ""
    status: Text = ""
    task: Text = Field(default="", alias="OS-EXT-STS:task_state")
    tenant_id: Text = ""
    metadata: Annotated[_Metadata, BeforeValidator(table)] = Field(default_factory=_Metadata)
    addresses: Annotated[dict[str, _Addresses], BeforeValidator(table)] = Field(default_factory=dict)
    interfaces: Annotated[list[_Interface], _Parts, BeforeValidator(tables)] = Field(
        default_factory=list, alias="network_interfaces"
    )
    flavor: Annotated[_Flavor, BeforeValidator(table)] = Field(default_factory=_Flavor)
    zone: Text = Field(default="", alias="OS-EXT-AZ:availability_zone")
    volumes: Annotated[list[_Volume], _Parts, BeforeValidator(tables)] | None = Field(
        default=None, alias="os-extended-volumes:volumes_attached"
    )
    tags: Annotated[list[str] | None, BeforeValidator(_texts_if_told)] = None
    enterprise_project_id: Text = ""
    hints: Annotated[_Hints, BeforeValidator(table)] = Field(default_factory=_Hints, alias="os:scheduler_hints")
    reservation: Text = Field(default="", alias="capacity_reservation_id")
    targeted: Annotated[Reservation, BeforeValidator(table)] = Field(
        default_factory=Reservation, alias="capacity_reservation_specification"
    )
    terminates: Text = Field(default="", alias="auto_terminate_time")
    locked: Text = ""

    @property
    def is_known(self) -> bool:
        """Whether it describes a server, and not an id that is not known."""
        return bool(self.id and self.status)

    def server(self, *, bare_metal: bool = False) -> Server:
        """What rules read of it, ids in lower case."""
        meta, addresses = self.metadata, [a for listed in self.addresses.values() for a in listed]
        tags = {key: value for key, _, value in (tag.partition("=") for tag in self.tags or ())}
        ports = {a.port_id or a.mac for a in addresses if a.port_id or a.mac} | {i.port_id for i in self.interfaces}
        has_ipv6 = any(a.version == "6" for a in addresses) or any(i.ipv6_addresses for i in self.interfaces)
        return Server(
            server_id=self.id.lower(),
            status=self.status,
            task=self.task,
            project_id=self.tenant_id.lower(),
            charging=meta.charging_mode or meta.charging_mode_bms,
            vpc_id=meta.vpc_id.lower(),
            subnets=frozenset(i.subnet_id.lower() for i in self.interfaces if i.subnet_id),
            ports=len((ports | set(meta.ports)) - {""}),
            has_ipv6=has_ipv6,
            flavor=self.flavor.id,
            zone=self.zone,
            vcpus=self.flavor.vcpus,
            memory_mib=self.flavor.ram,
            groups=frozenset(group.lower() for group in self.hints.group),
            reservation=self.reservation.lower() or self.targeted.asked,
            enterprise_project=self.enterprise_project_id.lower(),
            system_disk=next((Disk(v.id.lower()) for v in self.volumes or () if v.boot_index == _BOOT), None),
            disks=self._data_disks(),
            bare_metal=bare_metal or _BARE_METAL_TAG in tags,
            frozen=meta.ecm_res_status == "freeze",
            locked=self.locked == "true" or bool(meta.lock_source),
            terminates=self.terminates,
            os_type=meta.os_type,
            tags=tags,
            tells_tags=self.tags is not None,
        )

    def _data_disks(self) -> tuple[Disk, ...] | None:
        # Without a boot index nobody can tell the system disk from the others.
        if not self.volumes or all(volume.boot_index == "" for volume in self.volumes):
            return None
        return tuple(Disk(volume.id.lower(), volume.size) for volume in self.volumes if volume.boot_index != _BOOT)


class ServerPage(BaseModel):
    """Servers of a list. `servers` must be there: an answer without it shows nothing, least of all absence."""

    servers: Annotated[list[ServerDocument | None], Field(max_length=MAX_SERVERS, fail_fast=True)] | None

    @property
    def documents(self) -> list[ServerDocument]:
        return [document for document in self.servers or () if document is not None and document.id]


class OneServer(BaseModel):
    """The answer for one id."""

    server: ServerDocument


class _VolumeDocument(BaseModel):
    id: Text = ""
    size: Number = 0
    volume_type: Text = ""


class VolumePage(BaseModel):
    """Volumes by id; unknown ones are left out."""

    volumes: Annotated[list[_VolumeDocument], Field(max_length=MAX_VOLUMES), BeforeValidator(tables)]

    def disks(self) -> Mapping[str, Disk]:
        return {v.id.lower(): Disk(v.id.lower(), v.size, v.volume_type) for v in self.volumes if v.id}


class _ExtraSpecs(BaseModel):
    interfaces: Text = Field(default="", alias="quota:vif_max_num")
    sub_interfaces: Text = Field(default="", alias="quota:sub_network_interface_max_num")


class _FlavorDocument(BaseModel):
    id: Text = ""
    extra: Annotated[_ExtraSpecs, BeforeValidator(table)] = Field(default_factory=_ExtraSpecs, alias="os_extra_specs")


class FlavorPage(BaseModel):
    """Flavors of a region."""

    flavors: Annotated[list[_FlavorDocument], Field(max_length=MAX_FLAVORS, fail_fast=True)] | None

    def by_id(self) -> dict[str, Flavor]:
        """Of each no more than is compared."""
        return {
            flavor.id: Flavor(_number(flavor.extra.interfaces), _number(flavor.extra.sub_interfaces))
            for flavor in self.flavors or ()
        }


def _number(text: str) -> int | None:
    return number(text) if text.isdecimal() else None


class _Subnet(BaseModel):
    id: Text = ""
    network: Text = Field(default="", alias="neutron_network_id")
    subnet: Text = Field(default="", alias="neutron_subnet_id")
    ipv6: Text = Field(default="", alias="ipv6_enable")

    @property
    def ids(self) -> dict[str, bool]:
        return {name.lower(): self.ipv6 == "true" for name in (self.id, self.network, self.subnet) if name}


class OneSubnet(BaseModel):
    """A subnet of a VPC, which has three ids."""

    subnet: _Subnet


SERVERS: Final = TypeAdapter(ServerPage)
SERVER: Final = TypeAdapter(OneServer)
VOLUMES: Final = TypeAdapter(VolumePage)
FLAVORS: Final = TypeAdapter(FlavorPage)
SUBNET: Final = TypeAdapter(OneSubnet)
